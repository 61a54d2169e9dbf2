"""The benchmark runs, and what it compares is comparable. How fast it finds anything is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.make_trace import TCP_PORTS, UDP_PORTS
from tests.needs import ROOT, need_root, need_tool

PACKETS = 200_000
KINDS: tuple[list[str], ...] = ([], ["--vxlan"], ["--udp-only"], ["--syn-flood"])
CHECKS = ("ip.check_checksum", "tcp.check_checksum", "udp.check_checksum")
WRONG = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0"
IMPOSSIBLE = "tcp.analysis.ack_lost_segment || tcp.analysis.spurious_retransmission || tcp.analysis.reused_ports"
RESENT = "tcp.analysis.retransmission || tcp.analysis.out_of_order"
SERVICES = (*(f"tcp.port=={port}" for port in TCP_PORTS), *(f"udp.port=={port}" for port in UDP_PORTS))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one quick run printed and what it wrote as JSON."""
    need_tool("cc")
    figures = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [sys.executable, "tests/bench/bench.py", "--quick", "--repetitions", "1", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(figures.read_text())


def test_every_reader_has_its_row(bench: tuple[str, dict[str, Any]]) -> None:
    """The table and the JSON have the same rows, the bare loop first, and every row has its figures or a reason."""
    printed, figures = bench
    names = [row["reader"] for row in figures["rows"]]
    assert names == [
        "bare libpcap loop", "pcapy-ng next_batch", "vmsensor, no sink", "vmsensor, store", "tcpdump -w /dev/null",
        "softflowd",
    ]  # fmt: skip
    lines = printed.splitlines()
    for row in figures["rows"]:
        (line,) = [line for line in lines if line.startswith(row["reader"])]
        if "skipped" in row:
            assert line.endswith(f"skipped: {row['skipped']}")
        else:
            assert f"{row['packets_per_second']:,}" in line
            assert row["peak_mib"] > 0
    assert figures["rows"][0]["ratio"] == 1


def test_nobody_missed_a_packet(bench: tuple[str, dict[str, Any]]) -> None:
    """libpcap, pcapy-ng and the sensor, with and without its store, counted every packet of the trace."""
    counted = {row["reader"]: row.get("packets") for row in bench[1]["rows"][:4]}
    assert counted == dict.fromkeys(counted, PACKETS)


def test_small_trace_is_not_judged(bench: tuple[str, dict[str, Any]]) -> None:
    """On a trace that takes less than starting Python, the goal is neither met nor missed."""
    assert bench[1]["goal_met"] is None
    assert "not judged" in bench[0]


def make_trace(out: Path, *options: str) -> Path:
    """A small trace of 300 conversations."""
    sizes = ["--packets", "8000", "--flows", "300", "--vms", "60", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "tests.bench.make_trace", *sizes, *options], cwd=ROOT, check=True, timeout=60)
    return out


def matching(trace: Path, display_filter: str) -> int:
    """How many packets tshark finds. Payload is zeros, which no application's dissector has to make sense of."""
    plain = [word for service in SERVICES for word in ("-d", f"{service},data")]
    checked = [word for check in CHECKS for word in ("-o", f"{check}:TRUE")]
    command = [need_tool("tshark"), "-n", "-r", str(trace), *plain, *checked, "-Y", display_filter]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return len(done.stdout.splitlines())


def test_same_seed_same_trace(tmp_path: Path) -> None:
    """The same options make the same bytes again, and another seed makes others."""
    first, again = make_trace(tmp_path / "first"), make_trace(tmp_path / "again")
    other = make_trace(tmp_path / "other", "--seed", "2")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("options", KINDS, ids=lambda options: "".join(options) or "mixed")
def test_trace_is_sound(tmp_path: Path, options: list[str]) -> None:
    """To tshark every packet is whole, no acknowledgement comes before its data, and few segments are resent."""
    trace = make_trace(tmp_path / "trace.pcap", *options)
    assert matching(trace, "tcp || udp") == 8000
    assert matching(trace, WRONG) == 0
    assert matching(trace, IMPOSSIBLE) == 0
    resent = matching(trace, RESENT)
    assert (resent == 0) if options == ["--udp-only"] else (0 < resent < 80)


@pytest.mark.proof
@pytest.mark.alone
def test_live_bench_has_every_row(tmp_path: Path) -> None:
    """Each program captures at a rate that all can take, or its row says why not; who counts has missed nothing."""
    need_root()
    need_tool("cc")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench.live", "--seconds", "1", "--rate", "20000", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    rows = {row["program"]: row for row in json.loads(figures.read_text())}
    assert list(rows) == [
        "vmsensor", "vmsensor, 2 workers", "tcpdump -w /dev/null", "softflowd", "argus", "NFStream",
    ]  # fmt: skip
    for row in rows.values():
        assert f"{row['program']:<22}" in done.stdout
        assert row.get("skipped") or row["peak_mib"] > 0
    for name in list(rows)[:2]:
        assert (rows[name]["received"], rows[name]["dropped"]) == (rows[name]["offered"], 0)
