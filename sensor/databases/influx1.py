"""InfluxDB 1.x: databases, retention policies, continuous queries; all by InfluxQL."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sensor.databases.downsampling import CONTINUOUS_QUERIES, continuous_query, long_name
from sensor.databases.duration import in_words, parse
from sensor.databases.probe import try_v1_write
from sensor.errors import DeliveryError
from sensor.sinks.servers import Http, InfluxSettings

Row = dict[str, Any]


class Influx1Database:
    """A database on InfluxDB 1.x. The policy is the one that the settings name, else the database's default."""

    queries = "InfluxQL"

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._http = Http(settings)

    def exists(self) -> bool:
        """Whether the database is there, and its policy where one is named."""
        if not self._is_listed():
            return False
        return not self._settings.policy or self._policy() is not None

    def _is_listed(self, name: str = "") -> bool:
        return any(row["name"] == (name or self._settings.database) for row in self._ask("SHOW DATABASES"))

    def retention_ns(self) -> int | None:
        """Of the policy."""
        policy = self._policy()
        return parse(str(policy["duration"])) if policy else None

    def try_write(self) -> None:
        """Lines without a point."""
        try_v1_write(self._http)

    def try_read(self) -> None:
        """The newest point of the sensor itself."""
        self._ask("SELECT last(received) FROM sensor", self._settings.database)

    def create(self, retention_ns: int | None) -> list[str]:
        """The database, and its policy."""
        name, policy = quoted(self._settings.database), quoted(self._settings.policy or "autogen")
        if self._is_listed():  # and only the policy is not there
            self._ask(f"CREATE RETENTION POLICY {policy} ON {name} DURATION {_duration(retention_ns)} REPLICATION 1")
        else:
            self._ask(f"CREATE DATABASE {name} WITH DURATION {_duration(retention_ns)} NAME {policy}")
        return [f"database {self._settings.bucket} made; points are kept {in_words(retention_ns)}"]

    def keep_for(self, retention_ns: int | None) -> list[str]:
        """Of the policy."""
        policy = self._policy()
        name = str(policy["name"]) if policy else self._settings.policy
        on = quoted(self._settings.database)
        # Shards must not outlive the points: 0s lets the server choose their length anew.
        how = f"DURATION {_duration(retention_ns)} SHARD DURATION 0s"
        self._ask(f"ALTER RETENTION POLICY {quoted(name)} ON {on} {how}")
        return [f"policy {name} keeps points {in_words(retention_ns)} from now on"]

    def downsample(self, retention_ns: int | None) -> list[str]:
        """A database for five-minute points, and continuous queries that fill it."""
        policy, long = self._policy(), long_name(self._settings.database)
        source = str(policy["name"]) if policy else "autogen"
        if not self._is_listed(long):
            self._ask(f"CREATE DATABASE {quoted(long)} WITH DURATION {_duration(retention_ns)} NAME autogen")
        done = [f"database {long} keeps points of five minutes {in_words(retention_ns)}"]
        there = {str(row["name"]) for row in self._ask("SHOW CONTINUOUS QUERIES")}
        for measurement, name in CONTINUOUS_QUERIES.items():
            if name in there:
                self._ask(f"DROP CONTINUOUS QUERY {quoted(name)} ON {quoted(self._settings.database)}")
            self._ask(continuous_query(self._settings.database, source, measurement))
            done.append(f"continuous query {name} fills it")
        return done

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()

    def _policy(self) -> Row | None:
        wanted = self._settings.policy
        for row in self._ask(f"SHOW RETENTION POLICIES ON {quoted(self._settings.database)}"):
            if row["name"] == wanted if wanted else row["default"]:
                return row
        return None

    def _ask(self, query: str, database: str = "") -> list[Row]:
        form = urlencode({"q": query} | ({"db": database} if database else {}))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        said = self._http.demand("POST", "/query", form.encode(), headers).json()
        result = said["results"][0]
        if "error" in result:
            raise DeliveryError(f"{self._settings.url} does not do what it is asked for ({result['error']})")
        return [
            dict(zip(series["columns"], values, strict=True))
            for series in result.get("series", ())
            for values in series.get("values", ())
        ]


def quoted(name: str) -> str:
    """A name in InfluxQL."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _duration(ns: int | None) -> str:
    return "INF" if ns is None else f"{ns // 10**9}s"
