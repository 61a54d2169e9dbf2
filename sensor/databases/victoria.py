"""VictoriaMetrics: it has one database, and is told at its start how long points are kept."""

from __future__ import annotations

import re

from sensor.databases.duration import parse
from sensor.databases.probe import try_v2_write
from sensor.errors import DeliveryError
from sensor.sinks.servers import Http, InfluxSettings

_RETENTION = re.compile(rb'^-?retentionPeriod="?([0-9.]+)([hdwy]?)"?', re.MULTILINE)
_MONTH_NS = 31 * 86400 * 10**9


class VictoriaDatabase:
    """The one database of a VictoriaMetrics."""

    queries = "MetricsQL: the dashboards, which ask in InfluxQL, do not work with it"

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._http = Http(settings)

    def exists(self) -> bool:
        """Always."""
        return True

    def retention_ns(self) -> int | None:
        """Its flag -retentionPeriod, of which a bare number counts months."""
        found = _RETENTION.search(self._http.demand("GET", "/flags").body)
        if found is None:
            return None
        number, unit = float(found[1]), found[2].decode()
        return round(number * _MONTH_NS) if not unit else round(number * (parse(f"1{unit}") or 0)) or None

    def try_write(self) -> None:
        """Lines without a point."""
        try_v2_write(self._http)

    def try_read(self) -> None:
        """The names of series."""
        self._http.demand("GET", "/api/v1/labels")

    def create(self, retention_ns: int | None) -> list[str]:
        """Nothing to make."""
        return []

    def keep_for(self, retention_ns: int | None) -> list[str]:
        """Not from here."""
        raise DeliveryError(
            f"{self._settings.url}: VictoriaMetrics takes its retention from the flag -retentionPeriod; restart it"
            " with the one you want"
        )

    def downsample(self, retention_ns: int | None) -> list[str]:
        """Not from here."""
        raise DeliveryError(
            f"{self._settings.url}: VictoriaMetrics downsamples by its flag -downsampling.period (Enterprise);"
            " leave --downsample out"
        )

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()
