"""The commands that look at windows of the past: what they print, from captures and from stores, in every format."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensor.analysis.explain import explain
from sensor.analysis.graph import VM, Graph
from sensor.analysis.matrix import PairSums, matrix_of
from sensor.window import Column, Labels, Report, Table
from tests.command import DAMAGED, DEMO, INPUT, complaint, vmsensor
from tests.needs import PCAPS

SLOW = PCAPS / "behaviour" / "life-slow-database.pcap"
BORDERS = PCAPS / "behaviour" / "attack-borders.pcap"
WEB, APP, DB, LOGIN = "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14"
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The windows of the demonstration, as `read` keeps them."""
    path = tmp_path_factory.mktemp("store")
    assert vmsensor("read", DEMO, "--to", f"store:{path}").returncode == 0
    return path


def said(*arguments: object) -> str:
    """What a command prints that ends well."""
    done = vmsensor(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- matrix


def traffic(window: int, *rows: dict[str, Any]) -> Report:
    """A window of ten seconds with pairs; what a row does not say is null, the tenant is t."""
    names = ("src_vm", "dst_vm", "src_tenant", "dst_tenant")
    tags = {name: Labels.of(row.get(name, "t") for row in rows) for name in names}
    fields = {}
    for name in ("bytes", "packets", "data_packets", "retransmissions", "spurious", "upstream_losses", "rtt_count",
                 "rtt_min_us", "queueing_us"):  # fmt: skip
        values = [row.get(name) for row in rows]
        valid = np.array([value is not None for value in values])
        fields[name] = Column(np.array([value or 0 for value in values], float), valid)
    start = window * 10 * SECOND
    return Report(start, start + 10 * SECOND, start, [Table("vm_traffic", len(rows), tags, fields)])


def test_a_matrix_is_made_of_sums() -> None:
    """Two services in two windows: octets add up, means are weighted, losses are those of all segments together."""
    ab = {"src_vm": "a", "dst_vm": "b"}
    sums = PairSums()
    sums.add(traffic(0, {**ab, "bytes": 1000, "data_packets": 10, "retransmissions": 1, "spurious": 1, "rtt_count": 1,
                         "rtt_min_us": 100, "queueing_us": 0}, {**ab, "bytes": 500}))  # fmt: skip
    sums.add(traffic(1, {**ab, "bytes": 1000, "data_packets": 80, "retransmissions": 8, "spurious": 0,
                         "upstream_losses": 2, "rtt_count": 3, "rtt_min_us": 200, "queueing_us": 100}))  # fmt: skip
    cells = {
        metric: matrix_of(sums.pairs(), metric).cells for metric in ("bytes", "throughput", "rtt", "waiting", "loss")
    }
    assert cells["bytes"].tolist() == [[0, 2500], [0, 0]]
    assert cells["throughput"][0, 1] == 2500 * 8 / 20
    assert cells["rtt"][0, 1] == 100
    assert cells["waiting"][0, 1] == pytest.approx((100 + 3 * 300) / 4 - 100)
    assert cells["loss"][0, 1] == pytest.approx(10 / 92)
    assert np.isnan(cells["loss"][1, 0])
    assert np.isnan(cells["rtt"][1, 0])


def test_tenants_are_summed_and_one_can_be_looked_at() -> None:
    """Between tenants everything counts, within one only what stays in it; VMs of one name in two tenants are two."""
    rows = [
        {"src_vm": "a", "dst_vm": "b", "src_tenant": "x", "dst_tenant": "x", "bytes": 1},
        {"src_vm": "a", "dst_vm": "b", "src_tenant": "y", "dst_tenant": "y", "bytes": 10},
        {"src_vm": "a", "dst_vm": "a", "src_tenant": "x", "dst_tenant": "y", "bytes": 100},
    ]
    tenants, within, vms = PairSums("tenant"), PairSums("vm", "y"), PairSums()
    for sums in (tenants, within, vms):
        sums.add(traffic(0, *rows))
    assert matrix_of(tenants.pairs(), "bytes").cells.tolist() == [[1, 100], [0, 10]]
    assert matrix_of(within.pairs(), "bytes").cells.tolist() == [[0, 10], [0, 0]]
    assert matrix_of(vms.pairs(), "bytes").names == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]
    assert matrix_of(vms.pairs(), "bytes", most=2).names == [("x", "a"), ("y", "a")]


def test_a_store_and_its_capture_have_the_same_matrix(store: Path) -> None:
    """To the octet, and all octets of vm_traffic are in it."""
    from_store = json.loads(said("matrix", store, "--format", "json"))
    assert from_store == json.loads(said("matrix", DEMO, "--format", "json"))
    points = [json.loads(line) for line in said("read", DEMO, "--to", "json:-").splitlines()]
    octets = sum(point["fields"]["bytes"] for point in points if point["measurement"] == "vm_traffic")
    assert sum(map(sum, from_store["matrix"])) == octets
    assert sum(pair["bytes"] for pair in from_store["pairs"]) == octets
    assert all(pair["latency_waiting_us"] >= 0 for pair in from_store["pairs"] if pair["latency_base_us"])


def test_windows_add_up_to_the_whole() -> None:
    """One matrix a window, whose octets are those of the one of the whole time."""
    whole = json.loads(said("matrix", DEMO, "--format", "json", "--by", "tenant"))
    parts = [json.loads(line) for line in
             said("matrix", DEMO, "--format", "json", "--by", "tenant", "--over", "window").splitlines()]  # fmt: skip
    assert len(parts) == 6
    assert sum(cell for part in parts for row in part["matrix"] for cell in row) == sum(map(sum, whole["matrix"]))
    assert all(one["end_ns"] == other["start_ns"] for one, other in itertools.pairwise(parts))


def test_csv_says_the_same_as_json() -> None:
    """A line of names, a line an end, and nothing where nothing was measured."""
    told = json.loads(said("matrix", DEMO, "--metric", "loss", "--format", "json"))
    rows = list(csv.reader(io.StringIO(said("matrix", DEMO, "--metric", "loss", "--format", "csv"))))
    assert [row[2] for row in rows[1:]] == rows[0][3:]
    assert [[float(cell) if cell else None for cell in row[3:]] for row in rows[1:]] == told["matrix"]


def test_a_table_for_people() -> None:
    """The units are written out, and what is left out is said."""
    table = said("matrix", DEMO, "--metric", "rtt", "--top", "2")
    assert "base latency" in table
    assert "more with less traffic; --top shows more" in table


# ---- dependencies


def test_a_tree_of_three_tiers() -> None:
    """From whom nobody needs, down."""
    lines = [" ".join(line.replace("default/", "").split()) for line in said("dependencies", SLOW).splitlines()]
    assert lines[0] == WEB
    assert lines[1].startswith(f"├── {APP} http-alt 1 connection, answers in ")
    assert lines[2].startswith(f"│ └── {DB} postgresql")
    assert lines[3].startswith(f"└── {LOGIN} 8081")


def test_what_a_vm_needs_and_who_needs_it() -> None:
    """Both ways from the middle; JSON has the same edges, and not that of the neighbour."""
    tree = said("dependencies", SLOW, "--vm", APP)
    assert tree.index("needs") < tree.index(DB) < tree.index("is needed by") < tree.index(WEB)
    told = json.loads(said("dependencies", SLOW, "--vm", f"default/{APP}", "--format", "json"))
    assert {(e["client"]["name"], e["server"]["name"], e["service"]) for e in told["edges"]} == {
        (WEB, APP, "http-alt"), (APP, DB, "postgresql")
    }  # fmt: skip
    assert all(edge["first_seen_ns"] < edge["last_seen_ns"] for edge in told["edges"])


def test_dot_and_mermaid_name_every_edge() -> None:
    """Both have all VMs, by tenant, and all services; Graphviz can draw it."""
    dot, mermaid = (said("dependencies", SLOW, "--format", form) for form in ("dot", "mermaid"))
    assert (dot.count(" -> "), mermaid.count(" -->|")) == (3, 3)
    for text in (dot, mermaid):
        assert all(f'"{name}"' in text for name in (WEB, APP, DB, LOGIN, "http-alt", "postgresql", "8081", "default"))
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot, text=True, check=True, capture_output=True, timeout=20)


def test_names_cannot_break_out_of_dot_or_mermaid(tmp_path: Path) -> None:
    """Quotes, brackets and backslashes in a VM's name stay in its label."""
    name = 'a"]; x -> y [label=\\"'
    escaped = name.replace('"', '""')
    (tmp_path / "vms.csv").write_text(f'vm,tenant,address\n"{escaped}",t,{WEB}\n')
    dot, mermaid = (
        said("dependencies", SLOW, "--inventory", tmp_path / "vms.csv", "--format", form) for form in ("dot", "mermaid")
    )
    assert 'label="a\\"]; x -> y [label=\\\\\\""' in dot
    assert '"a#34;#93;; x -#62; y #91;label=#92;#34;"' in mermaid


def dependency(window: int, *edges: tuple[str, str, float | None], failed: int = 0, way_us: float = 100.0) -> Report:
    """A window with edges of 50 responses of so many us, of which every connection takes so long to open."""
    count = len(edges)
    tags = {
        "client_vm": Labels.of(edge[0] for edge in edges), "server_vm": Labels.of(edge[1] for edge in edges),
        "client_tenant": Labels.constant("t", count), "server_tenant": Labels.constant("t", count),
        "service": Labels.constant("http", count), "scope": Labels.constant("east-west", count),
    }  # fmt: skip
    times = np.array([edge[2] or np.nan for edge in edges], float)
    fields = {
        "connections": Column(np.full(count, 10 - failed)), "failed": Column(np.full(count, failed)),
        "response_count": Column(np.full(count, 50)), "response_p95_us": Column(times),
        "handshake_us": Column(np.full(count, way_us)),
    }  # fmt: skip
    start = window * 10 * SECOND
    return Report(start, start + 10 * SECOND, start, [Table("dependency", count, tags, fields)])


def graph_of(*reports: Report) -> Graph:
    """A graph of windows."""
    graph = Graph()
    for report in reports:
        graph.add(report)
    return graph


def test_a_circle_ends() -> None:
    """VMs that need each other: each is a root of nobody, and the tree goes once around."""
    graph = graph_of(dependency(0, ("a", "b", 1000), ("b", "c", 1000), ("c", "a", 1000)))
    assert graph.roots() == [VM("t", "a")]
    slow = [dependency(i, ("a", "b", 1000), ("b", "c", 1000), ("c", "a", 1000)) for i in range(4)]
    slow += [dependency(i, ("a", "b", 90_000), ("b", "c", 80_000), ("c", "a", 70_000)) for i in range(4, 7)]
    assert explain(graph_of(*slow), VM("t", "a")).roots == [VM("t", "c")]


# ---- explain


@pytest.mark.parametrize("window", ["5s", "10s"])
def test_the_slow_database_is_the_root(window: str) -> None:
    """From the web server down to the database; the login server, which is as quick as ever, is not on the path."""
    told = json.loads(said("explain", WEB, SLOW, "--format", "json", "--window", window))
    assert [root["name"] for root in told["roots"]] == [DB]
    (step,) = told["paths"]
    assert (step["edge"]["server"]["name"], step["below"][0]["edge"]["server"]["name"]) == (APP, DB)
    assert step["below"][0]["share"] > 0.8
    assert step["is_network"] is None
    text = said("explain", WEB, SLOW, "--window", window)
    assert f"Likely root: default/{DB}" in text
    assert LOGIN not in text


def test_the_root_itself_names_what_slowed_with_it() -> None:
    """Asked for the database: it is the root, and both edges above it slowed down."""
    told = json.loads(said("explain", DB, SLOW, "--format", "json"))
    assert [root["name"] for root in told["roots"]] == [DB]
    assert [(e["edge"]["client"]["name"], e["edge"]["server"]["name"]) for e in told["above"]] == [
        (APP, DB),
        (WEB, APP),
    ]


def test_an_event_names_the_edges_above() -> None:
    """When the database slows down, its event says who waits for it."""
    points = [json.loads(line) for line in said("read", SLOW, "--to", "json:-", "--window", "5s").splitlines()]
    events = [p["fields"] for p in points if p["measurement"] == "event" and p["tags"]["kind"] == "edge_slow"]
    (database,) = (e["detail"] for e in events if e["subject"] == APP and e["state"] == "open")
    assert database.endswith(f"; slow with it, above: {WEB} -> {APP} http-alt")


def test_a_slow_network_is_told_from_a_slow_server() -> None:
    """By the time that connections take to open: it grows with the way, not with what the server does."""
    usual = [dependency(i, ("a", "b", 5000)) for i in range(4)]
    ways = {way_us: explain(graph_of(*usual, *(dependency(i, ("a", "b", 60_000), way_us=way_us) for i in range(4, 7))),
                            VM("t", "a")).paths[0].trouble.is_network for way_us in (100, 55_000)}  # fmt: skip
    assert ways == {100: False, 55_000: True}


def test_nothing_slow_is_said() -> None:
    """No path is made up."""
    assert "nothing that it needs was slow or failing" in said("explain", LOGIN, SLOW)


def test_one_slow_window_is_chance() -> None:
    """A single outlier makes no root; a server that fails does, though nothing was slow."""
    usual = [dependency(i, ("a", "b", 1000)) for i in range(8)]
    outlier = dependency(8, ("a", "b", 90_000))
    assert explain(graph_of(*usual, outlier), VM("t", "a")).paths == []
    failing = explain(graph_of(*usual, dependency(8, ("a", "b", None), failed=8)), VM("t", "a"))
    assert failing.roots == [VM("t", "b")]
    assert (failing.paths[0].trouble.failed, failing.paths[0].trouble.attempts) == (8, 10)


def test_what_explains_little_is_no_cause() -> None:
    """A second dependency that slowed a little at the same time is left out."""
    windows = [dependency(i, ("a", "b", 5000), ("b", "c", 4000), ("b", "d", 4000)) for i in range(4)]
    windows += [dependency(i, ("a", "b", 400_000), ("b", "c", 390_000), ("b", "d", 20_000)) for i in range(4, 7)]
    assert explain(graph_of(*windows), VM("t", "a")).roots == [VM("t", "c")]


# ---- vms


def test_vms_with_their_hosts_over_time(tmp_path: Path) -> None:
    """The migrated VM has been behind two tunnel ends, one after the other; names are the inventory's."""
    capture = PCAPS / "behaviour" / "life-migration.pcap"
    (tmp_path / "vms.csv").write_text(f"vm,tenant,address,vni\nweb-1,shop,{WEB},7001\ndb-1,shop,{DB},7001\n")
    options = ("vms", capture, "--inventory", tmp_path / "vms.csv")
    cards = {card["vm"]: card for card in json.loads(said(*options, "--format", "json"))["cards"]}
    moved, stayed = cards["web-1"]["hosts"], cards["db-1"]["hosts"]
    assert [host["vtep"] for host in moved] == ["192.168.200.1", "192.168.200.2"]
    assert moved[0]["to_ns"] <= moved[1]["from_ns"] < moved[1]["to_ns"]
    assert [host["vtep"] for host in stayed] == ["192.168.200.3"]
    assert "192.168.200.2" in said(*options)


def test_vms_by_what_they_say_of_themselves() -> None:
    """DHCP names, hypervisors by MAC address, and the switch port that feeds the mirror."""
    told = json.loads(said("vms", PCAPS / "names-dhcp.pcap", "--format", "json"))
    assert ("web-1.shops.example", "KVM/QEMU") in {(card["vm"], card["hypervisor"]) for card in told["cards"]}
    switch = json.loads(said("vms", PCAPS / "names-switch.pcap", "--format", "json"))["mirror"]
    assert ("leaf-1.example", "Ethernet12") in {(place["switch"], place["port"]) for place in switch}
    points = [json.loads(line) for line in said("read", PCAPS / "names-switch.pcap", "--to", "json:-").splitlines()]
    (sensor,) = (point["fields"] for point in points if point["measurement"] == "sensor")
    assert (sensor["mirror_switch"], sensor["mirror_port"]) in {(place["switch"], place["port"]) for place in switch}


def test_an_address_is_no_emoji() -> None:
    """Two colons around a number are part of an IPv6 address, also where a terminal library sees a picture."""
    assert "fd00:100::1" in said("vms", PCAPS / "vxlan.pcap")


def test_what_a_store_remembers(store: Path, tmp_path: Path) -> None:
    """Of a store without a memory that is said; damaged memories are too."""
    assert "has no memory.json" in complaint(vmsensor("vms", store), INPUT)
    (tmp_path / "memory.json").write_text('{"version": 2, "learned": {"cards": [[1]]}}')
    assert "what was learned cannot be read" in complaint(vmsensor("vms", tmp_path), INPUT)


# ---- policy check


def test_policy_check_lists_what_is_not_allowed(tmp_path: Path) -> None:
    """Every talk with its flows, the rules that were not used, and a status for scripts."""
    inventory, policy = tmp_path / "vms.csv", tmp_path / "policy.toml"
    inventory.write_text(
        f"vm,tenant,address\nweb,acme,{WEB}\ndb,acme,{DB}\nshop,globex,10.2.8.11\nbackup,ops,10.2.9.5\n"
    )
    policy.write_text('[[allow]]\nfrom = "*"\nto = "ops"\n[[allow]]\nfrom = "globex"\nto = "ops"\nservice = "ssh"\n')
    options = ("policy", "check", policy, BORDERS, "--inventory", inventory)
    done = vmsensor(*options, "--format", "json")
    told = json.loads(done.stdout)
    assert complaint(done, 9).startswith(f"{policy}: 2 talks not allowed")
    assert {(t["client"], t["server"], t["service"], t["flows"], t["answered"]) for t in told["denied"]} == {
        ("web", "shop", "http", 3, True), ("shop", "db", "icmp", 1, False)
    }  # fmt: skip
    assert [rule["flows"] for rule in told["rules"]] == [8, 0]
    table = vmsensor(*options).stdout
    assert f"{policy}:4: rule 2 was not used." in table
    policy.write_text(policy.read_text() + '[default]\ninter_tenant = "allow"\n')
    assert "Everything is allowed." in said(*options)


# ---- what can go wrong


@pytest.mark.parametrize("command", [("matrix",), ("dependencies",), ("explain", "web")])
def test_sources_that_are_none(command: tuple[str, ...], tmp_path: Path) -> None:
    """A missing path and an empty directory are one line each, with what to do."""
    assert "cannot read it" in complaint(vmsensor(*command, tmp_path / "none.pcap"), INPUT)
    said_of_empty = vmsensor(*command, tmp_path)
    assert said_of_empty.returncode == INPUT
    assert str(tmp_path) in said_of_empty.stderr


def test_an_unknown_vm_is_said_with_the_nearest() -> None:
    """Not an empty answer."""
    assert "did you mean '10.2.0.1" in complaint(vmsensor("explain", "10.2.0.10", SLOW), INPUT)


def test_a_damaged_store_is_read_as_far_as_it_goes(store: Path, tmp_path: Path) -> None:
    """The matrix of the rest is printed, and the status tells."""
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    block = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    block.write_bytes(block.read_bytes()[:-40])
    done = vmsensor("matrix", copy, "--format", "json")
    assert done.returncode == DAMAGED, done.stderr
    assert json.loads(done.stdout)["pairs"]
