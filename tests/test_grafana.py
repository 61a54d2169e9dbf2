"""`vmsensor grafana export` and `grafana install`: what a Grafana is given, and what is said when it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sensor.grafana import dashboards
from tests.command import DELIVERY, DEMO, INPUT, OK, OUTPUT, USAGE, complaint, vmsensor
from tests.fakes import Handler, serving
from tests.needs import ROOT
from tests.servers import InfluxServer, free_port

TOKEN = "glsa_s3cret"


def test_provisioning_files_are_complete(tmp_path: Path) -> None:
    """A data source, a provider whose path is where Grafana sees the dashboards, and all of these; no secret in any."""
    done = vmsensor(
        "grafana", "export", tmp_path / "out", "--influx-url", "https://influx.example:8086", "--influx-org", "lab",
        "--influx-bucket", "traffic", "--seen-at", "/provisioning/", "--downsampled", "--window", "30s",
        INFLUXDB_V2_TOKEN=TOKEN,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (OK, "")
    written = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == sorted(written)
    sources = json.loads((tmp_path / "out/datasources/vmsensor.yaml").read_text())["datasources"]
    assert [(one["uid"], one["jsonData"]["dbName"], one["jsonData"]["timeInterval"]) for one in sources] == [
        ("vmsensor", "traffic", "30000ms"), ("vmsensor-5m", "traffic_5m", "5m"),
    ]  # fmt: skip
    assert {one["secureJsonData"]["httpHeaderValue1"] for one in sources} == {"Token $INFLUXDB_V2_TOKEN"}
    (provider,) = json.loads((tmp_path / "out/dashboards/vmsensor.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/provisioning/dashboards/vmsensor"
    boards = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out/dashboards/vmsensor").iterdir()}
    assert boards == dashboards()
    assert not [path for path in written if TOKEN in path.read_text()]


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ((), {}, {}),
        ((), {"INFLUXDB_V2_TOKEN": "reader:pa:ss"}, {"password": "$INFLUXDB_PASSWORD"}),
        (("--influx-server", "influxdb-3"), {}, {"httpHeaderValue1": "Bearer $INFLUXDB_V2_TOKEN"}),
        (("--influx-org", "lab"), {}, {"httpHeaderValue1": "Token $INFLUXDB_V2_TOKEN"}),
    ],
)
def test_every_server_has_its_way_to_log_in(
    tmp_path: Path, options: tuple[str, ...], variables: dict[str, str], expected: dict[str, str]
) -> None:
    """None for an open InfluxDB 1, user and password, or a token, as Grafana reads them from its environment."""
    done = vmsensor("grafana", "export", tmp_path, *options, **variables)
    assert done.returncode == OK, done.stderr
    (source,) = json.loads((tmp_path / "datasources/vmsensor.yaml").read_text())["datasources"]
    assert source.get("secureJsonData", {}) == expected
    assert source.get("user") == ("reader" if "password" in expected else None)
    assert source["url"] == "http://localhost:8086"


def test_an_authority_of_ones_own_goes_along(tmp_path: Path) -> None:
    """The certificate of --influx-ca-file is what Grafana trusts too."""
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nabc\n")
    done = vmsensor("grafana", "export", tmp_path / "out", "--influx-ca-file", tmp_path / "ca.pem")
    assert done.returncode == OK, done.stderr
    (source,) = json.loads((tmp_path / "out/datasources/vmsensor.yaml").read_text())["datasources"]
    assert source["jsonData"]["tlsAuthWithCACert"] is True
    assert "BEGIN CERTIFICATE" in source["secureJsonData"]["tlsCACert"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """One line, and the status of an output."""
    (tmp_path / "file").write_text("")
    assert "cannot write the file: Not a directory" in complaint(
        vmsensor("grafana", "export", tmp_path / "file"), OUTPUT
    )


class _FakeGrafana(Handler):
    """The endpoints of Grafana's HTTP API that are used, with the answers that its documentation gives."""

    kept: dict[str, Any]
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        """A data source or a folder, or 404."""
        self._reply(200 if self.path in self.kept else 404, self.kept.get(self.path, {"message": "not found"}))

    def do_POST(self) -> None:
        """Make one."""
        body = json.loads(self.body())
        place = {
            "/api/datasources": lambda: f"/api/datasources/uid/{body['uid']}",
            "/api/folders": lambda: f"/api/folders/{body['uid']}",
            "/api/dashboards/db": lambda: f"/api/dashboards/uid/{body['dashboard']['uid']}",
        }[self.path]()
        self.kept[place] = body
        self._reply(200, {"url": "/d/" + body["dashboard"]["uid"]} if "dashboard" in body else {"uid": body["uid"]})

    def do_PUT(self) -> None:
        """Change one."""
        self.kept[self.path] = json.loads(self.body())
        self._reply(200, {})

    def _reply(self, status: int, said: Any) -> None:
        self.asked.append((self.command, self.path))
        if self.headers["Authorization"] not in (f"Bearer {TOKEN}", "Basic YWRtaW46YWRtaW4="):
            status, said = 401, {"message": f"Invalid API key {self.headers['Authorization']}"}
        self.answer_json(status, said)


@contextmanager
def fake_grafana() -> Iterator[tuple[str, dict[str, Any], list[tuple[str, str]]]]:
    """URL, what it keeps, what it was asked."""
    handler = type("Handler", (_FakeGrafana,), {"kept": {}, "asked": []})
    with serving(handler) as url:
        yield url, handler.kept, handler.asked


def test_everything_is_installed_and_again(tmp_path: Path) -> None:
    """Data source, folder and every dashboard in it; a second time they are replaced, and nothing is made twice."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with fake_grafana() as (url, kept, asked):
        options = ("grafana", "install", "--url", url + "/", "--token-file", tmp_path / "token")
        influx = ("--influx-url", "http://influx:8086")
        done = vmsensor(*options, *influx, INFLUXDB_V2_TOKEN="db-token")
        assert (done.returncode, done.stderr) == (OK, "")
        assert "data source vmsensor: http://influx:8086, database vmsensor" in done.stdout
        assert f"vmsensor: overview: {url}/d/vmsensor-overview" in done.stdout
        boards = [body for path, body in kept.items() if path.startswith("/api/dashboards/uid/")]
        assert len(boards) == len(dashboards())
        assert all(body["overwrite"] and body["folderUid"] == "vmsensor" for body in boards)
        source = kept["/api/datasources/uid/vmsensor"]
        assert source["secureJsonData"] == {"httpHeaderValue1": "Token db-token"}
        asked.clear()
        again = vmsensor(*options, *influx, GRAFANA_TOKEN="unused")
        assert again.returncode == OK
        assert ("PUT", "/api/datasources/uid/vmsensor") in asked
        assert ("POST", "/api/folders") not in asked
        kept.clear()
        alone = vmsensor("grafana", "install", "--url", url, GRAFANA_TOKEN="admin:admin")
        assert alone.returncode == OK
        assert "/api/datasources/uid/vmsensor" not in kept
        assert vmsensor("grafana", "install", "--url", url, GRAFANA_TOKEN=TOKEN).returncode == OK


def test_a_grafana_that_refuses_is_explained(tmp_path: Path) -> None:
    """A wrong token, no Grafana, no token, a token file that others can read: one line each, without the secret."""
    with fake_grafana() as (url, _, _):
        wrong = complaint(vmsensor("grafana", "install", "--url", url, GRAFANA_TOKEN="wr0ng-token"), DELIVERY)
    assert "Grafana refuses the token (401: Invalid API key Bearer [token]); it has to be of a service account" in wrong
    nobody = f"http://127.0.0.1:{free_port()}"
    said = complaint(vmsensor("grafana", "install", "--url", nobody, GRAFANA_TOKEN=TOKEN), DELIVERY)
    assert "cannot be reached (Connection refused); check --url" in said
    assert "needs a token" in complaint(vmsensor("grafana", "install", "--url", nobody), USAGE)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    open_file = ("grafana", "install", "--url", nobody, "--token-file", tmp_path / "token")
    assert "can be read by others" in complaint(vmsensor(*open_file), USAGE)
    missing_file = ("grafana", "install", "--url", nobody, "--token-file", tmp_path / "none")
    assert "cannot read the token file" in complaint(vmsensor(*missing_file), INPUT)


def test_the_last_lines_of_the_demo_work(influxdb: InfluxServer, tmp_path: Path) -> None:
    """What `make demo` says at its end, run as it stands but for the containers and the port, over its own store."""
    listed = re.findall(r'@echo "  (.*)"', (ROOT / "Makefile").read_text())
    lines = [line for line in listed if re.match(r"\$\(BIN\)/vmsensor (influx|push|grafana)", line)]
    assert [line.split()[1] for line in lines] == ["influx", "push", "grafana"]
    assert vmsensor("read", DEMO, "--store", tmp_path / "demo-data", "--to", "store").returncode == OK
    for line in lines:
        words = line.partition(" && ")[0].replace("http://127.0.0.1:8086", influxdb.url).split()
        done = vmsensor(*words[1:], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (OK, ""), line
    (octets,) = influxdb.query("SELECT sum(bytes) FROM vm_traffic", "vmsensor")
    (own,) = influxdb.query("SELECT sum(ip_bytes) FROM sensor", "vmsensor")
    assert octets["sum"] == own["sum"] is not None
    assert (tmp_path / "grafana" / "datasources" / "vmsensor.yaml").is_file()
