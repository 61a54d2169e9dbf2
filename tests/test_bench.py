"""The benchmark runs, and what it compares is comparable. How fast it finds anything is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.live import NAMES
from tests.bench.make_trace import TCP_PORTS, UDP_PORTS
from tests.bench.measure import Runs, run
from tests.bench.parts import PARTS
from tests.bench.traces import STANDARD
from tests.needs import ROOT, need_root, need_tool

BENCH = [sys.executable, "-m", "tests.bench"]
KINDS: tuple[list[str], ...] = ([], ["--vxlan"], ["--udp-only"], ["--syn-flood"], ["--imix"])
CHECKS = ("ip.check_checksum", "tcp.check_checksum", "udp.check_checksum")
WRONG = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0"
IMPOSSIBLE = "tcp.analysis.ack_lost_segment || tcp.analysis.spurious_retransmission || tcp.analysis.reused_ports"
RESENT = "tcp.analysis.retransmission || tcp.analysis.out_of_order"
SERVICES = (*(f"tcp.port=={port}" for port in TCP_PORTS), *(f"udp.port=={port}" for port in UDP_PORTS))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one quick run of two parts printed, and the rows of each that it wrote as JSON."""
    need_tool("cc")
    figures = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [*BENCH, "readers", "flow", "--quick", "--repetitions", "1", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, {name: part["rows"] for name, part in json.loads(figures.read_text())["parts"].items()}


def test_every_reader_has_its_row(bench: tuple[str, dict[str, Any]]) -> None:
    """Every row that a part names was made and printed, with its figures or with a reason."""
    printed, parts = bench
    for name, rows in parts.items():
        assert [tuple(row[key] for key in PARTS[name].keys) for row in rows] == PARTS[name].names()
    for row in parts["readers"]:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{row['traffic']}  {row['reader']}  ")]
        assert row["skipped"] in line if "skipped" in row else row["peak_kib"] > 0


def test_nobody_missed_a_packet(bench: tuple[str, dict[str, Any]]) -> None:
    """A run ends where a reader counts another number of packets than its neighbours; of flows, the table held some."""
    counted = {row["packets"] for row in bench[1]["readers"] if "skipped" not in row}
    assert counted == {STANDARD.smaller().packets}
    assert all(row["most_flows"] > 0 for row in bench[1]["flow"])


def test_small_traces_are_not_judged(bench: tuple[str, dict[str, Any]]) -> None:
    """On a trace that takes less than starting Python, no goal is met or missed."""
    assert "goals are not judged" in bench[0]
    assert "MISSED" not in bench[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["growht"], "no such part: growht"), (["--repetitions", "0"], "at least 1"), (["--quick", "--update"], "record")],
)
def test_what_cannot_be_measured_is_refused(words: list[str], complaint: str) -> None:
    """One line says what is wrong, and nothing runs."""
    done = subprocess.run([*BENCH, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]


def test_reader_that_fails_ends_the_run(tmp_path: Path) -> None:
    """What a program said last is said, and a command that is not there is one as well."""
    need_tool("cc")
    for command, said in ((["/bin/ls", str(tmp_path / "none")], "No such file"), (["/nowhere"], "/nowhere")):
        with pytest.raises(SystemExit, match=f"bench: it failed: .*{said}"):
            run("it", command, Runs())


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


def test_flood_is_nothing_else(tmp_path: Path) -> None:
    """Each packet is the SYN of another flow."""
    trace = make_trace(tmp_path / "trace.pcap", "--flows", "0", "--syn-flood", "1")
    assert matching(trace, "tcp.flags == 0x002 && !tcp.analysis.retransmission && !tcp.analysis.reused_ports") == 8000


def test_mirror_of_both_ends_delivers_twice(tmp_path: Path) -> None:
    """The sensor finds half of the packets to be mirror duplicates, and every flow in the other half."""
    trace = make_trace(tmp_path / "trace.pcap", "--twice")
    command = [sys.executable, "-m", "sensor", "read", str(trace), "--to", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "received 8000 = 4000 in flows + 0 overflow + 4000 mirror_duplicate" in done.stdout + done.stderr


def test_mix_of_sizes_is_that_of_the_internet(tmp_path: Path) -> None:
    """Of the packets that carry data, four of 576 octets come to one of 1,500, and frames are whole."""
    trace = make_trace(tmp_path / "trace.pcap", "--imix")
    middle, large = (matching(trace, f"ip.len == {octets}") for octets in (576, 1500))
    assert 3.5 < middle / large < 4.5
    assert matching(trace, "frame.cap_len != frame.len") == 0


@pytest.mark.proof
@pytest.mark.alone
def test_live_bench_has_every_row(tmp_path: Path) -> None:
    """Each program captures at a rate that all can take, or its row says why not; who counts has missed nothing."""
    need_root()
    need_tool("cc")
    figures = tmp_path / "figures.json"
    command = [*BENCH, "live", "--quick", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    rows = {row["program"]: row for row in json.loads(figures.read_text())["parts"]["live"]["rows"]}
    assert tuple(rows) == NAMES
    for row in rows.values():
        assert f"\n{row['program']}  " in done.stdout
        assert row.get("skipped") or row["peak_mib"] > 0
    for name in NAMES[:2]:
        assert (rows[name]["received"], rows[name]["dropped"]) == (rows[name]["offered"], 0)
