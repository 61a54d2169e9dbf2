"""InfluxDB 3: databases by its own interface; what it queries by InfluxQL is what it is written."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from sensor.databases.duration import in_words, parse
from sensor.databases.probe import try_v2_write
from sensor.errors import DeliveryError
from sensor.sinks.servers import Http, InfluxSettings


class Influx3Database:
    """A database on InfluxDB 3 Core or Enterprise."""

    queries = "InfluxQL"

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._http = Http(settings)
        self._bearer = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}

    def exists(self) -> bool:
        """Whether it is listed."""
        return self._listed() is not None

    def retention_ns(self) -> int | None:
        """As the list says; where it does not, for ever."""
        listed = self._listed() or {}
        said = listed.get("retention_period") or listed.get("retention_period_ns") or ""
        return int(said) if isinstance(said, int) else parse(str(said))

    def try_write(self) -> None:
        """Lines without a point."""
        try_v2_write(self._http)

    def try_read(self) -> None:
        """What is in it, by InfluxQL."""
        query = urlencode({"db": self._settings.bucket, "q": "SHOW MEASUREMENTS"})
        self._http.demand("GET", f"/query?{query}", headers=self._bearer)

    def create(self, retention_ns: int | None) -> list[str]:
        """With its retention, which InfluxDB 3 Core cannot change later."""
        wanted = {"db": self._settings.bucket}
        if retention_ns is not None:
            wanted["retention_period"] = f"{retention_ns // 10**9}s"
        headers = {"Content-Type": "application/json", **self._bearer}
        self._http.demand("POST", "/api/v3/configure/database", json.dumps(wanted).encode(), headers)
        return [f"database {self._settings.bucket} made; points are kept {in_words(retention_ns)}"]

    def keep_for(self, retention_ns: int | None) -> list[str]:
        """Not with this server."""
        raise DeliveryError(
            f"{self._settings.url}: InfluxDB 3 Core cannot change the retention of a database; choose a new"
            " --influx-bucket, and set it up with this --retention"
        )

    def downsample(self, retention_ns: int | None) -> list[str]:
        """Not with this server: its own storage is meant for long times, and it has no continuous queries."""
        raise DeliveryError(f"{self._settings.url}: InfluxDB 3 has no continuous queries; leave --downsample out")

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()

    def _listed(self) -> dict[str, Any] | None:
        answer = self._http.demand("GET", "/api/v3/configure/database?format=json", headers=self._bearer)
        for row in answer.json() or ():
            if row.get("iox::database") == self._settings.bucket:
                return dict(row)
        return None
