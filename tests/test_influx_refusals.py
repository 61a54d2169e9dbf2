"""What a server refuses is one line that says what to do; the token is in none of them."""

from __future__ import annotations

import gzip
import http.server
import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sensor.errors import DeliveryError, UsageError
from sensor.sinks.batches import BATCH_LINES
from sensor.sinks.blocks import read_blocks
from sensor.sinks.delivery import Sent, push
from sensor.sinks.influxsink import InfluxSink
from sensor.sinks.servers import InfluxSettings, ServerKind, detect
from sensor.sinks.spool import SpoolSink
from tests.fakes import Handler, serving
from tests.needs import need_tool
from tests.reports import keep, make_report
from tests.servers import InfluxServer, free_port

TOKEN = "s3cret-Token=="


@pytest.fixture(scope="module")
def strict_influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """An InfluxDB 1.6 that wants TLS, a password and small requests. The database is ``traffic``."""
    directory = tmp_path_factory.mktemp("strict")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [need_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    tls = f'https-enabled = true\nhttps-certificate = "{certificate}"\nhttps-private-key = "{key}"'
    with InfluxServer(directory, f"{tls}\nauth-enabled = true\nmax-body-size = 2000") as server:
        server.trust(certificate)
        server.start()
        server.query("CREATE USER admin WITH PASSWORD 'pass:word' WITH ALL PRIVILEGES")
        server.log_in("admin", "pass:word")
        server.create_database("traffic")
        yield server


def strict_settings(server: InfluxServer, **changes: object) -> InfluxSettings:
    """Settings that the strict server accepts, with changes."""
    accepted = {"token": "admin:pass:word", "ca_file": str(server.directory / "certificate.pem")}
    return InfluxSettings(server.url, "traffic", **(accepted | changes))  # type: ignore[arg-type]


def test_tls_and_password_are_used(strict_influxdb: InfluxServer, tmp_path: Path) -> None:
    """With the right authority and user:password as token a window arrives; also with verification switched off."""
    keep(tmp_path, [make_report(0)])
    push(tmp_path, strict_settings(strict_influxdb))
    keep(tmp_path, [make_report(1)])
    push(tmp_path, strict_settings(strict_influxdb, ca_file=None, verify=False))
    assert strict_influxdb.query("SELECT COUNT(bytes) FROM vm_traffic", "traffic")[0]["count"] == 6


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"ca_file": None}, 3, r"cannot be trusted \(self.signed certificate\).*--influx-ca-file"),
        ({"token": "admin:wr0ng:password"}, 3, r"refuses the token \(401: authorization failed\).*--influx-token-file"),
        ({"token": ""}, 3, r"refuses the token \(401: unable to parse authentication credentials\)"),
    ],
    ids=["unknown authority", "wrong password", "no password"],
)
def test_a_strict_server_is_explained(
    strict_influxdb: InfluxServer, tmp_path: Path, changes: dict[str, object], rows: int, message: str
) -> None:
    """TLS, authentication and size limits of a real server give one line each, without the password."""
    keep(tmp_path, [make_report(7, rows)])
    with pytest.raises(DeliveryError, match=message) as caught:
        push(tmp_path, strict_settings(strict_influxdb, **changes))
    assert "wr0ng" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None or "wr0ng" not in repr(caught.value.__context__)


def test_a_server_with_a_limit_of_size_gets_smaller_requests(strict_influxdb: InfluxServer, tmp_path: Path) -> None:
    """Debian's InfluxDB with max-body-size takes a large window in pieces."""
    report = make_report(9, 3000)
    keep(tmp_path, [report])
    assert push(tmp_path, strict_settings(strict_influxdb)) == Sent(windows=1, lines=3000)
    at = f"SELECT COUNT(bytes) FROM vm_traffic WHERE time = {report.time_ns}"
    assert strict_influxdb.query(at, "traffic")[0]["count"] == 3000


class FakeInflux2(Handler):
    """Answers like InfluxDB 2, of which there is no Debian package; says ``status`` and ``reason`` to a write."""

    status = 204
    reason = ""
    bodies: list[bytes]

    def do_GET(self) -> None:
        """Ping."""
        self.answer(204, headers={"X-Influxdb-Version": "v2.7.1"})

    def do_POST(self) -> None:
        """Write: note the lines, and repeat the secret in the answer, as no real server should."""
        self.bodies.append(gzip.decompress(self.body()))
        echo = f"{self.reason} {self.headers['Authorization']}" if self.status != 204 else ""
        redirect = {"Location": "http://other/"} if 300 <= self.status < 400 else {}
        self.answer(self.status, b'{"message":"%b"}' % echo.encode() if echo else b"", redirect)


@contextmanager
def fake_influxdb_2(status: int = 204, reason: str = "") -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a fake server and the bodies that it receives."""
    handler = type("Handler", (FakeInflux2,), {"status": status, "reason": reason, "bodies": []})
    with serving(handler) as url:
        yield url, handler.bodies


def test_influxdb_2_gets_the_stored_lines_in_batches(tmp_path: Path) -> None:
    """The bodies of the requests, put together, are the store's lines; none holds more than a batch."""
    keep(tmp_path, [make_report(0, BATCH_LINES + 1), make_report(1)])
    with fake_influxdb_2() as (url, bodies):
        settings = InfluxSettings(url + "/", "traffic", org="us", token=TOKEN)
        assert detect(settings).kind is ServerKind.INFLUXDB_2
        assert push(tmp_path, settings) == Sent(windows=2, lines=BATCH_LINES + 4)
    assert [body.count(b"\n") for body in bodies] == [BATCH_LINES, 1, 3]
    assert b"".join(bodies) == b"".join(block.data for block in read_blocks(tmp_path))


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (401, "unauthorized access", r"refuses the token \(401: unauthorized access .*--influx-token-file"),
        (403, "forbidden", "refuses the token"),
        (404, "bucket 'traffic' not found", "has no bucket traffic; make it with: influx bucket create"),
        (404, "organization name 'us' not found", "has no organization us; check --influx-org"),
        (404, "page not found", "no InfluxDB write interface at this address; check --influx-url"),
        (400, "bad request", r"does not accept the data \(400: bad request"),
        (307, "", r"redirects \(307: http://other/\); give the address"),
        (429, "slow down", "cannot take data now"),
        (503, "unavailable " * 100, "cannot take data now"),
    ],
)
def test_a_refusal_is_explained_without_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, reason: str, message: str
) -> None:
    """Each refusal is one line with a next step; the token is in no message, log or representation of anything."""
    caplog.set_level(logging.DEBUG)
    keep(tmp_path, [make_report(0)])
    with fake_influxdb_2(status, reason) as (url, _):
        settings = InfluxSettings(url, "traffic", org="us", token=TOKEN)
        with pytest.raises(DeliveryError, match=message) as caught:
            push(tmp_path, settings)
        sink = InfluxSink(SpoolSink(tmp_path), settings)
        sink.open()
        with pytest.raises(DeliveryError, match="1 window is kept") as caught_from_sink:
            sink.close()
    said = [str(caught.value), str(caught_from_sink.value), repr(caught.value.__context__), caplog.text, repr(settings)]
    assert not [text for text in said if TOKEN in text]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_something_else_at_the_address_is_said_so(tmp_path: Path) -> None:
    """A web server that is no time-series database is recognised before any data is sent."""
    handler = type("Plain", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with (
        serving(handler) as url,
        pytest.raises(DeliveryError, match="neither InfluxDB nor VictoriaMetrics; check --influx-url"),
    ):
        detect(InfluxSettings(url, "traffic"))


def test_an_unknown_host_is_unreachable() -> None:
    """A name that does not resolve, and a port where nobody listens, are said in one line."""
    with pytest.raises(DeliveryError, match=r"http://influx.invalid:8086 cannot be reached \(.*(not known|failure)"):
        detect(InfluxSettings("http://influx.invalid:8086", "traffic"))
    with pytest.raises(DeliveryError, match=r"cannot be reached \(Connection refused\); check --influx-url"):
        detect(InfluxSettings(f"http://127.0.0.1:{free_port()}", "traffic"))


@pytest.mark.parametrize(
    ("url", "bucket", "token", "message"),
    [
        ("localhost:8086", "b", "", "not a URL"),
        ("ftp://localhost", "b", "", "not a URL"),
        ("http://[::1", "b", "", "not a URL"),
        ("http://user:hunter2@localhost", "b", "", "must not hold a password"),
        ("http://localhost", "", "", "no bucket"),
        ("http://localhost", "b", "hunter2\n", "token"),
        ("http://localhost", "b", "hünter2", "token"),
    ],
)
def test_wrong_settings_are_usage_errors(url: str, bucket: str, token: str, message: str) -> None:
    """What could only fail later is refused at once, and no secret is repeated."""
    with pytest.raises(UsageError, match=message) as caught:
        InfluxSettings(url, bucket, token=token)
    assert "nter2" not in str(caught.value)


def test_a_missing_authority_file_is_a_usage_error(tmp_path: Path) -> None:
    """It is named before anything is sent."""
    with pytest.raises(UsageError, match=r"--influx-ca-file .*missing\.pem: no such file"):
        InfluxSettings("https://localhost:8086", "traffic", ca_file=str(tmp_path / "missing.pem"))
