"""InfluxDB and what speaks its protocol: which server it is, one request that writes lines, and what a refusal means.

InfluxDB from 1.8 on and VictoriaMetrics take ``/api/v2/write``, which influxdb-client speaks. Older InfluxDB 1.x has
only ``/write``, for which one request over urllib3, influxdb-client's own transport, is all it takes.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import urllib3

from sensor.errors import DeliveryError, UsageError
from sensor.sinks.refusals import Refused, explained


class ServerKind(Enum):
    """What answers at the URL, as far as it decides how to write."""

    INFLUXDB_1 = "InfluxDB older than 1.8"
    INFLUXDB_2 = "InfluxDB 1.8 or newer"
    VICTORIAMETRICS = "VictoriaMetrics"


@dataclass(frozen=True)
class InfluxSettings:
    """Where to write, and with which right.

    For InfluxDB 1.x ``bucket`` is the database, or database/retention-policy, and ``token`` is user:password.
    VictoriaMetrics has no buckets and passes over the name.
    """

    url: str
    bucket: str
    org: str = ""
    token: str = field(default="", repr=False)
    ca_file: str | None = None
    verify: bool = True
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what would fail obscurely later, or would print a secret when it does."""
        try:
            parts = urllib3.util.parse_url(self.url)
        except urllib3.exceptions.LocationParseError:
            parts = urllib3.util.Url()
        if parts.auth:
            raise UsageError("--influx-url must not hold a password; put user:password where the token is expected")
        if parts.scheme not in ("http", "https") or not parts.host:
            raise UsageError(f"--influx-url {self.url}: not a URL; write it as http://HOST:8086")
        if not self.bucket:
            raise UsageError("no bucket to write to; name it with --influx-bucket")
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise UsageError(f"--influx-ca-file {self.ca_file}: no such file")
        if not (self.token.isascii() and self.token.isprintable()):
            raise UsageError("the InfluxDB token holds a line break or a letter that no token has; write it again")
        object.__setattr__(self, "url", self.url.rstrip("/"))

    @property
    def destination(self) -> str:
        """Names server and bucket in ``delivered.json`` and in messages."""
        return f"{self.url} {'/'.join(filter(None, (self.org, self.bucket)))}"


class Writer(Protocol):
    """A connection that writes line protocol; raises DeliveryError when the server does not take it."""

    def write(self, lines: bytes) -> None:
        """Write, in one request."""

    def close(self) -> None:
        """Drop the connection."""


def connect(settings: InfluxSettings) -> Writer:
    """The writer that the server at the URL understands."""
    return V1Writer(settings) if detect(settings) is ServerKind.INFLUXDB_1 else V2Writer(settings)


def detect(settings: InfluxSettings) -> ServerKind:
    """Ask the server what it is."""
    with explained(settings), _pool(settings) as pool:
        ping = pool.request("GET", f"{settings.url}/ping", headers=_token_header(settings), redirect=False)
        if ping.status != 404:
            _raise_unless_success(ping.status, ping.headers, ping.data)
        if "X-Server-Hostname" in ping.headers:
            return ServerKind.VICTORIAMETRICS
        version = ping.headers.get("X-Influxdb-Version") or _health_version(pool, settings)
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found is None:
        raise DeliveryError(f"{settings.url} is neither InfluxDB nor VictoriaMetrics; check --influx-url")
    return ServerKind.INFLUXDB_1 if (int(found[1]), int(found[2])) < (1, 8) else ServerKind.INFLUXDB_2


def _health_version(pool: urllib3.PoolManager, settings: InfluxSettings) -> str:
    """Where a proxy hides the header: InfluxDB 2 tells its version here, too."""
    health = pool.request("GET", f"{settings.url}/health", headers=_token_header(settings), redirect=False)
    try:
        return str(json.loads(health.data)["version"])
    except (ValueError, KeyError, TypeError):
        return ""


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
            enable_gzip=True,
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
                reason = _reason(headers, error.body or error.reason)
                raise Refused(error.status or 0, reason, headers.get("Retry-After", "")) from None

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()  # type: ignore[no-untyped-call]  # the package annotates it not


class V1Writer:
    """``/write`` of InfluxDB 1.x. A token with a colon is user and password."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._pool = _pool(settings)
        database, _, policy = settings.bucket.partition("/")
        query = {"db": database, "precision": "ns"} | ({"rp": policy} if policy else {})
        self._url = f"{settings.url}/write?{urlencode(query)}"
        self._headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"}
        self._headers |= (
            urllib3.util.make_headers(basic_auth=settings.token) if ":" in settings.token else _token_header(settings)
        )

    def write(self, lines: bytes) -> None:
        """Write, in one request."""
        with explained(self._settings):
            body = gzip.compress(lines)
            answer = self._pool.request("POST", self._url, body=body, headers=self._headers, redirect=False)
            _raise_unless_success(answer.status, answer.headers, answer.data)

    def close(self) -> None:
        """Drop the connection."""
        self._pool.clear()


def _pool(settings: InfluxSettings) -> urllib3.PoolManager:
    if not settings.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(total=settings.timeout),
        retries=False,
        cert_reqs="CERT_REQUIRED" if settings.verify else "CERT_NONE",
        ca_certs=settings.ca_file,
    )


def _token_header(settings: InfluxSettings) -> dict[str, str]:
    return {"Authorization": f"Token {settings.token}"} if settings.token else {}


def _raise_unless_success(status: int, headers: Mapping[str, str], body: bytes) -> None:
    if not 200 <= status < 300:
        raise Refused(status, _reason(headers, body.decode("utf-8", "replace")), headers.get("Retry-After", ""))


def _reason(headers: Mapping[str, str], body: str) -> str:
    """What the server says, wherever this kind of server says it."""
    try:
        answer = json.loads(body)
        body = answer.get("message") or answer.get("error") or body
    except (ValueError, AttributeError):
        pass
    return headers.get("Location") or headers.get("X-Influxdb-Error") or body
