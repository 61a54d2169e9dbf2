"""The only crossing between Python and C.

The numpy dtypes and the names of enum members are read from the C declarations (``native/vms_api.h``), which are the
single source. Python allocates, C fills; every call releases the GIL.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor._native import ffi, lib

NumpyArray = npt.NDArray[Any]


def _fields(ctype: Any, prefix: str = "", base: int = 0) -> Iterator[tuple[str, Any, int]]:
    """Name, numpy format and offset of each field; a nested struct's name becomes a prefix."""
    for name, member in ctype.fields:
        kind = member.type
        offset = base + member.offset
        if name == "padding":
            continue
        if kind.kind == "struct":
            yield from _fields(kind, f"{prefix}{name}_", offset)
        elif kind.kind == "array":
            yield prefix + name, (_scalar(kind.item), (kind.length,)), offset
        else:
            yield prefix + name, _scalar(kind), offset


def _scalar(ctype: Any) -> str:
    sign = "i" if ctype.cname.startswith("int") else "u"
    return f"{sign}{ffi.sizeof(ctype)}"


def dtype_of(cname: str) -> np.dtype[Any]:
    """The numpy dtype of a C struct, nested structs flattened with their name as prefix (``c2s_packets``)."""
    ctype = ffi.typeof(cname)
    names, formats, offsets = zip(*_fields(ctype), strict=True)
    return np.dtype(
        {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": ffi.sizeof(ctype)}
    )


def words_of(enum: str, prefix: str) -> tuple[str, ...]:
    """The members of a C enum as users see them: lower case, without their prefix."""
    members = ffi.typeof(f"enum {enum}").elements
    return tuple(members[value].removeprefix(prefix).lower() for value in sorted(members))


RECORD = dtype_of("vms_record_t")
BIN = dtype_of("vms_bin_t")
META = dtype_of("vms_meta_t")
NOTICE = dtype_of("vms_notice_t")
PRESENCE = dtype_of("vms_presence_t")
COUNTERS = dtype_of("vms_counters_t")

FATES = words_of("vms_fate", "VMS_FATE_")[:-1]
TUNNELS = words_of("vms_tunnel", "VMS_TUNNEL_")[:-1]
ROLES = words_of("vms_role", "VMS_ROLE_")
STATES = words_of("vms_state", "VMS_STATE_")
ENDS = words_of("vms_end", "VMS_END_")
NOTICES = words_of("vms_notice_kind", "VMS_NOTICE_")
HISTOGRAMS = words_of("vms_histogram", "VMS_HISTOGRAM_")

NEW: int = lib.VMS_RECORD_NEW
OVERFLOW: int = lib.VMS_RECORD_OVERFLOW
HAS_VNI: int = lib.VMS_RECORD_HAS_VNI
HAS_PORTS: int = lib.VMS_RECORD_HAS_PORTS
UNSURE = {"c2s": int(lib.VMS_RECORD_UNSURE_C2S), "s2c": int(lib.VMS_RECORD_UNSURE_S2C)}
SEEN = {"c2s": int(lib.VMS_RECORD_SEEN_C2S), "s2c": int(lib.VMS_RECORD_SEEN_S2C)}
ANSWERED: int = lib.VMS_RECORD_ANSWERED
REFUSED: int = lib.VMS_RECORD_REFUSED
ABSENT: int = lib.VMS_ABSENT
BUCKETS: int = lib.VMS_BUCKETS

BUCKET_MIDDLE_NS: npt.NDArray[np.float64] = np.array(
    [(lib.vms_bucket_low_ns(b) + lib.vms_bucket_low_ns(b + 1)) / 2 for b in range(BUCKETS)]
)
"""The duration that stands for each bucket, in ns; at most 1/32 from any duration in it."""


@dataclass(frozen=True)
class Cells:
    """A column of text: row i holds ``cells[codes[i]]``, written as it is; an empty cell is null."""

    cells: Sequence[bytes]
    codes: NumpyArray


@dataclass(frozen=True)
class Numbers:
    """A column of int64, uint64, float64 or bool, each written behind ``head``; null where ``valid`` is False."""

    head: bytes
    values: NumpyArray
    valid: npt.NDArray[np.bool_] | None


_ENCODED_AT_A_TIME = 2**20
"""Octets."""

_NUMBER_KINDS = {
    "i": (lib.VMS_COLUMN_SIGNED, np.int64),
    "u": (lib.VMS_COLUMN_UNSIGNED, np.uint64),
    "f": (lib.VMS_COLUMN_DOUBLES, np.float64),
    "b": (lib.VMS_COLUMN_BOOLEANS, np.uint8),
}


def encode_lines(
    measurement: bytes, tags: Sequence[Cells], fields: Sequence[Cells | Numbers], times: npt.NDArray[np.int64]
) -> Iterator[memoryview]:
    """The rows as line protocol, in pieces of whole lines.

    Every piece of text is escaped already and has its separator: ``,key=value`` of a cell, ``,key=`` of a head.
    """
    lent: list[Any] = []  # what the C structs point to lives as long as this
    columns = ffi.new("vms_column_t[]", len(tags) + len(fields))
    for column, given in zip(columns, (*tags, *fields), strict=True):
        _fill_column(column, given, lent)
    times = np.ascontiguousarray(times, np.int64)
    lines = ffi.new("vms_lines_t *")
    lines.measurement, lines.measurement_size = _lend_text(measurement, lent), len(measurement)
    lines.columns, lines.tags, lines.count = columns, len(tags), len(columns)
    lines.times, lines.rows = _lend(times, "int64_t[]", lent), len(times)
    size, row, written = _ENCODED_AT_A_TIME, 0, ffi.new("uint64_t *")
    while row < len(times):
        out = np.empty(size, np.uint8)
        reached = lib.vms_encode_lines(lines, row, ffi.from_buffer("char[]", out), size, written)
        size = size if reached > row else 2 * size  # not even one line fitted
        row = reached
        yield out.data[: written[0]]


def _fill_column(column: Any, given: Cells | Numbers, lent: list[Any]) -> None:
    if isinstance(given, Cells):
        column.kind, column.cells = lib.VMS_COLUMN_CELLS, len(given.cells)
        column.text = _lend_text(b"".join(given.cells), lent)
        ends = np.cumsum([len(cell) for cell in given.cells], dtype=np.uint64)
        column.ends = _lend(ends, "uint64_t[]", lent)
        column.codes = _lend(np.ascontiguousarray(given.codes, np.uint32), "uint32_t[]", lent)
        return
    column.kind, dtype = _NUMBER_KINDS[given.values.dtype.kind]
    column.text, column.head_size = _lend_text(given.head, lent), len(given.head)
    column.values = _lend(np.ascontiguousarray(given.values, dtype), "char[]", lent)
    if given.valid is not None:
        column.valid = _lend(np.ascontiguousarray(given.valid, np.uint8), "uint8_t[]", lent)


def _lend_text(text: bytes, lent: list[Any]) -> Any:
    return _lend(text + bytes(lib.VMS_TEXT_SLACK), "char[]", lent)


def _lend(memory: bytes | NumpyArray, ctype: str, lent: list[Any]) -> Any:
    """A pointer to ``memory``, which stays valid as long as what is put into ``lent`` does."""
    pointer = ffi.from_buffer(ctype, memory)
    lent.append(pointer)
    return pointer


def order_rows(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The rows in the order of their keys, those of equal keys as they come."""
    keys = np.ascontiguousarray(keys, np.uint64)
    order, scratch = np.empty(len(keys), np.int64), np.empty(_SCRATCH_A_ROW * len(keys), np.uint64)
    lib.vms_order_rows(_words(keys), len(keys), _words(scratch), _signed_words(order))
    return order


def group_rows(keys: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each row the number of its key, in the order of the keys; and the first row of each number."""
    keys = np.ascontiguousarray(keys, np.uint64)
    of_row, first = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    scratch = np.empty(_SCRATCH_A_ROW * len(keys), np.uint64)
    groups = lib.vms_group_rows(_words(keys), len(keys), _words(scratch), _signed_words(of_row), _signed_words(first))
    return of_row, first[:groups].copy()


_SCRATCH_A_ROW = 4


def _words(memory: NumpyArray) -> Any:
    return ffi.from_buffer("uint64_t[]", memory)


def _signed_words(memory: NumpyArray) -> Any:
    return ffi.from_buffer("int64_t[]", memory)


def copy_fields(records: NumpyArray, names: Sequence[str]) -> dict[str, NumpyArray]:
    """Fields of a structured array, each by itself: all of them in one way through the records."""
    columns: dict[str, NumpyArray] = {}
    fields = ffi.new("vms_field_t[]", len(names))
    lent: list[Any] = []
    for name, field in zip(names, fields, strict=True):
        dtype, field.offset = records.dtype.fields[name][:2]  # type: ignore[index]
        columns[name] = np.empty((len(records), *dtype.shape), dtype.base)
        field.size, field.column = dtype.itemsize, _lend(columns[name], "uint8_t[]", lent)
    records = np.ascontiguousarray(records)
    lib.vms_copy_fields(_lend(records, "uint8_t[]", lent), records.itemsize, len(records), fields, len(names))
    return columns


_DROPPED_AT_A_TIME = 8192
_MOST_FINISHED = 8192
_MOST_NOTICES = 4096


@dataclass(frozen=True)
class TableOptions:
    """How a flow table behaves. Durations in ns.

    ``snaplen`` is how many octets of each packet are looked at, None for all.
    ``secret`` keys the flow hash: 16 bytes, random unless a test needs the same hash twice. ``keep_finished`` keeps
    life-long records of finished flows for ``FlowTable.take_finished``. ``is_unhurried`` ends all flows that are idle
    at the packet that shows it, however many; else a few a packet, so that nothing pauses. Of ``shares`` tables that
    are fed the same packets, with the same secret, each counts its own; ``share`` is its number, from 0 on.
    """

    window_ns: int
    max_flows: int = 1_000_000
    idle_timeout_ns: int = 60_000_000_000
    tcp_idle_timeout_ns: int = 300_000_000_000
    active_timeout_ns: int = 1_800_000_000_000
    duplicate_horizon_ns: int = 10_000_000
    snaplen: int | None = None
    vlan_in_key: bool = True
    keep_finished: bool = False
    secret: bytes | None = None
    is_unhurried: bool = False
    share: int = 0
    shares: int = 1


def common_size(shares: int) -> int:
    """Octets of memory for ``FlowTable.share_with``."""
    return int(lib.vms_common_size(shares))


class FlowTable:
    """The C flow table. One thread at a time may use it; sources fill it through ``ingest``."""

    def __init__(self, options: TableOptions, link_type: int = 1) -> None:
        secret = options.secret if options.secret is not None else secrets.token_bytes(16)
        self._table = ffi.gc(
            lib.vms_open(
                ffi.new(
                    "vms_options_t *",
                    {
                        "secret": list(secret),
                        "max_flows": options.max_flows,
                        "window_ns": options.window_ns,
                        "idle_timeout_ns": options.idle_timeout_ns,
                        "tcp_idle_timeout_ns": options.tcp_idle_timeout_ns,
                        "active_timeout_ns": options.active_timeout_ns,
                        "duplicate_horizon_ns": options.duplicate_horizon_ns,
                        "link_type": link_type,
                        "snaplen": options.snaplen or 0,
                        "vlan_in_key": options.vlan_in_key,
                        "keep_finished": options.keep_finished,
                        "is_unhurried": options.is_unhurried,
                        "share": options.share,
                        "shares": options.shares,
                    },
                )
            ),
            lib.vms_close,
        )
        if self._table == ffi.NULL:
            raise MemoryError(f"not enough memory for a table of {options.max_flows} flows")

    def set_link_type(self, link_type: int) -> None:
        """Batches from now on hold frames of this link type (a DLT_ value)."""
        lib.vms_set_link_type(self._table, link_type)

    def ingest(self, data: bytes, meta: bytes, first: int, tick_ns: int) -> int:
        """Count packets of a batch, beginning with number ``first``; return the number of the first not counted.

        ``meta`` is packed as dtype ``META``; fractions of a second in it count ticks of ``tick_ns``. Fewer than all
        are counted when the next packet belongs to another window, or when finished flows must be taken first.
        """
        packets = ffi.from_buffer("vms_meta_t[]", meta)
        count = len(meta) // META.itemsize
        return int(lib.vms_ingest(self._table, ffi.from_buffer(data), len(data), packets, first, count, tick_ns))

    def share_with(self, common: mmap) -> None:
        """Look at what the tables of other processes have to say; from before the first packet until ``leave``."""
        self._common = ffi.from_buffer("uint8_t[]", common, require_writable=True)
        lib.vms_share_with(self._table, self._common)

    def leave(self) -> None:
        """Nobody waits for this table any more."""
        lib.vms_leave(self._table)

    @property
    def passed(self) -> int:
        """Packets that the table was fed, whosever they are; see ``TableOptions.share``."""
        return int(lib.vms_passed(self._table))

    def end_at(self, packets: int) -> None:
        """Count none beyond so many, but hold it back."""
        lib.vms_end_at(self._table, packets)

    def tick(self, now_ns: int) -> None:
        """Open the window that holds ``now_ns`` if none is open, and end flows that are idle by then."""
        lib.vms_tick(self._table, now_ns)

    def window(self) -> tuple[int, int] | None:
        """Start and end of the open window, in ns since the epoch; None when no window is open."""
        bounds = ffi.new("int64_t[2]")
        lib.vms_window(self._table, bounds, bounds + 1)
        return (int(bounds[0]), int(bounds[1])) if bounds[1] else None

    def roll(self) -> tuple[NumpyArray, NumpyArray]:
        """Close the window: its records (dtype ``RECORD``) and histogram bins (dtype ``BIN``)."""
        records, bins = (np.empty(count, dtype) for count, dtype in zip(self._pending(), (RECORD, BIN), strict=True))
        written, bin_count = self._roll_into(records, bins)
        return records[:written], bins[:bin_count]

    def drop_window(self) -> None:
        """Close the window, of which nobody looks at the records: a few at a time have to be in memory."""
        count, bin_count = self._pending()
        records, bins = np.empty(min(count, _DROPPED_AT_A_TIME), RECORD), np.empty(bin_count, BIN)
        self._roll_into(records, bins)
        while self._pending()[0]:
            self._roll_into(records, bins)

    def _pending(self) -> tuple[int, int]:
        sizes = ffi.new("uint32_t[2]")
        lib.vms_pending(self._table, sizes, sizes + 1)
        return int(sizes[0]), int(sizes[1])

    def _roll_into(self, records: NumpyArray, bins: NumpyArray) -> tuple[int, int]:
        bin_count = ffi.new("uint32_t *")
        written = lib.vms_roll(
            self._table,
            ffi.cast("vms_record_t *", records.ctypes.data),
            len(records),
            ffi.cast("vms_bin_t *", bins.ctypes.data),
            len(bins),
            bin_count,
        )
        return int(written), int(bin_count[0])

    def finish(self) -> int:
        """End flows because the input ended, as many as there is room for; return how many are left."""
        return int(lib.vms_finish(self._table))

    def take_finished(self) -> NumpyArray:
        """Flows that have finished, with life-long sums, in the order in which they ended.

        At most 8192 a call; an unhurried table may have more.
        """
        records = np.empty(_MOST_FINISHED, RECORD)
        taken = lib.vms_take_finished(self._table, ffi.cast("vms_record_t *", records.ctypes.data), len(records))
        return records[:taken]

    def take_notices(self) -> NumpyArray:
        """The packets of the open window that name VMs and switches (dtype ``NOTICE``); take them before the roll."""
        notices = np.empty(_MOST_NOTICES, NOTICE)
        taken = lib.vms_take_notices(self._table, ffi.cast("vms_notice_t *", notices.ctypes.data), _MOST_NOTICES)
        result: NumpyArray = notices[:taken].copy()
        return result

    def take_presence(self) -> NumpyArray:
        """The network cards heard in the open window (dtype ``PRESENCE``), by address; take them before the roll."""
        cards = np.empty(int(lib.vms_presence_count(self._table)), PRESENCE)
        taken = lib.vms_take_presence(self._table, ffi.cast("vms_presence_t *", cards.ctypes.data), len(cards))
        return np.sort(cards[:taken], order="mac") if taken else cards[:0]

    def counters(self) -> dict[str, int]:
        """Sums since the table was made; ``fate_*`` add up to ``received``."""
        c = ffi.new("vms_counters_t *")
        lib.vms_get_counters(self._table, c)
        named = {name: int(getattr(c, name)) for name, _ in ffi.typeof("vms_counters_t").fields if name != "fate"}
        named.update({f"fate_{word}": int(c.fate[i]) for i, word in enumerate(FATES)})
        return named

    def memory(self) -> dict[str, int]:
        """Bytes that the table's parts take; see ``vms_memory_t``."""
        m = ffi.new("vms_memory_t *")
        lib.vms_get_memory(self._table, m)
        return {name: int(getattr(m, name)) for name, _ in ffi.typeof("vms_memory_t").fields}

    def ingest_file(self, file: MappedFile) -> FileState:
        """Count some packets of a mapped file."""
        return FileState(lib.vms_file_poll(file.handle, self._table))

    def ingest_ring(self, ring: Ring, most: int) -> RingState:
        """Count some packets of a ring, at most ``most`` of those that were not looked at before."""
        return RingState(lib.vms_ring_poll(ring.handle, self._table, most))


class RingState(IntEnum):
    """What a look into a ring came to; see ``enum vms_ring_state``."""

    MORE = lib.VMS_RING_MORE
    HELD = lib.VMS_RING_HELD
    IDLE = lib.VMS_RING_IDLE


class Ring:
    """The packet ring of a socket, in memory that the socket shares with the kernel."""

    def __init__(self, memory: mmap, block_size: int) -> None:
        self._lent = ffi.from_buffer("uint8_t[]", memory, require_writable=True)
        self.handle = lib.vms_ring_open(self._lent, block_size, len(memory) // block_size)
        if self.handle == ffi.NULL:
            raise MemoryError("not enough memory for a ring")

    @property
    def packets(self) -> int:
        """Packets that were counted."""
        return int(lib.vms_ring_packets(self.handle))

    def close(self) -> None:
        """Let go of the memory, which can then be unmapped."""
        lib.vms_ring_close(self.handle)
        ffi.release(self._lent)
        self.handle = ffi.NULL


class FileState(IntEnum):
    """What a look into a mapped file came to; see ``enum vms_file_state``."""

    MORE = lib.VMS_FILE_MORE
    HELD = lib.VMS_FILE_HELD
    END = lib.VMS_FILE_END
    ODD = lib.VMS_FILE_ODD


class MappedFile:
    """A classic pcap file in memory. ValueError when it is of another kind, or cannot be mapped."""

    def __init__(self, descriptor: int) -> None:
        self.handle = lib.vms_file_open(descriptor)
        if self.handle == ffi.NULL:
            raise ValueError("no classic pcap file")

    @property
    def packets(self) -> int:
        """Packets that were counted."""
        return int(lib.vms_file_packets(self.handle))

    @property
    def place(self) -> int:
        """How many octets of the file have been looked at."""
        return int(lib.vms_file_place(self.handle))

    def close(self) -> None:
        """Give the memory back."""
        lib.vms_file_close(self.handle)
        self.handle = ffi.NULL
