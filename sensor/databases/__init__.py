"""What ``vmsensor influx check`` and ``influx setup`` do with the database itself: one file a kind of server."""

from __future__ import annotations

from typing import Protocol

from sensor.sinks.servers import InfluxSettings, ServerKind

NS = 1_000_000_000


class Database(Protocol):
    """The database or bucket of some settings on a server. DeliveryError when the server does not let it be looked at.

    A retention is in ns; None means that everything is kept.
    """

    queries: str
    """How dashboards ask it: a language, or why they cannot."""

    def exists(self) -> bool:
        """Whether it is there."""

    def retention_ns(self) -> int | None:
        """How long points are kept. Only of one that exists."""

    def try_write(self) -> None:
        """Write nothing, with the rights that writing takes."""

    def try_read(self) -> None:
        """Ask something, as dashboards do."""

    def create(self, retention_ns: int | None) -> list[str]:
        """Make it; what was done, a line each."""

    def keep_for(self, retention_ns: int | None) -> list[str]:
        """Change how long points are kept; what was done, a line each."""

    def downsample(self, retention_ns: int | None) -> list[str]:
        """Let the server keep five-minute points for so long; what was done, a line each."""

    def close(self) -> None:
        """Drop the connection."""


def database_of(settings: InfluxSettings, kind: ServerKind) -> Database:
    """The database, by way of what this kind of server understands."""
    if kind is ServerKind.VICTORIAMETRICS:
        from sensor.databases.victoria import VictoriaDatabase

        return VictoriaDatabase(settings)
    if kind is ServerKind.INFLUXDB_3:
        from sensor.databases.influx3 import Influx3Database

        return Influx3Database(settings)
    if kind is ServerKind.INFLUXDB_2:
        from sensor.databases.influx2 import Influx2Database

        return Influx2Database(settings)
    from sensor.databases.influx1 import Influx1Database

    return Influx1Database(settings)
