"""The dashboards that are shipped, and how they get into a Grafana: as provisioning files, or over its HTTP API.

The JSON in ``dashboards/`` beside this file is made by the code in the repository's own ``dashboards/``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from sensor.databases.downsampling import long_name
from sensor.sinks.servers import InfluxSettings, ServerKind

FOLDER = "vmsensor"
"""Title and uid of the folder that the dashboards are in."""

LONG_WINDOW = "5m"


@dataclass(frozen=True)
class DataSource:
    """Grafana's data source for the database that a sensor writes to, or for the five-minute points of it."""

    settings: InfluxSettings
    window_ns: int
    is_long: bool = False

    @property
    def uid(self) -> str:
        """In Grafana; the name as well."""
        return "vmsensor-5m" if self.is_long else "vmsensor"

    @property
    def database(self) -> str:
        """By the name that InfluxQL has for it."""
        return long_name(self.settings.database) if self.is_long else self.settings.database

    def to_json(self, token: str) -> dict[str, Any]:
        """As Grafana's HTTP API and its provisioning files take it, with ``token`` in place of the settings' own."""
        settings = self.settings
        # No panel asks for shorter intervals than there are points.
        interval = LONG_WINDOW if self.is_long else f"{max(self.window_ns // 10**6, 1)}ms"
        options: dict[str, Any] = {"dbName": self.database, "httpMode": "POST", "timeInterval": interval}
        made: dict[str, Any] = {
            "name": self.uid, "uid": self.uid, "type": "influxdb", "access": "proxy", "url": settings.url,
            "jsonData": options,
        }  # fmt: skip
        secrets: dict[str, str] = {}
        user, colon, _ = settings.token.partition(":")
        if colon:
            made["user"] = user
            secrets["password"] = token.partition(":")[2] or token
        elif settings.token or settings.org or settings.server in _WITH_TOKENS:
            scheme = "Bearer" if settings.server is ServerKind.INFLUXDB_3 else "Token"
            options["httpHeaderName1"] = "Authorization"
            secrets["httpHeaderValue1"] = f"{scheme} {token}"
        if settings.ca_file:
            options["tlsAuthWithCACert"] = True
            secrets["tlsCACert"] = Path(settings.ca_file).read_text(encoding="utf-8")
        if not settings.verify:
            options["tlsSkipVerify"] = True
        return made | ({"secureJsonData": secrets} if secrets else {})


_WITH_TOKENS = (ServerKind.INFLUXDB_2, ServerKind.INFLUXDB_3)


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard that is shipped, by the name of its file."""
    shipped = files("sensor.grafana") / "dashboards"
    found = sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in shipped.iterdir())
    return {name: json.loads(text) for name, text in found if name.endswith(".json")}
