"""The sensor against two decoders that share nothing with it: flows, packets, bytes, identifiers, round trip times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.needs import PCAPS, SHARED_CAPTURES, need_shared, need_tool
from tests.oracles import program
from tests.oracles.captures import CAPTURES, by_tshark, name, opinions, read_ahead, right, selected
from tests.oracles.community_id import community_id
from tests.oracles.differences import DIFFERENCES, UNREADABLE, Difference
from tests.oracles.flows import Packet, direction, flows, whole

every_capture = pytest.mark.parametrize("capture", CAPTURES, ids=name)
RTT_TOLERANCE_US = 2


@pytest.fixture(autouse=True, scope="module")
def _everything_is_read(request: pytest.FixtureRequest) -> None:
    """Needs tshark, and starts it and the program for all captures at once."""
    need_tool("tshark")
    read_ahead(selected(request), by_tshark, program.run)


def test_shared_captures_are_compared() -> None:
    """The captures made by others are among those compared; a machine without them says so by skipping this."""
    assert set(need_shared().glob("*.pcap*")) <= set(CAPTURES)


@every_capture
def test_oracles_differ_only_where_the_table_says(capture: Path) -> None:
    """The two decoders see the same innermost packet in every frame, but for the frames in the table."""
    said = opinions(capture)
    assert {"tshark", "dpkt"} - set(said) == set(UNREADABLE.get(name(capture), ()))
    if len(said) == 2:
        frames = zip(said["tshark"], said["dpkt"], strict=True)
        differing = {number for number, (tshark, dpkt) in enumerate(frames, 1) if tshark != dpkt}
        listed = {entry.frame for entry in DIFFERENCES if entry.capture == name(capture)}
        assert differing <= listed


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: f"{entry.capture}:{entry.frame}")
def test_no_entry_of_the_table_is_stale(entry: Difference) -> None:
    """Every listed frame exists, and at least one oracle says something else about it than the table."""
    directory = PCAPS if entry.capture.startswith(f"{PCAPS.name}/") else need_shared()
    said = opinions(directory / entry.capture.split("/")[1])
    assert any(verdicts[entry.frame - 1] != entry.verdict(said) for verdicts in said.values())


@every_capture
def test_flows_packets_and_bytes_are_equal(capture: Path) -> None:
    """The program's records, summed by key, are the oracles' flows with the same packets and octets each way."""
    assert program.flows(program.run(capture).records) == flows(right(capture))


@every_capture
def test_community_ids_are_equal(capture: Path) -> None:
    """The records carry the identifiers that the oracles' packets give, ICMP types told apart."""
    expected = {community_id(packet) for packet in whole(right(capture))}
    assert {record["community_id"] for record in program.run(capture).records} == expected


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (Packet(6, "128.232.110.120", "66.35.250.204", (34855, 80), 0), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (Packet(17, "192.168.1.52", "8.8.8.8", (54585, 53), 0), "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        (Packet(1, "192.168.0.89", "192.168.0.1", (8, 0), 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        (Packet(132, "192.168.170.8", "192.168.170.56", (7, 7), 0), "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    ],
    ids=["tcp", "udp", "icmp", "sctp"],
)
def test_community_id_of_the_specification(packet: Packet, expected: str) -> None:
    """The oracle's own identifiers are those that the specification publishes as its baseline."""
    assert community_id(packet) == expected


def test_handshakes_take_as_long_as_tshark_says() -> None:
    """Both halves of a handshake add up to tshark's initial round trip time wherever nothing of it was resent."""
    compared, wrong = 0, []
    for capture in CAPTURES:
        reading = by_tshark(capture)
        for handshake in reading.handshakes if reading else ():
            key, _ = direction(handshake.packet)
            records = [r for r in program.run(capture).records if program.direction(r)[0] == key]
            halves = [(r["handshake_server_us"], r["handshake_client_us"]) for r in records]
            sums = [server + client for server, client in halves if server is not None and client is not None]
            compared += 1
            if not any(abs(total - handshake.seconds * 1e6) <= RTT_TOLERANCE_US for total in sums):
                wrong.append((name(capture), key, handshake.seconds, halves))
    assert not wrong
    assert compared >= (110 if SHARED_CAPTURES.is_dir() else 80)
