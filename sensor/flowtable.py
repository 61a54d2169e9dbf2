"""The flow table, and what fills it: the crossing between Python and C on which packets go.

Without numpy, until somebody asks for records: a run of which only the totals are wanted starts in two thirds of the
time, and takes 12 MB less. Python allocates, C fills; every call releases the GIL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap
from typing import TYPE_CHECKING, Any

from sensor._native import ffi, lib

if TYPE_CHECKING:
    from sensor.native import NumpyArray


def words_of(enum: str, prefix: str) -> tuple[str, ...]:
    """The members of a C enum as users see them: lower case, without their prefix."""
    members = ffi.typeof(f"enum {enum}").elements
    return tuple(members[value].removeprefix(prefix).lower() for value in sorted(members))


FATES = words_of("vms_fate", "VMS_FATE_")[:-1]

META_SIZE: int = ffi.sizeof("vms_meta_t")
"""Octets of one packet's meta."""


def meta_of(batch: bytes | bytearray) -> Any:
    """The packets' meta of a batch, each a ``vms_meta_t``; to be changed in a bytearray."""
    return ffi.from_buffer("vms_meta_t[]", batch)


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
        secret = options.secret if options.secret is not None else os.urandom(16)
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
        self.keeps_finished = options.keep_finished
        """Whether there is anything to take of ``take_finished``."""

    def set_link_type(self, link_type: int) -> None:
        """Batches from now on hold frames of this link type (a DLT_ value)."""
        lib.vms_set_link_type(self._table, link_type)

    def ingest(self, data: bytes, meta: bytes, first: int, tick_ns: int) -> int:
        """Count packets of a batch, beginning with number ``first``; return the number of the first not counted.

        ``meta`` is packed as dtype ``native.META``; fractions of a second in it count ticks of ``tick_ns``. Fewer than
        all are counted when the next packet belongs to another window, or when finished flows must be taken first.
        """
        packets = ffi.from_buffer("vms_meta_t[]", meta)
        count = len(meta) // META_SIZE
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
        """Close the window: its records (dtype ``native.RECORD``) and histogram bins (dtype ``native.BIN``)."""
        sizes, bin_count = ffi.new("uint32_t[2]"), ffi.new("uint32_t *")
        lib.vms_pending(self._table, sizes, sizes + 1)
        records, to_records = _room("vms_record_t", sizes[0])
        bins, to_bins = _room("vms_bin_t", sizes[1])
        written = lib.vms_roll(self._table, to_records, len(records), to_bins, len(bins), bin_count)
        return records[:written], bins[: bin_count[0]]

    def drop_window(self) -> None:
        """Close the window, of which nobody looks at the records, the notices and the cards."""
        lib.vms_drop_window(self._table)

    def finish(self) -> int:
        """End flows because the input ended, as many as there is room for; return how many are left."""
        return int(lib.vms_finish(self._table))

    def take_finished(self) -> NumpyArray:
        """Flows that have finished, with life-long sums, in the order in which they ended.

        At most 8192 a call; an unhurried table may have more. None of a table that does not keep them.
        """
        records, to_records = _room("vms_record_t", _MOST_FINISHED)
        return records[: lib.vms_take_finished(self._table, to_records, len(records))]

    def take_notices(self) -> NumpyArray:
        """The packets of the open window that name VMs and switches; take them before the roll.

        Their dtype is ``native.NOTICE``.
        """
        notices, to_notices = _room("vms_notice_t", _MOST_NOTICES)
        taken = lib.vms_take_notices(self._table, to_notices, len(notices))
        result: NumpyArray = notices[:taken].copy()
        return result

    def take_presence(self) -> NumpyArray:
        """The network cards heard in the open window, by address; take them before the roll.

        Their dtype is ``native.PRESENCE``.
        """
        cards, to_cards = _room("vms_presence_t", int(lib.vms_presence_count(self._table)))
        cards = cards[: lib.vms_take_presence(self._table, to_cards, len(cards))]
        if len(cards):
            cards.sort(order="mac")
        return cards

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

    def ingest_ring(self, ring: Ring, most: int, nap_ns: int = 0, wake: int = -1) -> RingState:
        """Count some packets of a ring, at most ``most`` of those that were not looked at before.

        With a nap, sleep before; and again, a few times, while packets flow and nothing can be read from ``wake``.
        """
        return RingState(lib.vms_ring_poll(ring.handle, self._table, most, nap_ns, wake))


def _room(ctype: str, count: int) -> tuple[NumpyArray, Any]:
    """An array of so many, to be filled, and where C finds it."""
    import numpy as np

    from sensor.native import dtype_of

    array = np.empty(count, dtype_of(ctype))
    return array, ffi.cast(f"{ctype} *", array.ctypes.data)


class RingState(IntEnum):
    """What a look into a ring came to; see ``enum vms_ring_state``."""

    MORE = lib.VMS_RING_MORE
    HELD = lib.VMS_RING_HELD
    FLOWING = lib.VMS_RING_FLOWING
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
