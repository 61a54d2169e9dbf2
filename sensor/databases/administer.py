"""``vmsensor influx check`` and ``vmsensor influx setup``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from sensor.databases import Database, database_of
from sensor.databases.duration import in_words
from sensor.errors import DeliveryError
from sensor.sinks.servers import InfluxSettings, detect

DEFAULT_RETENTION_NS = 30 * 86400 * 10**9
"""Of a database that ``setup`` makes."""

LONG_RETENTION_NS = 730 * 86400 * 10**9
"""Of five-minute points."""


class Line(NamedTuple):
    """One line of the check: what was looked at, whether it will do, and what to say of it."""

    what: str
    is_good: bool
    text: str


def check(settings: InfluxSettings) -> list[Line]:
    """What a sensor and the dashboards need of a server, in this order; DeliveryError where there is none."""
    found = detect(settings)
    name = f"{found.kind.title}{f' ({found.version})' if found.version else ''}"
    lines = [Line("server", True, f"{name} at {settings.url}")]
    with closing(database_of(settings, found.kind)) as database:
        there = _looked("database", database.exists)
        if there.is_good:
            exists = database.exists()
            what = f"{settings.bucket} is there" if exists else f"no {settings.bucket}; make it: vmsensor influx setup"
            there = Line("database", exists, what)
        lines.append(there)
        if there.is_good:
            lines.append(_retention(database))
            lines.append(_looked("write", database.try_write, "allowed"))
            lines.append(_looked("read", database.try_read, f"allowed; {database.queries}"))
    return lines


def _retention(database: Database) -> Line:
    try:
        kept = database.retention_ns()
    except DeliveryError as error:
        return Line("retention", True, f"not known: {error}")  # it takes rights that a sensor need not have
    advice = "; the database grows without end: vmsensor influx setup --retention 30d" if kept is None else ""
    return Line("retention", True, f"points are kept {in_words(kept)}{advice}")


def _looked(what: str, look: Callable[[], object], good: str = "") -> Line:
    try:
        look()
    except DeliveryError as error:
        return Line(what, False, str(error))
    return Line(what, True, good)


def set_up(settings: InfluxSettings, retention_ns: int | None, downsample: bool) -> list[str]:
    """Make what is missing; what was done, a line each. A retention that is not asked for is left as it is."""
    kind = detect(settings).kind
    with closing(database_of(settings, kind)) as database:
        if not database.exists():
            done = database.create(retention_ns or DEFAULT_RETENTION_NS)
        elif retention_ns is not None and database.retention_ns() != retention_ns:
            done = database.keep_for(retention_ns)
        else:
            done = [f"{settings.bucket} is there already; points are kept {in_words(database.retention_ns())}"]
        return done + (database.downsample(LONG_RETENTION_NS) if downsample else [])
