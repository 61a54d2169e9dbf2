"""`vmsensor influx check` and `influx setup` on real servers, and on fakes of those that cannot be had here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from sensor.config import SERVERS
from sensor.databases.administer import check, set_up
from sensor.databases.downsampling import DOWNSAMPLED, continuous_query, fields_by_reduction, long_name, task
from sensor.databases.duration import in_words, parse
from sensor.errors import DeliveryError
from sensor.metrics import MEASUREMENTS
from sensor.sinks.delivery import push
from sensor.sinks.influx import V2Writer, connect
from sensor.sinks.servers import InfluxSettings, ServerKind
from tests.command import DELIVERY, DEMO, OK, USAGE, complaint, vmsensor
from tests.fakes import Handler, serving
from tests.reports import keep, make_report
from tests.servers import InfluxServer, VictoriaServer, free_port

DAY_NS = 86400 * 10**9
TOKEN = "s3cret-Token=="


def text_of(settings: InfluxSettings) -> dict[str, str]:
    """What the check says, by what it looked at, with a leading ! where it will not do."""
    return {line.what: ("" if line.is_good else "!") + line.text for line in check(settings)}


def test_from_nothing_to_a_dashboards_database(influxdb: InfluxServer, tmp_path: Path) -> None:
    """As a user does it: the check says what to do, setup does it, the check is content, points arrive."""
    settings = ("--influx-url", influxdb.url, "--influx-bucket", "fresh")
    before = vmsensor("influx", "check", *settings)
    assert (before.returncode, before.stdout.splitlines()) == (
        DELIVERY,
        [
            f"ok    server     InfluxDB older than 1.8 (1.6.7~rc0) at {influxdb.url}",
            "FAIL  database   no fresh; make it: vmsensor influx setup",
        ],
    )
    assert complaint(before, DELIVERY) == f"{influxdb.url} will not do yet: database; see above"
    made = vmsensor("influx", "setup", *settings, "--retention", "7d")
    assert (made.returncode, made.stdout) == (OK, "database fresh made; points are kept for 7 days\n")
    after = vmsensor("influx", "check", *settings)
    assert (after.returncode, after.stderr) == (OK, "")
    assert "FAIL" not in after.stdout
    assert "retention  points are kept for 7 days" in after.stdout
    again = vmsensor("influx", "setup", *settings)
    assert again.stdout == "fresh is there already; points are kept for 7 days\n"
    longer = vmsensor("influx", "setup", *settings, "--retention", "30d")
    assert longer.stdout == "policy autogen keeps points for 30 days from now on\n"
    assert influxdb.query("SHOW RETENTION POLICIES", "fresh")[0]["duration"] == "720h0m0s"


def test_a_named_policy_is_set_up(influxdb: InfluxServer, tmp_path: Path) -> None:
    """database/policy: the policy is made where it is missing, in a database that may be there, and written to."""
    settings = InfluxSettings(influxdb.url, influxdb.create_database("named") + "/weeks")
    assert text_of(settings)["database"].startswith("!no named/weeks")
    set_up(settings, 14 * DAY_NS, downsample=False)
    assert text_of(settings)["retention"] == "points are kept for 14 days"
    keep(tmp_path, [make_report(0)])
    assert push(tmp_path, settings).rejected == 3  # older than two weeks
    unbounded = influxdb.create_database("unbounded")
    assert "grows without end" in text_of(InfluxSettings(influxdb.url, unbounded))["retention"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """An InfluxDB 1.6 with users: one may read, one may write."""
    with InfluxServer(tmp_path_factory.mktemp("guarded"), "auth-enabled = true") as server:
        server.start()
        server.query("CREATE USER admin WITH PASSWORD 'x' WITH ALL PRIVILEGES")
        server.log_in("admin", "x")
        server.create_database("traffic")
        for user, right in (("reader", "READ"), ("writer", "WRITE")):
            server.query(f"CREATE USER {user} WITH PASSWORD 'x'")
            server.query(f"GRANT {right} ON traffic TO {user}")
        yield server


@pytest.mark.parametrize(
    ("token", "wrong"),
    [("admin:x", []), ("reader:x", ["write"]), ("writer:x", ["read"]), ("nobody:x", ["database"])],
)
def test_rights_are_told_apart(guarded: InfluxServer, token: str, wrong: list[str]) -> None:
    """Who may only read cannot write, and the reverse; the check says which right is missing, and no password."""
    lines = check(InfluxSettings(guarded.url, "traffic", token=token))
    assert [line.what for line in lines if not line.is_good] == wrong
    assert not [line for line in lines if "x@" in line.text or token in line.text]


def test_a_server_that_is_not_there() -> None:
    """One line that says so, and the status of a failed delivery."""
    done = vmsensor("influx", "check", "--influx-url", f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached (Connection refused); check --influx-url" in complaint(done, DELIVERY)
    assert "needs a server" in complaint(vmsensor("influx", "check"), USAGE)
    assert "is no duration" in complaint(
        vmsensor("influx", "setup", "--influx-url", "http://127.0.0.1:9", "--retention", "soon"), USAGE
    )


def test_victoriametrics(victoriametrics: VictoriaServer) -> None:
    """It is what it is: one database, a retention from its flag, and no InfluxQL for dashboards."""
    settings = InfluxSettings(victoriametrics.url, "any")
    assert text_of(settings) == {
        "server": f"VictoriaMetrics at {victoriametrics.url}",
        "database": "any is there",
        "retention": "points are kept for 36500 days",
        "write": "allowed",
        "read": "allowed; MetricsQL: the dashboards, which ask in InfluxQL, do not work with it",
    }
    assert set_up(settings, None, downsample=False) == ["any is there already; points are kept for 36500 days"]
    with pytest.raises(DeliveryError, match="flag -retentionPeriod"):
        set_up(settings, DAY_NS, downsample=False)


def test_five_minute_points_are_made_by_influxdb_itself(influxdb: InfluxServer, tmp_path: Path) -> None:
    """The shipped continuous queries, run over a real run's points: sums stay sums, minima minima."""
    database = "downsampled"
    url = ("--influx-url", influxdb.url, "--influx-bucket", database)
    assert vmsensor("influx", "setup", *url, "--downsample").returncode == OK
    done = vmsensor("influx", "setup", *url, "--downsample")  # a second time changes nothing
    assert (done.returncode, done.stdout.count("continuous query")) == (OK, len(DOWNSAMPLED)), done.stderr
    influxdb.query(f'ALTER RETENTION POLICY autogen ON "{database}" DURATION INF')
    read = vmsensor("read", DEMO, "--to", "influx", "--store", tmp_path / "store", *url)
    assert read.returncode == OK, read.stderr
    for measurement in DOWNSAMPLED:
        query = continuous_query(database, "autogen", measurement).partition(" BEGIN ")[2].removesuffix(" END")
        influxdb.query(query.replace(" GROUP BY", " WHERE time >= 0 AND time < now() + 1000w GROUP BY"), database)
    for aggregate in ("sum(bytes)", "sum(packets)", "min(rtt_min_us)", "max(rtt_p99_us)", "sum(retransmissions)"):
        raw = influxdb.query(f"SELECT {aggregate} AS value FROM vm_traffic", database)
        long = influxdb.query(f"SELECT {aggregate} AS value FROM vm_traffic", long_name(database))
        assert raw[0]["value"] == long[0]["value"] is not None
    (count,) = influxdb.query("SELECT count(received) FROM sensor", long_name(database))
    assert count["count"] == 1


def test_every_field_has_its_place_in_the_downsampling() -> None:
    """Each is kept in one way, or is made of what is kept: a rate, a ratio, a text."""
    for measurement in DOWNSAMPLED:
        kept = [name for names in fields_by_reduction(measurement).values() for name in names]
        left = {metric.name for metric in MEASUREMENTS[measurement][1]} - set(kept)
        assert len(kept) == len(set(kept))
        assert all(
            name.endswith(("_ratio", "_bps")) or name in ("confidence", "mirror_switch", "mirror_port") for name in left
        )
        flux = task("raw", "long", measurement)
        assert all(flux.count(f'"{name}"') == 1 for name in kept)


def test_durations_as_servers_write_them() -> None:
    """InfluxDB's, and in words."""
    assert [parse(text) for text in ("0s", "INF", "", "720h0m0s", "7d", "1h30m")] == [
        None, None, None, 30 * DAY_NS, 7 * DAY_NS, 5400 * 10**9,
    ]  # fmt: skip
    assert [in_words(ns) for ns in (None, DAY_NS, 36 * 3600 * 10**9, 10**9, 1_500_000_000)] == [
        "for ever", "for 1 day", "for 36 hours", "for 1 second", "for 1.5 seconds",
    ]  # fmt: skip


def test_the_kinds_of_servers_have_one_list() -> None:
    """--influx-server takes each kind, and auto."""
    assert ("auto", *(kind.value for kind in ServerKind)) == SERVERS


def test_a_kind_that_is_forced_is_not_asked_for(influxdb: InfluxServer) -> None:
    """Behind a proxy that hides it: the writer is the one that was named, without a request."""
    settings = InfluxSettings("http://127.0.0.1:9", "x", server=ServerKind.INFLUXDB_2)
    writer = connect(settings)
    writer.close()
    assert isinstance(writer, V2Writer)
    plain = InfluxSettings(influxdb.url, influxdb.create_database("plain"), server=ServerKind.INFLUXDB_1, gzip=False)
    connect(plain).write(b"m f=1i 5\n")
    assert influxdb.query("SELECT f FROM m", "plain") == [{"time": 5, "f": 1}]


# ---- fakes, as InfluxDB 2 and 3 are not packaged for Debian


class _Fake(Handler):
    """Remembers what it is asked, and answers from a table of (method, path) -> (status, JSON)."""

    version: str
    answers: dict[tuple[str, str], tuple[int, Any]]
    asked: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        """Look up."""
        self._reply(parse_qs(urlparse(self.path).query))

    def do_POST(self) -> None:
        """Look up."""
        body = self.body()
        self._reply(json.loads(body) if body.startswith(b"{") else body)

    def _reply(self, asked: Any) -> None:
        path = urlparse(self.path).path
        self.asked.append((self.command, path, asked))
        status, said = self.answers.get((self.command, path), (404, {"message": path}))
        status, said = (204, None) if path == "/ping" else (status, said)
        self.answer_json(status, said, {"X-Influxdb-Version": self.version})


@contextmanager
def fake(version: str, answers: dict[tuple[str, str], tuple[int, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The URL of a fake server, and what it is asked."""
    handler = type("Handler", (_Fake,), {"version": version, "answers": answers, "asked": []})
    with serving(handler) as url:
        yield url, handler.asked


MAPPING = {"orgID": "o1", "bucketID": "b1", "database": "traffic", "retention_policy": "autogen", "default": True}
BUCKET = {"id": "b1", "name": "traffic", "orgID": "o1", "retentionRules": [{"type": "expire", "everySeconds": 604800}]}


def test_a_bucket_is_made_and_mapped_on_influxdb_2() -> None:
    """The documented requests: find the bucket, make it with its retention, map it for InfluxQL, make tasks."""
    answers: dict[tuple[str, str], tuple[int, Any]] = {
        ("GET", "/api/v2/buckets"): (200, {"buckets": []}),
        ("GET", "/api/v2/orgs"): (200, {"orgs": [{"id": "o1", "name": "lab"}]}),
        ("POST", "/api/v2/buckets"): (201, BUCKET),
        ("POST", "/api/v2/dbrps"): (201, {**MAPPING, "id": "d1"}),
        ("GET", "/api/v2/tasks"): (200, {"tasks": []}),
        ("POST", "/api/v2/tasks"): (201, {"id": "t1", "orgID": "o1", "name": "n", "flux": ""}),
    }
    with fake("v2.7.1", answers) as (url, asked):
        done = set_up(InfluxSettings(url, "traffic", org="lab", token=TOKEN), 7 * DAY_NS, downsample=True)
    assert done[:2] == ["bucket traffic made; points are kept for 7 days", "InfluxQL finds it as database traffic"]
    posted = [(path, body) for method, path, body in asked if method == "POST"]
    assert posted[0][1]["retentionRules"] == [{"type": "expire", "everySeconds": 604800}]
    mapping = posted[1][1]
    assert (mapping["database"], mapping["retention_policy"], mapping["default"]) == ("traffic", "autogen", True)
    tasks = [body["flux"] for path, body in posted if path == "/api/v2/tasks"]
    assert tasks == [task("traffic", "traffic_5m", measurement) for measurement in DOWNSAMPLED]


def test_a_bucket_is_checked_on_influxdb_2() -> None:
    """Bucket, retention, and both rights, each from its own answer."""
    answers: dict[tuple[str, str], tuple[int, Any]] = {
        ("GET", "/api/v2/buckets"): (200, {"buckets": [BUCKET]}),
        ("POST", "/api/v2/write"): (403, {"code": "forbidden", "message": "insufficient permissions for write"}),
        ("GET", "/query"): (200, {"results": [{"statement_id": 0}]}),
    }
    with fake("v2.7.1", answers) as (url, _):
        said = text_of(InfluxSettings(url, "traffic", org="lab", token=TOKEN))
    assert said["retention"] == "points are kept for 7 days"
    assert said["write"].startswith(f"!{url} refuses the token (403: insufficient permissions for write)")
    assert said["read"] == "allowed; InfluxQL, by way of a DBRP mapping"


def test_a_database_is_made_and_checked_on_influxdb_3() -> None:
    """The documented requests of InfluxDB 3 Core, whose retention cannot be changed later."""
    answers: dict[tuple[str, str], tuple[int, Any]] = {
        ("GET", "/api/v3/configure/database"): (200, [{"iox::database": "other"}]),
        ("POST", "/api/v3/configure/database"): (200, None),
    }
    with fake("3.4.0", answers) as (url, asked):
        settings = InfluxSettings(url, "traffic", token=TOKEN)
        assert text_of(settings)["server"] == f"InfluxDB 3 (3.4.0) at {url}"
        assert set_up(settings, None, downsample=False) == ["database traffic made; points are kept for 30 days"]
        assert asked[-1] == ("POST", "/api/v3/configure/database", {"db": "traffic", "retention_period": "2592000s"})
        answers["GET", "/api/v3/configure/database"] = (200, [{"iox::database": "traffic"}])
        answers["POST", "/api/v2/write"] = (400, {"error": "no content"})
        answers["GET", "/query"] = (401, {"error": "the token is not valid"})
        said = text_of(settings)
        assert said["write"] == "allowed"
        assert said["read"].startswith(f"!{url} refuses the token (401: the token is not valid)")
        with pytest.raises(DeliveryError, match="cannot change the retention"):
            set_up(settings, DAY_NS, downsample=False)
