"""Every packet is counted exactly once, whatever comes: random streams, full tables, wild clocks, late copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcaps.generator.files import Frame, pcap
from pcaps.generator.headers import ACK, FIN, RST, SYN
from sensor import native
from sensor.flowtable import FATES
from tests.command import TOTALS, records, vmsensor
from tests.streams import (
    MILLISECOND,
    SECOND,
    START,
    WINDOW,
    cut,
    icmp_frame,
    plain,
    sums,
    table_of,
    tcp_frame,
    udp_frame,
    windows,
)

HOSTS = ("10.0.0.1", "10.0.0.2", "0.0.0.0", "192.0.2.9")
FLAGS = (SYN, SYN | ACK, ACK, FIN | ACK, RST)


@st.composite
def a_frame(draw: st.DrawFn) -> bytes:
    """A packet of one of a few flows; few identifications, so that copies occur."""
    src, dst = draw(st.permutations(HOSTS))[:2]
    ident = draw(st.integers(0, 2))
    kind = draw(st.sampled_from(["tcp", "tcp", "udp", "icmp", "short"]))
    if kind == "icmp":
        return icmp_frame(src, dst, draw(st.sampled_from([0, 8, 3])), ident)
    sport, dport = draw(st.permutations((80, 40000)))
    if kind == "udp":
        return udp_frame(src, sport, dst, dport, b"x" * draw(st.integers(0, 3)), ident)
    size = draw(st.integers(0, 3))
    frame = tcp_frame(src, sport, dst, dport, seq=draw(st.integers(0, 5)) * 7, ack=draw(st.integers(0, 30)),
                      flags=draw(st.sampled_from(FLAGS)), payload=b"y" * size, ident=ident)  # fmt: skip
    return frame[: draw(st.integers(0, 60))] if kind == "short" else frame


GAPS = (1, 500_000, 9 * MILLISECOND, 11 * MILLISECOND, SECOND, 6 * SECOND, 31 * SECOND, 70 * SECOND)


@st.composite
def streams(draw: st.DrawFn, gaps: tuple[int, ...] = GAPS) -> list[Frame]:
    """Packets in time, the gaps between them long enough to end windows and flows."""
    time_ns, frames = START, []
    for frame in draw(st.lists(a_frame(), max_size=40)):
        frames.append((time_ns, frame))
        time_ns += draw(st.sampled_from(gaps)) + 1
    return frames


@settings(max_examples=150, deadline=None, derandomize=True)
@given(frames=streams(), cuts=st.sets(st.integers(1, 39)))
def test_batches_make_no_difference(frames: list[Frame], cuts: set[int]) -> None:
    """However packets come in batches, every window has the same records, bins and counters."""
    options = {"idle_timeout_ns": 30 * SECOND, "keep_finished": True}
    whole, parts = table_of(**options), table_of(**options)
    seen = [list(windows(table, cut(frames, at))) for table, at in ((whole, ()), (parts, cuts))]
    assert [window[0] for window in seen[0]] == [window[0] for window in seen[1]]
    for (_, rolled, bins, counted), (_, rolled_cut, bins_cut, counted_cut) in zip(*seen, strict=True):
        assert plain(rolled) == plain(rolled_cut)
        assert plain(bins) == plain(bins_cut)
        assert counted == counted_cut
    finished = [sorted(plain(table.take_finished())) for table in (whole, parts)]
    assert finished[0] == finished[1]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    frames=streams((*GAPS, -2, -SECOND, -100 * SECOND)),
    most=st.sampled_from([1, 2, 3, 100]),
    horizon=st.sampled_from([0, 10 * MILLISECOND, 2 * SECOND]),
)
def test_records_hold_every_packet(frames: list[Frame], most: int, horizon: int) -> None:
    """In every window, packets and copies in records are those of the fates; a full table and a wild clock included."""
    table = table_of(max_flows=most, duplicate_horizon_ns=horizon)
    before = dict.fromkeys(table.counters(), 0)
    for _, rolled, bins, counted in windows(table, [frames]):
        window = {name: counted[name] - before[name] for name in counted}
        packets, copies, octets = sums(rolled, "packets", "mirror_duplicates", "bytes")
        assert packets == window["fate_flow"] + window["fate_overflow"]
        assert copies == window["fate_mirror_duplicate"]
        assert octets == window["ip_bytes"]
        assert window["received"] == sum(window[f"fate_{fate}"] for fate in FATES)
        assert (bins["record"] < max(len(rolled), 1)).all()
        assert bins["count"].sum() + window["samples_unbinned"] == sums(rolled, "rtt_count")[0] + int(
            rolled["response_count"].sum()
        )
        before = counted
    assert before["received"] == len(frames)
    assert table.memory()["flows_in_use"] == 0


# ---- mirror duplicates of flows that are gone


def _handshake_again(host: str) -> list[Frame]:
    """A SYN, a RST, the five-tuple's next SYN; and, in the next window, a late copy of the first SYN."""
    first = tcp_frame(host, 1000, "1.1.1.1", 80, seq=100, flags=SYN, ident=1)
    edge = START + WINDOW
    return [
        (edge - 4 * MILLISECOND, first),
        (edge - 3 * MILLISECOND, tcp_frame(host, 1000, "1.1.1.1", 80, seq=101, flags=RST, ident=2)),
        (edge - 2 * MILLISECOND, tcp_frame(host, 1000, "1.1.1.1", 80, seq=900_000, flags=SYN, ident=3)),
        (edge + MILLISECOND, first),
    ]


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0"])
def test_a_copy_of_a_flow_that_is_gone(host: str) -> None:
    """A copy whose flow has ended and been reported is still counted in exactly one record, or is a packet."""
    table = table_of()
    rolled = [window[1] for window in windows(table, [_handshake_again(host)])]
    counted = table.counters()
    in_records = sum(sums(window, "packets", "mirror_duplicates").sum() for window in rolled)
    assert in_records == counted["fate_flow"] + counted["fate_mirror_duplicate"] == 4


def test_a_horizon_longer_than_a_flow(tmp_path: Path) -> None:
    """Copies may come after their flow has ended: a crash or a wrong sum would show here. In a process of its own."""
    discover = udp_frame("0.0.0.0", 68, "255.255.255.255", 67, ident=7)

    def other(number: int) -> bytes:
        return udp_frame("10.0.0.1", number, "10.0.0.2", 53, ident=number)

    def tcp(number: int, flags: int) -> bytes:
        seq = number // 2 * 900_000 + (flags == RST)
        return tcp_frame("10.0.0.1", 1000, "10.0.0.2", 80, seq=seq, flags=flags, ident=number)

    frames = [(0, discover), (10, other(1)), (19, other(2)), (20, discover)]
    frames += [(20 + number / 10, tcp(number, RST if number % 2 else SYN)) for number in range(1, 8)]
    frames += [(30 + number / 1000, other(number)) for number in range(3, 23)]
    frames.append((40, other(99)))
    capture = tmp_path / "late.pcap"
    capture.write_bytes(pcap([(START + round(at * SECOND), frame) for at, frame in frames]))
    done = vmsensor(
        "read", capture, "--idle-timeout", "1s", "--duplicate-horizon", "1m", "--to", "none", "--flows", "-"
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-300:]}"
    assert TOTALS.match(done.stderr)
    packets = sum(flow["c2s_packets"] + flow["s2c_packets"] for flow in records(done))
    assert packets == len(frames) - 1
    assert "1 mirror_duplicate" in done.stderr


def test_a_new_connection_after_a_pause_ends_the_old_one_the_same_way() -> None:
    """A five-tuple used again after its idle timeout: the reason does not depend on where a batch ended."""
    frames = [
        (START, tcp_frame("10.0.0.1", 1000, "10.0.0.2", 80, seq=1, flags=SYN, ident=1)),
        (START + 100 * SECOND, udp_frame("10.0.0.9", 1, "10.0.0.2", 53)),
        (START + 100 * SECOND + 5, tcp_frame("10.0.0.1", 1000, "10.0.0.2", 80, seq=99, flags=SYN, ident=2)),
    ]
    reasons = []
    for cuts in ((), (2,)):
        table = table_of(keep_finished=True)
        list(windows(table, cut(frames, cuts)))
        finished = table.take_finished()
        reasons.append([native.ENDS[reason] for reason in finished["end_reason"][finished["flow_id"] == 1]])
    assert reasons[0] == reasons[1]
