"""Scans, floods and guessed passwords from records: what has to be said, and clean twins of which nothing may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensor import native
from sensor.analysis.findings import Detector, Finding, Scene
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.security import attempts, scan
from sensor.analysis.security.bruteforce import BruteForceDetector
from sensor.analysis.security.flood import MANY, FloodDetector
from sensor.analysis.security.scan import ScanDetector
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.heard import Heard
from sensor.identity.inventory import Inventory
from sensor.identity.parties import resolve
from sensor.identity.registry import Registry
from sensor.native import NumpyArray
from sensor.protocols import ICMP, UDP
from tests.records import SECOND, START, record

WINDOW = 10
SYN, SYN_SENT, CLOSED, RESET, ESTABLISHED = (
    native.ROLES.index("syn"), *(native.STATES.index(s) for s in ("syn_sent", "closed", "reset", "established"))
)  # fmt: skip
BASE = native.HAS_PORTS | native.NEW
BOTH = native.SEEN["c2s"] | native.SEEN["s2c"]
VM, SERVER = "10.0.0.1", "10.0.9.9"


def many(count: int, **fields: Any) -> NumpyArray:
    """Flows that differ in what is given as an array, and in their number."""
    one = record(VM, SERVER)
    rows = np.repeat(one, count)
    rows["flow_id"], rows["role_source"] = np.arange(count) + 1, SYN
    for name, value in fields.items():
        rows[name] = value
    return rows


def addresses(count: int, first: int = 0) -> NumpyArray:
    """As many addresses of 10.1.0.0/16."""
    numbers = np.arange(first, first + count)
    octets = np.zeros((count, 16), np.uint8)
    octets[:, 0], octets[:, 1], octets[:, 2], octets[:, 3] = 10, 1, numbers >> 8 & 255, numbers & 255
    return octets


def refused(count: int, **fields: Any) -> NumpyArray:
    """SYNs that were answered by RST."""
    told = {"flags": BASE | native.REFUSED | BOTH, "tcp_state": RESET, "c2s_packets": 1, "s2c_packets": 1}
    return many(count, **{**told, **fields})


def silent(count: int, **fields: Any) -> NumpyArray:
    """SYNs that were answered by nothing."""
    told = {"flags": BASE | native.SEEN["c2s"], "tcp_state": SYN_SENT, "c2s_packets": 1, "start_ns": START}
    return many(count, **{**told, **fields})


def served(count: int, **fields: Any) -> NumpyArray:
    """Connections that were completed."""
    told = {"flags": BASE | native.ANSWERED | BOTH, "tcp_state": CLOSED, "c2s_packets": 6, "s2c_packets": 5,
            "c2s_payload_bytes": 300, "s2c_payload_bytes": 5000}  # fmt: skip
    return many(count, **{**told, **fields})


def look(detector: Detector, *windows: NumpyArray, heard: tuple[Heard, ...] = ()) -> list[Finding]:
    """What a detector says of one window after the other."""
    found: list[Finding] = []
    for number, rows in enumerate(windows):
        rows = rows.copy()
        start = START + number * WINDOW * SECOND
        rows["start_ns"] += start - START
        registry = Registry(PRIVATE_NETWORKS)
        scene = Scene(start, start + WINDOW * SECOND, rows, resolve(rows, registry), heard, Inventory())
        found += detector.look(scene)
    return found


def kinds(findings: list[Finding]) -> list[tuple[str, str, str]]:
    """Kind, subject and object."""
    return [(finding.kind, finding.subject, finding.object) for finding in findings]


# ---- scans


def test_a_refused_port_scan() -> None:
    """One VM, many ports, nearly all closed."""
    rows = np.concatenate([refused(200, server_port=np.arange(1, 201)), served(2, server_port=np.array([300, 301]))])
    assert kinds(look(ScanDetector(DEFAULTS), rows)) == [("port_scan", VM, SERVER)]


def test_a_silent_port_scan_of_a_firewalled_vm() -> None:
    """Nobody refuses, nobody answers; that answers could be seen is known from other connections."""
    rows = np.concatenate([silent(200, server_port=np.arange(1, 201)), served(5, client_port=np.arange(5))])
    assert kinds(look(ScanDetector(DEFAULTS), rows)) == [("port_scan", VM, SERVER)]


def test_a_host_sweep() -> None:
    """One port, many hosts."""
    assert kinds(look(ScanDetector(DEFAULTS), refused(60, server_ip=addresses(60), server_port=445))) == [
        ("host_sweep", VM, "tcp/445")
    ]


def test_a_slow_scan_adds_up() -> None:
    """Two ports a window: found when they are enough, and only then."""
    windows = [refused(2, server_port=np.array([2 * i + 1, 2 * i + 2])) for i in range(8)]
    assert look(ScanDetector(DEFAULTS), *windows[:4]) == []
    assert kinds(look(ScanDetector(DEFAULTS), *windows))[0] == ("port_scan", VM, SERVER)


def test_a_udp_scan_by_its_icmp_errors() -> None:
    """Port unreachable is a refusal."""
    probes = many(40, protocol=UDP, server_port=np.arange(1000, 1040), flags=BASE | native.SEEN["c2s"], c2s_packets=1,
                  role_source=0)  # fmt: skip
    error = record(SERVER, VM, protocol=ICMP, client_port=3, server_port=3, flags=BASE, c2s_packets=20)
    assert kinds(look(ScanDetector(DEFAULTS), np.concatenate([probes, error]))) == [("port_scan", VM, SERVER)]


def test_an_arp_sweep() -> None:
    """Questions for hosts that are not there; an answered one shows that answers can be seen."""
    mac = "02:00:00:00:00:01"
    heard = tuple(Heard(START, "request", mac, ip=VM, target=f"10.0.0.{i}") for i in range(50, 120))
    heard += (Heard(START, "binding", "02:00:00:00:00:02", ip="10.0.0.50", reply=True),)
    rows = served(1, client_mac=np.array([2, 0, 0, 0, 0, 1], np.uint8))
    assert kinds(look(ScanDetector(DEFAULTS), rows, heard=heard)) == [("host_sweep", VM, "arp")]


@pytest.mark.parametrize(
    "rows",
    [
        served(3000, server_ip=addresses(3000), server_port=443),
        np.concatenate([served(480, server_ip=addresses(480)), refused(20, server_ip=addresses(20, 480))]),
        refused(3000, client_port=np.arange(3000) % 60000),
        refused(9, server_ip=addresses(9)),
        silent(300, server_ip=addresses(300), tcp_state=ESTABLISHED, c2s_packets=5),
        silent(300, server_ip=addresses(300), protocol=UDP, role_source=0),
    ],
    ids=[
        "crawler",
        "monitoring with dead hosts",
        "one dead service",
        "few dead peers",
        "one-sided TCP",
        "one-sided UDP",
    ],
)
def test_what_is_no_scan(rows: NumpyArray) -> None:
    """A client of many servers, of a few dead ones, or of one again and again; a mirror that shows one direction."""
    assert look(ScanDetector(DEFAULTS), rows, rows) == []


def test_an_answer_in_the_next_window_counts() -> None:
    """What has just been asked is not judged yet."""
    young = silent(30, server_port=np.arange(30), start_ns=START + WINDOW * SECOND - SECOND // 10)
    late = served(30, server_port=np.arange(30), flags=native.HAS_PORTS | native.ANSWERED | BOTH)
    assert look(ScanDetector(DEFAULTS), np.concatenate([young, served(1, flow_id=999)]), late) == []
    refusals = refused(30, server_port=np.arange(30), flags=native.HAS_PORTS | native.REFUSED | BOTH)
    assert kinds(look(ScanDetector(DEFAULTS), young, refusals)) == [("port_scan", VM, SERVER)]


def test_a_flood_of_sources_is_no_scan_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """300,000 forged sources with a SYN each: nobody is a scanner, and no table grows beyond its bound."""
    monkeypatch.setattr(attempts, "MOST_NEW", 20_000)
    monkeypatch.setattr(scan, "MOST_SOURCES", 1000)
    count = 300_000
    octets = np.zeros((count, 16), np.uint8)
    octets[:, 0] = 198
    octets[:, 1:4] = np.stack([np.arange(count) >> shift & 255 for shift in (16, 8, 0)], axis=1)
    detector = ScanDetector(DEFAULTS)
    assert look(detector, silent(count, client_ip=octets), refused(30, client_ip=octets[:30])) == []
    assert detector.forgotten > 0


# ---- floods


def forged(count: int) -> NumpyArray:
    """SYNs of as many outside addresses."""
    octets = np.zeros((count, 16), np.uint8)
    octets[:, 0], octets[:, 1] = 198, 18
    octets[:, 2:4] = np.stack([np.arange(count) >> 8 & 255, np.arange(count) & 255], axis=1)
    return silent(count, client_ip=octets)


def test_a_syn_flood_names_its_victim() -> None:
    """From many sources, or from one; the everyday connections beside it do not hide it."""
    (found,) = look(FloodDetector(DEFAULTS), np.concatenate([forged(3000), served(200)]))
    assert (found.kind, found.subject, found.object, found.severity) == (
        "syn_flood",
        MANY,
        f"{SERVER}:http",
        "critical",
    )
    assert found.counts == {"half_open": 3000, "completed": 200}
    assert kinds(look(FloodDetector(DEFAULTS), silent(3000))) == [("syn_flood", VM, f"{SERVER}:http")]


def test_what_is_no_syn_flood() -> None:
    """Many completed connections, few dead ones, a refusing host; a busy server with some half-open beside many."""
    assert look(FloodDetector(DEFAULTS), served(50_000)) == []
    assert look(FloodDetector(DEFAULTS), silent(900)) == []
    assert look(FloodDetector(DEFAULTS), refused(20_000)) == []
    busy = np.concatenate([served(60_000), silent(2000)])
    assert look(FloodDetector(DEFAULTS), *[served(60_000)] * 20, busy) == []


def test_a_udp_flood_and_a_stream() -> None:
    """Many flows that nobody answers are a flood; one fast stream is none, nor is a resolver that answers."""
    datagrams = {"protocol": UDP, "role_source": 0, "flags": BASE | native.SEEN["c2s"]}
    flood = many(1000, server_port=np.arange(1000), c2s_packets=200, **datagrams)
    assert kinds(look(FloodDetector(DEFAULTS), flood)) == [("udp_flood", VM, SERVER)]
    assert look(FloodDetector(DEFAULTS), many(1, c2s_packets=900_000, **datagrams)) == []
    resolver = many(50_000, client_port=np.arange(50_000) % 60_000, c2s_packets=4, s2c_packets=4, **datagrams)
    assert look(FloodDetector(DEFAULTS), resolver) == []


def test_a_flood_of_echo_requests() -> None:
    """Far more than anybody pings, and hardly answered."""
    echo = {"protocol": ICMP, "client_port": 8, "server_port": 0, "flags": BASE}
    assert kinds(look(FloodDetector(DEFAULTS), many(1, c2s_packets=50_000, **echo))) == [("icmp_flood", VM, SERVER)]
    assert look(FloodDetector(DEFAULTS), many(1, c2s_packets=50_000, s2c_packets=50_000, **echo)) == []
    assert look(FloodDetector(DEFAULTS), many(1, c2s_packets=100, **echo)) == []


# ---- passwords


def logins(count: int, **fields: Any) -> NumpyArray:
    """Short connections to SSH."""
    return served(count, **{"server_port": 22, "s2c_payload_bytes": 2000, "end_ns": START + SECOND, **fields})


def test_guessed_passwords() -> None:
    """25 short logins within a minute, over several windows."""
    found = look(BruteForceDetector(DEFAULTS), *[logins(5)] * 5)
    assert kinds(found) == [("brute_force", VM, f"{SERVER}:ssh")] * 2
    assert found[0].counts == {"connections": 5}


@pytest.mark.parametrize(
    "rows",
    [
        logins(15),
        logins(200, s2c_payload_bytes=90_000),
        logins(200, end_ns=START + 60 * SECOND),
        logins(200, c2s_payload_bytes=0),
        logins(200, server_port=5432),
        logins(200, tcp_state=ESTABLISHED),
    ],
    ids=["few", "much is said", "long", "health checks", "a database's clients", "not over"],
)
def test_what_is_no_guessing(rows: NumpyArray) -> None:
    """Sessions, automation, health checks, and services whose clients connect so all the time."""
    assert look(BruteForceDetector(DEFAULTS), rows) == []


def test_old_guesses_are_forgotten() -> None:
    """15 now and 15 two minutes later are no 30 within a minute."""
    nothing = served(1)
    assert look(BruteForceDetector(DEFAULTS), logins(15), *[nothing] * 12, logins(15)) == []
