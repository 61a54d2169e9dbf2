"""One request that writes lines.

InfluxDB from 1.8 on and VictoriaMetrics take ``/api/v2/write``, which influxdb-client speaks. Older InfluxDB 1.x has
only ``/write``, for which one request over urllib3, influxdb-client's own transport, is all it takes.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlencode

from sensor.sinks.refusals import Refused, explained
from sensor.sinks.servers import Http, InfluxSettings, ServerKind, detect, reason_in


class Writer(Protocol):
    """A connection that writes line protocol; raises DeliveryError when the server does not take it."""

    def write(self, lines: bytes) -> None:
        """Write, in one request."""

    def close(self) -> None:
        """Drop the connection."""


def connect(settings: InfluxSettings) -> Writer:
    """The writer that the server at the URL understands."""
    return V1Writer(settings) if detect(settings).kind is ServerKind.INFLUXDB_1 else V2Writer(settings)


class V2Writer:
    """``/api/v2/write`` through influxdb-client."""

    def __init__(self, settings: InfluxSettings) -> None:
        # Importing it takes half a second, which only those who write to a server should pay.
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.client.write_api import SYNCHRONOUS

        self._settings = settings
        self._client = InfluxDBClient(
            settings.url,
            settings.token,
            org=settings.org,
            timeout=round(settings.timeout * 1000),
            enable_gzip=settings.gzip,
            verify_ssl=settings.verify,
            ssl_ca_cert=settings.ca_file,
        )
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, lines: bytes) -> None:
        """Write, in one request."""
        from influxdb_client.rest import ApiException

        with explained(self._settings):
            try:
                self._api.write(self._settings.bucket, record=lines)
            except ApiException as error:
                headers: Mapping[str, str] = error.headers or {}
                reason = reason_in(headers, error.body or error.reason)
                raise Refused(error.status or 0, reason, headers.get("Retry-After", "")) from None

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()


class V1Writer:
    """``/write`` of InfluxDB 1.x. A token with a colon is user and password."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._http = Http(settings)
        self._gzip = settings.gzip
        self._path = write_path(settings)

    def write(self, lines: bytes) -> None:
        """Write, in one request."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._gzip:
            lines, headers["Content-Encoding"] = gzip.compress(lines), "gzip"
        self._http.demand("POST", self._path, lines, headers)

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()


def write_path(settings: InfluxSettings) -> str:
    """Where InfluxDB 1.x takes lines."""
    query = {"db": settings.database, "precision": "ns"} | ({"rp": settings.policy} if settings.policy else {})
    return f"/write?{urlencode(query)}"
