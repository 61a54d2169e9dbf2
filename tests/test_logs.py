"""What is said on standard error: as text or JSON, by level, and never a flood."""

from __future__ import annotations

import json
import logging
import subprocess
from datetime import datetime
from typing import Any

import pytest

from sensor.logs import BURST, BURST_SECONDS, JsonFormatter, TextFormatter, Throttle
from tests.command import command, environment
from tests.needs import PCAPS, need_root


def said(*arguments: str, status: int = 0) -> list[str]:
    """The lines on standard error of a command."""
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    return done.stderr.splitlines()


def objects(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
    """The same as objects; each line is one, with a time that has a zone."""
    found = [json.loads(line) for line in said(*arguments, "--log-format", "json", status=status)]
    assert all(datetime.fromisoformat(one["time"].replace("Z", "+00:00")).tzinfo for one in found)
    return found


def test_a_live_capture_says_all_as_json() -> None:
    """That it has begun, at level info, and the totals at the end, whatever the level."""
    need_root()
    live = ("capture", "lo", "--to", "none", "--filter", "port 9", "--no-nic-setup", "--duration", "1s")
    began, totals = objects(*live, "--log-level", "info")
    assert (began["level"], began["logger"]) == ("info", "sensor.live")
    assert began["message"] == "lo: capturing; workers: 1"
    assert totals["message"].startswith("received 0 = ")
    (totals,) = objects(*live, "--log-level", "error")
    assert totals["message"].startswith("received 0 = ")
    (plain,) = said(*live)
    assert plain == totals["message"]


def test_what_ends_a_command_is_json_too() -> None:
    """The message without a prefix, and the exit status beside it; damage of a file behind the totals."""
    totals, failed = objects("read", str(PCAPS / "cut.pcap"), "--to", "none", status=4)
    assert totals["level"] == "info"
    assert (failed["level"], failed["exit_status"]) == ("error", 4)
    assert "cut.pcap" in failed["message"]
    assert not failed["message"].startswith("vmsensor")


def record(message: str = "%s: gone", level: int = logging.WARNING) -> logging.LogRecord:
    """A message that was logged."""
    return logging.LogRecord("sensor.x", level, __file__, 1, message, ("eth1",) if "%" in message else (), None)


def test_a_flood_of_messages_is_counted_not_said() -> None:
    """Ten of a kind pass in a minute; the first of the next minute says how many did not; errors all pass."""
    now = 0.0
    throttle = Throttle(lambda: now)
    passed = [one for one in (record() for _ in range(1000)) if throttle.filter(one)]
    assert len(passed) == BURST
    assert throttle.filter(record("%s: something else"))
    assert all(throttle.filter(record(level=logging.ERROR)) for _ in range(2 * BURST))
    now = BURST_SECONDS
    late = record()
    assert throttle.filter(late)
    withheld = 1000 - BURST
    assert TextFormatter().format(late) == f"vmsensor: eth1: gone ({withheld} more like this were withheld)"
    assert json.loads(JsonFormatter().format(late))["withheld"] == withheld
    following = record()
    assert throttle.filter(following)
    assert TextFormatter().format(following) == "vmsensor: eth1: gone"
    assert "withheld" not in json.loads(JsonFormatter().format(following))


@pytest.mark.parametrize("text", ['quote " and \\', "line\nbreak", "\x1b[31m", "Zürich \udcff"])
def test_json_is_one_line_whatever_is_said(text: str) -> None:
    """Names come from the wire and from file systems: none breaks a line, or is an order to a terminal."""
    line = JsonFormatter().format(record(text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == text
