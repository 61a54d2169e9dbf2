"""InfluxDB and what speaks its protocol: where one is, which it is, and requests to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

from sensor.errors import DeliveryError, UsageError
from sensor.sinks.refusals import Refused, explained


class ServerKind(Enum):
    """What answers at the URL, by the name that ``--influx-server`` has for it."""

    INFLUXDB_1 = "influxdb-1"
    INFLUXDB_1_8 = "influxdb-1.8"
    INFLUXDB_2 = "influxdb-2"
    INFLUXDB_3 = "influxdb-3"
    VICTORIAMETRICS = "victoriametrics"

    @property
    def title(self) -> str:
        """For people."""
        return _TITLES[self]


_TITLES = {
    ServerKind.INFLUXDB_1: "InfluxDB older than 1.8",
    ServerKind.INFLUXDB_1_8: "InfluxDB 1.8 or newer",
    ServerKind.INFLUXDB_2: "InfluxDB 2",
    ServerKind.INFLUXDB_3: "InfluxDB 3",
    ServerKind.VICTORIAMETRICS: "VictoriaMetrics",
}


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
    gzip: bool = True
    server: ServerKind | None = None
    """What it is; None: ask it."""

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
    def database(self) -> str:
        """The bucket without a retention policy behind it."""
        return self.bucket.partition("/")[0]

    @property
    def policy(self) -> str:
        """The retention policy behind it; empty where none is named."""
        return self.bucket.partition("/")[2]

    @property
    def destination(self) -> str:
        """Names server and bucket in ``delivered.json`` and in messages."""
        return f"{self.url} {'/'.join(filter(None, (self.org, self.bucket)))}"


class Found(NamedTuple):
    """A server that was asked what it is; the version is empty where it does not say."""

    kind: ServerKind
    version: str = ""


def detect(settings: InfluxSettings) -> Found:
    """Ask the server what it is, unless the settings say; DeliveryError when it is none of those that are known."""
    if settings.server is not None:
        return Found(settings.server)
    with Http(settings) as http:
        ping = http.answer("GET", "/ping")
        if ping.status != 404:
            raise_unless_success(ping)
        if "X-Server-Hostname" in ping.headers:
            return Found(ServerKind.VICTORIAMETRICS)
        version = (
            ping.headers.get("X-Influxdb-Version") or _version_in(ping) or _version_in(http.answer("GET", "/health"))
        )
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found is None:
        raise DeliveryError(f"{settings.url} is neither InfluxDB nor VictoriaMetrics; check --influx-url")
    return Found(_kind_of(int(found[1]), int(found[2])), version)


def _kind_of(major: int, minor: int) -> ServerKind:
    if major >= 3:
        return ServerKind.INFLUXDB_3
    if major == 2:
        return ServerKind.INFLUXDB_2
    return ServerKind.INFLUXDB_1_8 if (major, minor) >= (1, 8) else ServerKind.INFLUXDB_1


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """What the body holds; None when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def _version_in(answer: Answer) -> str:
    """Where a proxy hides the header: InfluxDB 2 and 3 tell their version in the body of some answers too."""
    said = answer.json()
    return str(said.get("version") or "") if isinstance(said, dict) else ""


class Http:
    """Requests with the settings' rights. Failures are DeliveryErrors, one line each, without the token."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self._headers = login(settings)
        if not settings.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(total=settings.timeout),
            retries=False,
            cert_reqs="CERT_REQUIRED" if settings.verify else "CERT_NONE",
            ca_certs=settings.ca_file,
        )

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """What the server answers, whatever that is."""
        with explained(self.settings):
            said = self._pool.request(
                method,
                self.settings.url + path,
                body=body,
                headers={**self._headers, **(headers or {})},
                redirect=False,
            )
            return Answer(said.status, said.headers, said.data)

    def demand(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The same, when only success will do."""
        answer = self.answer(method, path, body, headers)
        with explained(self.settings):
            raise_unless_success(answer)
        return answer

    def close(self) -> None:
        """Drop the connection."""
        self._pool.clear()


def login(settings: InfluxSettings) -> dict[str, str]:
    """The header that says who asks: a token with a colon is user and password of InfluxDB 1.x."""
    if ":" in settings.token:
        return dict(urllib3.util.make_headers(basic_auth=settings.token))
    return {"Authorization": f"Token {settings.token}"} if settings.token else {}


def raise_unless_success(answer: Answer) -> None:
    """Refused with the server's reason."""
    if not 200 <= answer.status < 300:
        reason = reason_in(answer.headers, answer.body.decode("utf-8", "replace"))
        raise Refused(answer.status, reason, answer.headers.get("Retry-After", ""))


def reason_in(headers: Mapping[str, str], body: str) -> str:
    """What the server says, wherever this kind of server says it."""
    try:
        answer = json.loads(body)
        body = answer.get("message") or answer.get("error") or body
    except (ValueError, AttributeError):
        pass
    return headers.get("Location") or headers.get("X-Influxdb-Error") or body
