"""Packets as a source hands them to the flow table, and the table fed with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pcaps.generator.files import Frame
from pcaps.generator.headers import ACK, ICMP, TCP, UDP, icmp, ip, tcp, udp
from pcaps.generator.links import on_wire
from sensor.flowtable import FlowTable, TableOptions
from sensor.native import META, NumpyArray

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
START = 1_700_000_000 * SECOND
WINDOW = 10 * SECOND
SECRET = bytes(range(16))


def table_of(**options: object) -> FlowTable:
    """A table with windows of ten seconds and a hash that is the same every time."""
    return FlowTable(TableOptions(**{"window_ns": WINDOW, "secret": SECRET, **options}))  # type: ignore[arg-type]


def udp_frame(src: str, sport: int, dst: str, dport: int, payload: bytes = b"?", ident: int = 0) -> bytes:
    """A UDP datagram on Ethernet."""
    return on_wire(ip(src, dst, UDP, udp(src, sport, dst, dport, payload), ident=ident))


def tcp_frame(
    src: str, sport: int, dst: str, dport: int, *, seq: int = 1, ack: int = 1, flags: int = ACK, payload: bytes = b"",
    ident: int = 0,
) -> bytes:  # fmt: skip
    """A TCP segment on Ethernet."""
    segment = tcp(src, sport, dst, dport, seq=seq, ack=ack, flags=flags, window=1000, payload=payload)
    return on_wire(ip(src, dst, TCP, segment, ident=ident))


def without_length(frame: bytes) -> bytes:
    """IPv4 on Ethernet as a segmentation offload leaves what is too long for the header's field."""
    return frame[:16] + b"\0\0" + frame[18:]


def icmp_frame(src: str, dst: str, kind: int, ident: int = 0) -> bytes:
    """An ICMP message on Ethernet."""
    return on_wire(ip(src, dst, ICMP, icmp(kind, 0, b"\0\1\0\1"), ident=ident))


def batch(frames: Sequence[Frame]) -> tuple[bytes, bytes]:
    """Data and meta (fractions in ns) of frames, as next_batch packs them."""
    sizes = [len(frame) for _, frame in frames]
    meta = np.zeros(len(frames), META)
    meta["sec"] = [time_ns // SECOND for time_ns, _ in frames]
    meta["fraction"] = [time_ns % SECOND for time_ns, _ in frames]
    meta["offset"] = np.cumsum([0, *sizes])[:-1]
    meta["caplen"] = sizes
    return b"".join(frame for _, frame in frames), meta.tobytes()


Window = tuple[int, NumpyArray, NumpyArray, dict[str, int]]
"""Start, records, bins, and the counters since the table was made."""


def windows(table: FlowTable, batches: Iterable[Sequence[Frame]]) -> Iterator[Window]:
    """Feed batches to a table and roll whenever it wants it, and once more at the end."""
    for frames in batches:
        data, meta = batch(frames)
        done = 0
        while (done := table.ingest(data, meta, done, 1)) < len(frames):
            yield _rolled(table)
    table.finish()
    if table.window():
        yield _rolled(table)


def _rolled(table: FlowTable) -> Window:
    bounds = table.window()
    assert bounds is not None
    return bounds[0], *table.roll(), table.counters()


def cut(frames: Sequence[Frame], at: Iterable[int]) -> list[Sequence[Frame]]:
    """The frames in batches that begin at these indices."""
    edges = sorted({0, len(frames), *(index for index in at if index < len(frames))})
    return [frames[low:high] for low, high in pairwise(edges)]


def sums(records: NumpyArray, *names: str) -> npt.NDArray[np.int64]:
    """Fields of both directions added up over all records."""
    return np.array([sum(int(records[f"{side}_{name}"].sum()) for side in ("c2s", "s2c")) for name in names])


def plain(records: NumpyArray) -> list[list[object]]:
    """Records as lists of their fields, to compare: what pads them means nothing."""
    return [list(row) for row in zip(*(records[name].tolist() for name in records.dtype.names or ()), strict=True)]
