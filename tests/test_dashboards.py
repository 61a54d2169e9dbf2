"""The dashboards: the JSON is what the code makes, every query answers on a real database, no number is missing."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.absent import FIELDS as ABSENT
from sensor.metrics import MEASUREMENTS
from tests.command import OK, command, environment, vmsensor
from tests.needs import PCAPS, ROOT, missing, need_root
from tests.servers import InfluxServer
from tests.test_borders import border_options

SHIPPED = ROOT / "sensor" / "grafana" / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(SHIPPED.glob("*.json"))}

READ = (
    ["demo.pcap"], ["names-switch.pcap"], ["cause-mirror-duplicate.pcap"], ["loss.pcap"], ["one-sided.pcap"],
    ["behaviour/attack-port-scan.pcap"], ["behaviour/life-migration.pcap"],
    ["behaviour/attack-borders.pcap"], ["behaviour/life-slow-database.pcap"],
)  # fmt: skip
"""What the database is filled with, besides a live capture: together they have something for every panel."""

DAY_MS = 86_400_000
FIRST_MS = 1_766_000_000_000
"""In December 2025, before all of them."""

IDENTIFIER = re.compile(r'"([A-Za-z0-9_]+)"')


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All but rows."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def targets() -> list[tuple[str, str, str, str]]:
    """Every query: board, panel, letter, text."""
    return [
        (name, panel["title"], target["refId"], target["query"])
        for name, board in BOARDS.items() for panel in panels(board) for target in panel.get("targets", ())
    ]  # fmt: skip


def variable_queries() -> list[tuple[str, str, str]]:
    """What fills the variables: board, variable, text."""
    return [
        (name, variable["name"], variable["query"]["query"])
        for name, board in BOARDS.items() for variable in board["templating"]["list"] if variable["type"] == "query"
    ]  # fmt: skip


def expanded(query: str, vm: str = "") -> str:
    """The query as Grafana sends it with every variable on All, and one VM where one is wanted."""
    now_ms = time.time_ns() // 10**6
    query = query.replace("$timeFilter", f"time >= {FIRST_MS}ms and time <= {now_ms + 60_000}ms")
    query = query.replace("$__interval_ms", str(DAY_MS)).replace("$__interval", f"{DAY_MS}ms")
    query = re.sub(r"=~ /\^\$\w+\$/", "=~ /^.*$/", query).replace("$top", "20").replace("'$vm'", f"'{vm}'")
    assert "$" not in query.replace(".*$/", ""), query
    return query


# ---- as the code makes them


def test_the_json_is_what_the_code_makes() -> None:
    """`make dashboards` would change nothing."""
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        missing("grafana-foundation-sdk is not installed (Python 3.11 or newer)")
    from dashboards.__main__ import generated

    made = generated()
    assert sorted(made) == [f"{name}.json" for name in sorted(BOARDS)]
    for name, text in made.items():
        assert (SHIPPED / name).read_text() == text, f"{name}: run make dashboards"


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_dashboard_is_well_made(name: str) -> None:
    """Panels say what their numbers mean, stand beside one another, have units, and ask the chosen database."""
    board = BOARDS[name]
    ids, places = [], set()
    for panel in panels(board):
        ids.append(panel["id"])
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & places, panel["title"]
        places |= cells
        if panel["type"] == "text":
            continue
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if panel["type"] in ("timeseries", "stat"):
            assert defaults["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(board) if panel["type"] != "text"]
    assert len(set(titles)) == len(titles)
    assert board["uid"] == f"vmsensor-{name}"
    assert board["description"]
    assert [link["tags"] for link in board["links"]] == [["vmsensor"]]
    assert [one["name"] for one in board["annotations"]["list"]] == ["Events"]


def test_links_lead_to_dashboards_that_are_there() -> None:
    """A click on a VM opens the dashboard of that name, with a variable that it has."""
    found = re.findall(r'"/d/(vmsensor-\w+)\?[^"]*var-(\w+)=', "".join(json.dumps(board) for board in BOARDS.values()))
    assert found
    for uid, variable in found:
        (board,) = [board for board in BOARDS.values() if board["uid"] == uid]
        assert variable in [one["name"] for one in board["templating"]["list"]]


def test_variables_are_used_and_declared() -> None:
    """Each variable that a query names is on its dashboard, and none is there for nothing."""
    for name, board in BOARDS.items():
        declared = {variable["name"] for variable in board["templating"]["list"]}
        text = json.dumps([board["panels"], board["templating"], board["annotations"]])
        used = {one or two for one, two in re.findall(r"\$(?:\{(\w+)|(\w+))", text)}
        builtin = {"timeFilter", "__interval", "__interval_ms", "__url_time_range", "__value", "__all"}
        aliases = {one for one in used if one.startswith("tag_")}
        assert used - builtin - aliases <= declared, name
        assert declared - used == set(), name


# ---- metrics.py and the dashboards


def test_every_field_and_tag_that_a_query_names_exists() -> None:
    """A measurement's fields and tags, and nothing else, stand between the quotes of its queries."""
    annotations = [("", "", "", one["target"]["query"]) for b in BOARDS.values() for one in b["annotations"]["list"]]
    variables = [(name, variable, "", query) for name, variable, query in variable_queries()]
    for name, title, _, query in [*targets(), *variables, *annotations]:
        if query.startswith("SELECT top("):
            continue  # its names are those of the query inside, which is checked below
        (measurement,) = re.findall(r'FROM "(\w+)"', query)
        tags, metrics = MEASUREMENTS[measurement]
        known = {*tags, *(metric.name for metric in metrics), measurement}
        assert set(IDENTIFIER.findall(query)) <= known, (name, title)
    for name, title, _, query in targets():
        if query.startswith("SELECT top("):
            outer, inner = query.split(" FROM (", 1)
            (measurement,) = re.findall(r'FROM "(\w+)"', inner)
            tags, metrics = MEASUREMENTS[measurement]
            aliases = set(re.findall(r" AS (\w+)", inner))
            assert set(IDENTIFIER.findall(inner)) <= {*tags, *(metric.name for metric in metrics), measurement}
            assert set(IDENTIFIER.findall(outer)) <= {*tags, *aliases}, (name, title)


def test_every_number_is_on_a_dashboard_or_absent_for_a_reason() -> None:
    """Each field and tag of metrics.py is named by a panel or a variable, or listed with why not."""
    shown: set[str] = set()
    for *_, query in [*targets(), *variable_queries()]:
        (measurement,) = re.findall(r'FROM "(\w+)"', query)
        shown |= {f"{measurement}.{name}" for name in IDENTIFIER.findall(query)}
    every = {
        f"{measurement}.{name}" for measurement, (tags, metrics) in MEASUREMENTS.items()
        for name in (*tags, *(metric.name for metric in metrics))
    }  # fmt: skip
    assert every - shown == set(ABSENT)
    assert all(len(reason) > 10 for reason in ABSENT.values())


# ---- on a real database


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """An InfluxDB 1.6 with real runs in it: captures that have something of everything, and a live capture."""
    need_root()
    directory = tmp_path_factory.mktemp("dashboards")
    with InfluxServer(directory / "server") as server:
        server.start()
        database = server.create_database("vmsensor")
        to = ("--to", "influx", "--influx-url", server.url, "--influx-bucket", database)
        borders = border_options(directory)
        for number, files in enumerate(READ):
            paths = [PCAPS / name for name in files]
            options = ("--sensor-name", f"tap-{number}", "--store", directory / f"{number}", *borders, *to)
            done = vmsensor("read", *paths, *options)
            assert done.returncode == OK, done.stderr
        _capture(directory / "live", to)
        yield server


def _capture(store: Path, to: tuple[str, ...]) -> None:
    """Three windows of what this machine says to itself over the loopback interface."""
    live = command(
        "capture", "lo", "--sensor-name", "live", "--window", "1s", "--duration", "4s", "--store", store,
        "--link-speed", "1G", *to,
    )  # fmt: skip
    with subprocess.Popen(live, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
                    client.sendall(b"x" * 1000)
                    server.recv(2000)
                    server.sendall(b"y" * 1000)
                    client.recv(2000)
                time.sleep(0.05)
        assert process.stderr is not None
        assert process.wait(10) == OK, process.stderr.read()


def ask(server: InfluxServer, query: str) -> list[dict[str, object]]:
    """Its rows, those in which every value is null apart."""
    found = server.query(query, "vmsensor")
    tags = {"time", *(tag for tags, _ in MEASUREMENTS.values() for tag in tags)}
    return [row for row in found if any(value is not None for name, value in row.items() if name not in tags)]


def test_every_panel_has_rows(filled: InfluxServer) -> None:
    """Every query of every panel answers on Debian's InfluxDB with at least one row that is not null."""
    vms = [
        str(row["value"]) for row in filled.query('SHOW TAG VALUES FROM "vm_traffic" WITH KEY = "src_vm"', "vmsensor")
    ]
    empty = []
    for name, title, letter, query in targets():
        candidates = vms if "'$vm'" in query else [""]
        if not any(ask(filled, expanded(query, vm)) for vm in candidates):
            empty.append((name, title, letter, query))
    assert [query for *_, query in empty if "nic_driver_losses" not in query] == []  # loopback has no driver
    assert len(targets()) > 100


def test_every_variable_has_values_and_annotations_have_texts(filled: InfluxServer) -> None:
    """What fills the variables, and the events that mark the time axis."""
    for name, variable, query in variable_queries():
        assert filled.query(expanded(query), "vmsensor"), (name, variable)
    for board in BOARDS.values():
        (annotation,) = board["annotations"]["list"]
        found = filled.query(expanded(annotation["target"]["query"]), "vmsensor")
        assert {"detail", "kind", "severity"} <= set(found[0])


def test_what_panels_add_up_is_what_the_sensor_saw(filled: InfluxServer) -> None:
    """Throughput times time, by scope and in all, is the sensors' own count of octets; loss is a ratio."""
    (own,) = filled.query('SELECT sum("ip_bytes") FROM "sensor"', "vmsensor")
    by_title = {(name, title, letter): query for name, title, letter, query in targets()}
    bits = filled.query(expanded(by_title["overview", "Throughput by scope", "A"]), "vmsensor")
    octets = sum(float(str(row["sum"])) * DAY_MS / 8000 for row in bits if row["sum"] is not None)
    assert octets == pytest.approx(own["sum"])
    matrix = filled.query(expanded(by_title["pairs", "Octets", "A"]), "vmsensor")
    assert sum(int(str(row["value"])) for row in matrix) == own["sum"]
    loss = ask(filled, expanded(by_title["pairs", "TCP loss", "A"]))
    assert all(0 <= float(str(row["value"])) <= 1 for row in loss)
    assert any(float(str(row["value"])) > 0 for row in loss)
