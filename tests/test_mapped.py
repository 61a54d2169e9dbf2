"""Capture files mapped into memory: the same records as through libpcap, and libpcap's word on what is odd."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcaps.generator.files import Frame, pcap, pcapng
from sensor.captures import FileSource
from sensor.flowtable import FileState, FlowTable, MappedFile
from sensor.sources import Progress
from tests.needs import PCAPS, SHARED_CAPTURES
from tests.streams import MILLISECOND, SECOND, START, table_of, tcp_frame, udp_frame, without_length

CAPTURES = [
    *sorted(PCAPS.rglob("*.pcap")),
    *(sorted(SHARED_CAPTURES.glob("*.pcap")) if SHARED_CAPTURES.is_dir() else ()),
]
NANOSECONDS = (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")
SNAPLEN_AT = 16


def told(path: Path, is_mapped: bool, step_ns: int = 10 * SECOND) -> tuple[list[bytes], dict[str, int], str | None]:
    """All windows' records and the finished flows, the counters, and what is said of damage."""
    source, table = FileSource([str(path)], is_mapped=is_mapped), table_of(window_ns=step_ns, keep_finished=True)
    source.open(table)
    found: list[bytes] = []
    try:
        while (progress := source.poll(table)) is not Progress.END:
            if progress is Progress.HELD:
                finished = table.take_finished()
                found.append(finished.tobytes() if len(finished) else table.roll()[0].tobytes())
    finally:
        source.close()
    while table.finish():
        found.append(table.take_finished().tobytes())
    found += [table.take_finished().tobytes(), table.roll()[0].tobytes()]
    return found, table.counters(), str(source.damage) if source.damage else None


def counted(path: Path, **options: object) -> FlowTable:
    """All of it in one window."""
    source, table = FileSource([str(path)]), table_of(window_ns=3600 * SECOND, **options)
    source.open(table)
    while source.poll(table) is not Progress.END:
        pass
    source.close()
    return table


def is_classic(path: Path) -> bool:
    """Whether it is what can be mapped."""
    with path.open("rb") as file:
        try:
            MappedFile(file.fileno()).close()
        except ValueError:
            return False
    return True


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_the_same_as_through_libpcap(path: Path) -> None:
    """Records, windows, counters and complaints of every capture here and of the shared ones."""
    mapped, read = told(path, is_mapped=True), told(path, is_mapped=False)
    if path.read_bytes()[:4] in NANOSECONDS:  # libpcap hands them out as microseconds
        assert mapped[1:] == read[1:]
    else:
        assert b"".join(mapped[0]) == b"".join(read[0])
        assert mapped[1:] == read[1:]


def test_most_captures_are_mapped() -> None:
    """What the comparison rests on."""
    assert sum(map(is_classic, CAPTURES)) > 0.8 * len(CAPTURES)


def talk(count: int = 300) -> list[Frame]:
    """Datagrams of several flows and sizes."""
    return [
        (START + i * MILLISECOND, udp_frame("10.0.0.1", 1000 + i % 7, "10.0.0.2", 53, b"x" * (i % 50)))
        for i in range(count)
    ]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_byte_orders_and_resolutions(tmp_path: Path, order: str, nanoseconds: bool) -> None:
    """All four kinds are mapped; a nanosecond is one."""
    frames = [(time_ns + 7 * nanoseconds, frame) for time_ns, frame in talk()]
    path = tmp_path / "capture"
    path.write_bytes(pcap(frames, order=order, nanoseconds=nanoseconds))
    assert is_classic(path)
    table = counted(path)
    records, _ = table.roll()
    assert table.counters()["received"] == 300
    assert records["start_ns"].min() == frames[0][0]
    assert records["end_ns"].max() == frames[-1][0]


@pytest.mark.parametrize("content", [b"", b"\xd4\xc3\xb2\xa1", pcapng(talk(3)), b"\x34\xcd\xb2\xa1" + bytes(40)])
def test_others_are_not_mapped(tmp_path: Path, content: bytes) -> None:
    """An empty file, a cut header, pcapng, a dialect: for libpcap."""
    path = tmp_path / "capture"
    path.write_bytes(content)
    assert not is_classic(path)
    with open(os.devnull, "rb") as nothing, pytest.raises(ValueError, match="no classic"):
        MappedFile(nothing.fileno())


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(24, 24 + 40 * 75), junk=st.binary(max_size=3), at=st.none() | st.integers(24, 2000))
def test_damage_anywhere_is_told_as_before(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes, at: int | None
) -> None:
    """A file cut anywhere, or with octets changed anywhere: the same packets count, and libpcap says what is wrong."""
    content = bytearray(pcap(talk(40)))
    if at is not None:
        content[at : at + len(junk)] = junk
    path = tmp_path_factory.mktemp("damage") / "capture"
    path.write_bytes(content[:cut])
    mapped, read = told(path, is_mapped=True), told(path, is_mapped=False)
    assert (b"".join(mapped[0]), *mapped[1:]) == (b"".join(read[0]), *read[1:])


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_an_offload_left_without_a_length_is_as_long_as_on_the_wire(tmp_path: Path, order: str) -> None:
    """Also where the capture has only its head, by its own snap length or by ours."""
    frame = without_length(tcp_frame("10.0.0.1", 1000, "10.0.0.2", 80, payload=b"x" * 30_000))
    for name, snaplen in (("whole", 65535), ("cut", 96)):
        path = tmp_path / name
        path.write_bytes(pcap([(START, frame)], order=order, snaplen=snaplen))
        for looked_at in (0, 60):
            (record,) = counted(path, snaplen=looked_at).roll()[0]
            assert record["c2s_bytes"] == len(frame) - 14
            assert record["c2s_payload_bytes"] == 30_000


def test_longer_packets_than_the_snap_length(tmp_path: Path) -> None:
    """A file that contradicts its header is libpcap's from there on, and no packet counts twice."""
    content = bytearray(pcap(talk()))
    struct.pack_into("<I", content, SNAPLEN_AT, 60)
    path = tmp_path / "capture"
    path.write_bytes(content)
    mapped, read = told(path, is_mapped=True), told(path, is_mapped=False)
    assert (b"".join(mapped[0]), *mapped[1:]) == (b"".join(read[0]), *read[1:])
    assert mapped[1]["received"] == 300


def test_a_file_that_is_cut_meanwhile_does_not_end_the_program(tmp_path: Path) -> None:
    """What is no longer there when its stretch begins is damage, not a bus error."""
    path = tmp_path / "capture"
    frames = [(START + i * MILLISECOND, udp_frame("10.0.0.1", 1, "10.0.0.2", 53, bytes(1400))) for i in range(14_000)]
    path.write_bytes(pcap(frames))
    table = table_of(window_ns=3600 * SECOND)
    with path.open("rb") as file:
        mapped = MappedFile(file.fileno())
    assert table.ingest_file(mapped) is FileState.MORE
    os.truncate(path, 10 * 2**20)
    while (state := table.ingest_file(mapped)) is FileState.MORE:
        pass
    assert state is FileState.ODD
    assert 0 < mapped.packets < 14_000
    mapped.close()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Of a file of 64 MiB, stretches that have been read are given back."""
    path, frame = tmp_path / "capture", udp_frame("10.0.0.1", 1, "10.0.0.2", 53, bytes(1400))
    path.write_bytes(pcap([(START + i, frame) for i in range(46_000)]))
    table, most = table_of(window_ns=3600 * SECOND), 0
    with path.open("rb") as file:
        mapped = MappedFile(file.fileno())
    while table.ingest_file(mapped) is FileState.MORE:
        lines = Path("/proc/self/smaps").read_text().split(str(path))[1].splitlines()
        most = max(most, next(int(line.split()[1]) for line in lines if line.startswith("Rss:")))
    assert mapped.place == path.stat().st_size > 60 * 2**20
    mapped.close()
    assert 0 < most < 20 * 1024
    assert np.int64(table.counters()["received"]) == 46_000
