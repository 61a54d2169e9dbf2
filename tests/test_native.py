"""The crossing between Python and C: layouts and words come from the C header, calls do what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sensor._native import ffi, lib

from sensor import native
from sensor.flowtable import FATES, FlowTable, TableOptions
from sensor.native import BIN, COUNTERS, META, RECORD
from tests.conftest import Say
from tests.needs import ROOT
from tests.streams import (
    MILLISECOND,
    SECOND,
    START,
    WINDOW,
    batch,
    cut,
    table_of,
    tcp_frame,
    udp_frame,
)

HEADER = (ROOT / "native" / "vms_api.h").read_text(encoding="utf-8")
FLOW_OCTETS, WORST_FLOW_OCTETS = 576, 6144
"""What one flow may take: in the table, and with everything that can be attached to it."""
HOLES_EACH_WAY = 64

# ---- layouts and words


@pytest.mark.parametrize(
    ("dtype", "cname"),
    [(RECORD, "vms_record_t"), (BIN, "vms_bin_t"), (META, "vms_meta_t"), (COUNTERS, "vms_counters_t")],
)
def test_dtypes_are_the_structs(dtype: np.dtype, cname: str) -> None:
    """Every member of a struct is a field at the same offset and of the same size; so is the whole."""
    assert dtype.itemsize == ffi.sizeof(cname)
    expected = {}
    for name, member in ffi.typeof(cname).fields:
        inner = member.type.fields if member.type.kind == "struct" else [(None, None)]
        for part, at in inner:
            size = ffi.sizeof(at.type if at else member.type)
            if "padding" not in (name, part):
                expected[f"{name}_{part}" if part else name] = (member.offset + (at.offset if at else 0), size)
    assert dtype.names is not None
    assert {name: (dtype.fields[name][1], dtype.fields[name][0].itemsize) for name in dtype.names} == expected


def test_a_record_crosses_unharmed() -> None:
    """What C reads at a field is what numpy wrote there, signs, arrays and nested structs included."""
    one = np.zeros(1, RECORD)
    one["handshake_server_ns"], one["client_port"], one["vlan"] = -7, 0xABCD, [1, 2, 3, 4]
    one["s2c_keepalives"], one["c2s_bytes"], one["server_mac"] = 2**32 - 1, 2**64 - 1, range(6)
    c = ffi.cast("vms_record_t *", one.ctypes.data)
    assert (c.handshake_server_ns, c.client_port, list(c.vlan)) == (-7, 0xABCD, [1, 2, 3, 4])
    assert (c.s2c.keepalives, c.c2s.bytes, list(c.server_mac)) == (2**32 - 1, 2**64 - 1, [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("words", "prefix", "last"),
    [
        (FATES, "VMS_FATE_", "bad_length"),
        (native.TUNNELS, "VMS_TUNNEL_", "ipip"),
        (native.ROLES, "VMS_ROLE_", "syn"),
        (native.STATES, "VMS_STATE_", "reset"),
        (native.ENDS, "VMS_END_", "input"),
        (native.HISTOGRAMS, "VMS_HISTOGRAM_", "response"),
    ],
)
def test_words_are_the_enums_members(words: tuple[str, ...], prefix: str, last: str) -> None:
    """Users see the members of the header in its order; the member that counts them is none."""
    assert list(words) == [word.lower() for word in re.findall(rf"\b{prefix}(\w+)(?=[,\s])", HEADER)]
    assert words[-1] == last


def test_every_fate_has_a_counter() -> None:
    """The array of fates in the counters is as long as the enum."""
    assert COUNTERS["fate"].shape == (len(FATES),)
    assert len(FATES) == lib.VMS_FATES


def test_buckets_are_narrow() -> None:
    """Buckets follow one another without a gap, and each one's middle is within 1/32 of whatever it holds."""
    low = np.array([lib.vms_bucket_low_ns(bucket) for bucket in range(native.BUCKETS + 1)], np.float64)
    assert (np.diff(low) > 0).all()
    wide = low[:-1] >= 16
    error = np.abs(native.BUCKET_MIDDLE_NS[wide] - low[:-1][wide]) / low[:-1][wide]
    assert error.max() <= 1 / 32
    assert low[-1] > 3600e9


# ---- every call


def test_a_datagram_through_every_call() -> None:
    """One question and its answer pass ingest, window, roll, finish, take_finished, counters and memory."""
    table = table_of(keep_finished=True)
    assert (table.window(), table.memory()["flows_in_use"], len(table.take_finished())) == (None, 0, 0)
    table.tick(START + 1)
    assert table.window() == (START, START + WINDOW)
    question = udp_frame("10.0.0.1", 40000, "10.0.0.53", 53, b"who?")
    answer = udp_frame("10.0.0.53", 53, "10.0.0.1", 40000, b"somebody")
    data, meta = batch([(START + 5, question), (START + 5 + MILLISECOND, answer)])
    assert table.ingest(data, meta, 0, 1) == 2
    counted = table.counters()
    assert (counted["received"], counted["fate_flow"], counted["flows_started"]) == (2, 2, 1)
    assert table.finish() == 0
    (finished,) = table.take_finished()
    (rolled,), bins = table.roll()
    for row in (finished, rolled):
        assert (row["c2s_packets"], row["s2c_packets"], row["server_port"]) == (1, 1, 53)
        assert (row["response_count"], row["response_sum_ns"]) == (1, MILLISECOND)
        assert native.ENDS[row["end_reason"]] == "input"
    assert [(b["record"], native.HISTOGRAMS[b["histogram"]], b["count"]) for b in bins] == [(0, "response", 1)]
    assert abs(native.BUCKET_MIDDLE_NS[bins["bucket"][0]] / MILLISECOND - 1) <= 1 / 32
    assert (table.window(), table.memory()["flows_in_use"]) == (None, 0)


def test_link_type_can_change() -> None:
    """Frames after set_link_type are decoded as the new type: the same IP packet with and without Ethernet."""
    table = table_of(duplicate_horizon_ns=0)
    frame = udp_frame("10.0.0.1", 40000, "10.0.0.53", 53)
    for link_type, octets in ((1, frame), (101, frame[14:]), (147, frame)):
        table.set_link_type(link_type)
        data, meta = batch([(START, octets)])
        assert table.ingest(data, meta, 0, 1) == 1
    counted = table.counters()
    assert (counted["fate_flow"], counted["fate_unknown_link"]) == (2, 1)
    assert table.roll()[0]["c2s_packets"].tolist() == [2]


def test_ticks_make_the_time() -> None:
    """A fraction counts ticks: microseconds in the files of next_batch, nanoseconds in others."""
    table = table_of()
    meta = np.array([(1_700_000_000, 7, 0, 60)], META).tobytes()
    table.ingest(udp_frame("10.0.0.1", 1, "10.0.0.2", 53), meta, 0, 1000)
    assert table.roll()[0]["start_ns"].tolist() == [START + 7000]


def test_ingest_goes_on_where_it_stopped() -> None:
    """At a window's edge, ingest returns the packet that it did not count; after the roll it goes on with it."""
    table = table_of()
    frames = [(START + i * 4 * SECOND, udp_frame("10.0.0.1", 40000 + i, "10.0.0.2", 53)) for i in range(4)]
    data, meta = batch(frames)
    assert table.ingest(data, meta, 0, 1) == 3
    assert table.ingest(data, meta, 3, 1) == 3
    assert len(table.roll()[0]) == 3
    assert table.ingest(data, meta, 3, 1) == 4


def test_a_full_ring_of_finished_flows_stops_ingest() -> None:
    """More flows end than are kept: ingest waits until they are taken, and none is lost."""
    table = table_of(keep_finished=True, idle_timeout_ns=SECOND)
    flows = 10_000
    frames = [(START + i * 10_000, udp_frame(f"10.0.{i >> 8}.{i & 255}", 40000, "10.9.9.9", 53)) for i in range(flows)]
    frames += [(START + 5 * SECOND + i, udp_frame("10.0.0.1", 1, "10.9.9.9", 53, ident=i)) for i in range(3)]
    data, meta = batch(frames)
    done, taken = 0, []
    for _ in range(20):
        done = table.ingest(data, meta, done, 1)
        taken += table.take_finished()["flow_id"].tolist()
    assert done == len(frames)
    while table.finish():
        taken += table.take_finished()["flow_id"].tolist()
    taken += table.take_finished()["flow_id"].tolist()
    assert sorted(taken) == list(range(1, flows + 2))


def test_meta_that_points_outside_is_no_packet() -> None:
    """A batch whose meta lies about its data is counted by reason and read nowhere else."""
    table = table_of()
    meta = np.array([(1, 0, 50, 60), (1, 0, 2**32 - 1, 2**32 - 1), (1, 0, 0, 0)], META).tobytes()
    assert table.ingest(bytes(60), meta, 0, 1) == 3
    assert table.counters()["fate_short_link"] == 3


# ---- errors and bounds


@pytest.mark.parametrize("flows", [2**40, 2**62, 2**63 + 5], ids=["2^40", "2^62", "2^63+5"])
def test_an_impossible_table_is_refused(flows: int) -> None:
    """A table that no memory can hold is an error, not a crash later."""
    with pytest.raises(MemoryError, match=str(flows)):
        FlowTable(TableOptions(WINDOW, max_flows=flows))


def test_what_a_flow_takes(record_property: pytest.FixtureRequest, say: Say) -> None:
    """One flow's memory is bounded, whatever it does; the figures are printed."""
    memory = FlowTable(TableOptions(WINDOW, keep_finished=True)).memory()
    say(f"one flow: {memory['flow']} octets; with everything that it can have: {memory['worst_flow']}")
    record_property("octets_per_flow", memory["flow"])
    record_property("octets_per_flow_at_worst", memory["worst_flow"])
    assert memory["flow"] <= FLOW_OCTETS
    assert memory["worst_flow"] <= WORST_FLOW_OCTETS
    each_way = memory["scoreboard"] + HOLES_EACH_WAY * memory["hole"]
    once = sum(memory[part] for part in ("flow", "tunnel", "totals", "transits"))
    assert memory["worst_flow"] == once + 2 * each_way


def test_a_flood_does_not_grow_the_table() -> None:
    """Fifty times as many flows as there is room for, with holes and samples: no more memory than is announced."""
    most = 1024
    table = table_of(max_flows=most, keep_finished=True)
    empty = table.memory()["resident"]
    frames = [
        (START + i * 1000, tcp_frame(f"10.{i >> 8 & 255}.{i & 255}.1", 1024 + i % 3, "10.9.9.9", 80,
                                     seq=100 + i % 5 * 1000, payload=b"x" * 10, ident=i))
        for i in range(50 * most)
    ]  # fmt: skip
    for part in cut(frames, range(0, len(frames), 8192)):
        data, meta = batch(part)
        done = 0
        while (done := table.ingest(data, meta, done, 1)) < len(part):
            table.take_finished()
    memory = table.memory()
    assert memory["flows_in_use"] <= most
    assert memory["resident"] <= empty + most * (memory["worst_flow"] + 2 * memory["bins"])
    counted = table.counters()
    assert counted["flows_evicted"] + counted["fate_overflow"] > 40 * most
