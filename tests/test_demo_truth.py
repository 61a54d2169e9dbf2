"""The demonstration's flow records against the truth of the simulation that made its packets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcaps.generator.conversation import Truth
from pcaps.generator.files import pcap
from pcaps.generator.headers import ICMP, TCP, UDP
from pcaps.generator.scenes import demo
from pcaps.generator.wire import Half
from tests.conftest import ReadCapture
from tests.needs import PCAPS, need_tool

PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}
HANDSHAKE_US, RTT_US = 2, 5
"""How far a time may be off: the file has microseconds, and two of them enter each difference."""

Key = tuple[tuple[int, ...], int | None, str, str, int | None, str, int | None]
Flows = dict[Key, dict[str, Any]]

TRUTHS: dict[Key, Truth] = {
    (truth.vlan, truth.vni, PROTOCOLS[truth.protocol], *truth.client, *truth.server): truth
    for outcomes in demo.conversations().values()
    for truth in (outcome.truth for outcome in outcomes)
}
TCP_TRUTHS = {key: truth for key, truth in TRUTHS.items() if truth.protocol == TCP}


def key_of(flow: dict[str, Any]) -> Key:
    """What tells a flow from all others."""
    return (tuple(flow["vlan"]), flow["vni"], flow["protocol"], flow["client_ip"], flow["client_port"],
            flow["server_ip"], flow["server_port"])  # fmt: skip


@pytest.fixture(scope="module")
def flows(read_capture: ReadCapture) -> Flows:
    """The demonstration's flow records by key; one record for each."""
    run = read_capture(PCAPS / "demo.pcap")
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in run.stdout.splitlines()]
    by_key = {key_of(record): record for record in records}
    assert len(by_key) == len(records)
    return by_key


def halves(truths: dict[Key, Truth]) -> Iterator[tuple[Key, str, Half]]:
    """Each direction of each conversation."""
    for key, truth in truths.items():
        yield key, "c2s", truth.c2s
        yield key, "s2c", truth.s2c


def columns(flows: Flows, truths: dict[Key, Truth], *fields: str) -> dict[tuple[Key, str], tuple[Any, ...]]:
    """The named fields of each direction of the flows that are in `truths`."""
    return {
        (key, side): tuple(flows[key][f"{side}_{field}"] for field in fields) for key, side, _ in halves(truths)
    }  # fmt: skip


def test_every_conversation_is_one_flow(flows: Flows) -> None:
    """The records name exactly the conversations that took place, also where tenants share addresses and ports."""
    assert sorted(flows, key=repr) == sorted(TRUTHS, key=repr)


def test_packets_and_bytes(flows: Flows) -> None:
    """Packets and octets of the innermost IP packets are exact in both directions of every flow."""
    expected = {(key, side): (half.packets, half.ip_bytes) for key, side, half in halves(TRUTHS)}
    assert columns(flows, TRUTHS, "packets", "bytes") == expected


def test_payload(flows: Flows) -> None:
    """Payload and the segments that carry it are exact although the capture holds 128 octets of each frame."""
    expected = {(key, side): (half.data_packets, half.payload_bytes) for key, side, half in halves(TCP_TRUTHS)}
    assert columns(flows, TCP_TRUTHS, "data_packets", "payload_bytes") == expected


def test_causes_of_odd_segments(flows: Flows) -> None:
    """Each direction's losses behind the tap, losses before it and reordering are exactly those simulated."""
    expected = {
        (key, side): (half.lost_after_tap, half.lost_before_tap, half.reordered, 0)
        for key, side, half in halves(TCP_TRUTHS)
    }
    fields = ("retransmissions", "upstream_losses", "reordered", "spurious")
    assert columns(flows, TCP_TRUTHS, *fields) == expected


def test_loss_ratio(flows: Flows) -> None:
    """The loss ratio is what was lost over what was sent."""
    for key, side, half in halves(TCP_TRUTHS):
        lost = half.lost_after_tap + half.lost_before_tap
        sent = half.data_packets + half.lost_before_tap
        assert flows[key][f"{side}_loss_ratio"] == pytest.approx(lost / sent, abs=1e-6), (key, side)


def test_windows_and_keepalives(flows: Flows) -> None:
    """Shut windows and keep-alives are counted apart, and nothing is taken for mirror trouble."""
    expected = {
        (key, side): (half.zero_windows, half.keepalives, 0, 0) for key, side, half in halves(TCP_TRUTHS)
    }  # fmt: skip
    fields = ("zero_windows", "keepalives", "mirror_duplicates", "unseen_bytes")
    assert columns(flows, TCP_TRUTHS, *fields) == expected


def test_handshake(flows: Flows) -> None:
    """Both halves of every handshake are right to the file's resolution."""
    for key, truth in TCP_TRUTHS.items():
        for field in ("handshake_server", "handshake_client"):
            expected = getattr(truth, f"{field}_ns") / 1000
            assert flows[key][f"{field}_us"] == pytest.approx(expected, abs=HANDSHAKE_US), (key, field)


def test_base_rtt(flows: Flows) -> None:
    """The smallest RTT is that of the fastest segment: the path's own, plus what queues and delayed ACKs added."""
    for key, side, half in halves(TCP_TRUTHS):
        assert half.rtt_min_ns is not None
        assert half.rtt_base_ns is not None
        measured = flows[key][f"{side}_rtt_min_us"]
        assert measured == pytest.approx(half.rtt_min_ns / 1000, abs=RTT_US), (key, side)
        assert measured >= half.rtt_base_ns / 1000 - RTT_US, (key, side)


def test_states(flows: Flows) -> None:
    """Connections end closed, reset or still open, as they did."""
    assert {key: flows[key]["tcp_state"] for key in TRUTHS} == {key: truth.state for key, truth in TRUTHS.items()}


def test_handshake_tells_client_from_server(flows: Flows) -> None:
    """Every connection's roles come from its SYN."""
    assert {flows[key]["role_source"] for key in TCP_TRUTHS} == {"syn"}


def test_simulation_shows_every_fault_to_the_tap() -> None:
    """Each loss can be seen, each is mended by one resend, and nothing else is resent: the truth is measurable."""
    for _, _, half in halves(TCP_TRUTHS):
        assert (half.seen_again, half.filled_late) == (half.lost_after_tap, half.lost_before_tap)
    total = [
        sum(getattr(half, field) for _, _, half in halves(TCP_TRUTHS))
        for field in ("lost_after_tap", "lost_before_tap", "reordered", "zero_windows", "keepalives")
    ]
    assert total == [12, 9, 4, 1, 1]


@pytest.mark.parametrize("tenant", demo.TENANTS, ids=lambda tenant: tenant.name)
def test_tshark_finds_as_many_odd_segments(tenant: demo.Tenant, tmp_path: Path) -> None:
    """An independent analyser marks as many segments of a tenant as the simulation resent or overtook."""
    capture = tmp_path / "tenant.pcap"
    capture.write_bytes(pcap(demo.frames([tenant])))
    odd = "tcp.analysis.retransmission || tcp.analysis.out_of_order"
    command = [need_tool("tshark"), "-r", str(capture), "-Y", odd, "-T", "fields", "-e", "frame.number"]
    marked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    truths = (outcome.truth for outcome in demo.conversations()[tenant])
    sides = [half for truth in truths for half in (truth.c2s, truth.s2c)]
    assert len(marked) == sum(half.seen_again + half.filled_late + half.reordered for half in sides)
