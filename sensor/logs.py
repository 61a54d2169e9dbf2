"""What the sensor says on standard error: lines for people or JSON for a collector, by level, and never a flood."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

FORMATS = ("text", "json")
LEVELS = ("error", "warning", "info")

BURST, BURST_SECONDS = 10, 60.0
"""So many messages of a kind in so long a time are said; what is beyond is counted, and said with the next."""

_as_json = False


def setup(form: str, level: str) -> None:
    """Say what is of this level or worse, in this form, from now on."""
    global _as_json
    _as_json = form == "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if _as_json else TextFormatter())
    handler.addFilter(Throttle())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def result(text: str) -> None:
    """Say a line that a command owes, whatever the level is."""
    _say(text, text, "info")


def failure(text: str, exit_status: int | None = None) -> None:
    """Say what ends the command, or a part of it."""
    _say(f"vmsensor: {text}", text, "error", **({} if exit_status is None else {"exit_status": exit_status}))


def _say(plain: str, text: str, level: str, **more: int) -> None:
    line = json_line(time.time(), level, "vmsensor", text, **more) if _as_json else plain
    print(line, file=sys.stderr, flush=True)


def json_line(seconds: float, level: str, logger: str, message: str, **more: int) -> str:
    """One message: ``time`` (RFC 3339), ``level``, ``logger``, ``message``, and what else it has."""
    moment = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": moment, "level": level, "logger": logger, "message": message, **more})


class TextFormatter(logging.Formatter):
    """As a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, and how many like it were not said."""
        withheld = _withheld(record)
        return f"vmsensor: {record.getMessage()}" + (f" ({withheld} more like this were withheld)" if withheld else "")


class JsonFormatter(logging.Formatter):
    """As a log collector reads it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; ``withheld`` where some like it were not said."""
        withheld = _withheld(record)
        more = {"withheld": withheld} if withheld else {}
        return json_line(record.created, record.levelname.lower(), record.name, record.getMessage(), **more)


def _withheld(record: logging.LogRecord) -> int:
    return int(getattr(record, "withheld", 0))


@dataclass
class _Kind:
    since: float
    said: int = 0
    withheld: int = 0


class Throttle(logging.Filter):
    """Lets so many messages of a kind pass; their kind is the text before its figures are put in. Errors all pass.

    There are as many kinds as places in the code that say something, so that this is bounded.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to say it."""
        if record.levelno >= logging.ERROR:
            return True
        now = self._clock()
        kind = self._kinds.setdefault((record.name, str(record.msg)), _Kind(now))
        if now - kind.since >= BURST_SECONDS:
            kind.since, kind.said = now, 0
        if kind.said >= BURST:
            kind.withheld += 1
            return False
        kind.said += 1
        record.__dict__["withheld"], kind.withheld = kind.withheld, 0
        return True
