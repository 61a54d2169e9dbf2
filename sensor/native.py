"""What the C half tells, as numpy has it, and what it does with columns of numbers.

The dtypes and the names of enum members are read from the C declarations (``native/vms_api.h``), which are the single
source. Python allocates, C fills; every call releases the GIL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor._native import ffi, lib
from sensor.flowtable import words_of

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


@cache
def dtype_of(cname: str) -> np.dtype[Any]:
    """The numpy dtype of a C struct, nested structs flattened with their name as prefix (``c2s_packets``)."""
    ctype = ffi.typeof(cname)
    names, formats, offsets = zip(*_fields(ctype), strict=True)
    return np.dtype(
        {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": ffi.sizeof(ctype)}
    )


RECORD = dtype_of("vms_record_t")
BIN = dtype_of("vms_bin_t")
META = dtype_of("vms_meta_t")
NOTICE = dtype_of("vms_notice_t")
PRESENCE = dtype_of("vms_presence_t")
COUNTERS = dtype_of("vms_counters_t")

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


_LEAST_PIECE = 2**18  # octets
"""Octets."""

_NUMBER_KINDS = {
    "i": (lib.VMS_COLUMN_SIGNED, np.int64),
    "u": (lib.VMS_COLUMN_UNSIGNED, np.uint64),
    "f": (lib.VMS_COLUMN_DOUBLES, np.float64),
    "b": (lib.VMS_COLUMN_BOOLEANS, np.uint8),
}


class LineBuffer:
    """Line protocol, in pieces of memory that stay where they are: to join them would take longer than to write them.

    Large pieces lie in huge pages, which numpy asks the system for.
    """

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        """Of whole lines."""
        self.lines = 0
        self._size = _LEAST_PIECE
        self._room = np.empty(self._size, np.uint8)

    def write(
        self, measurement: bytes, tags: Sequence[Cells], fields: Sequence[Cells | Numbers], times: npt.NDArray[np.int64]
    ) -> None:
        """Add rows as lines; those without any field are left out.

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
        row, written = 0, ffi.new("vms_written_t *")
        while row < len(times):
            room = ffi.from_buffer("char[]", self._room)
            reached = lib.vms_encode_lines(lines, row, room, len(self._room), written)
            self._take(written.octets, written.lines)
            if reached == row:  # not even one line fitted
                self._size *= 4
                self._room = np.empty(self._size, np.uint8)
            row = reached

    def _take(self, octets: int, lines: int) -> None:
        if octets:
            self.pieces.append(self._room.data[:octets])
        self.lines += lines
        self._room = self._room[octets:]


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


def _rounded_up(size: int) -> int:
    """To whole cache lines."""
    return -(-size // 64) * 64


def copy_fields(records: NumpyArray, names: Sequence[str]) -> dict[str, NumpyArray]:
    """Fields of a structured array, each by itself: all of them in one way through the records.

    They lie in one piece of memory, which is large enough for huge pages: many small ones would take longer to get than
    to fill.
    """
    columns: dict[str, NumpyArray] = {}
    fields = ffi.new("vms_field_t[]", len(names))
    lent: list[Any] = []
    sizes = [_rounded_up(len(records) * records.dtype[name].itemsize) for name in names]
    memory = np.empty(sum(sizes), np.uint8)
    for name, field, size, end in zip(names, fields, sizes, accumulate(sizes), strict=True):
        dtype, field.offset = records.dtype.fields[name][:2]  # type: ignore[index]
        part = memory[end - size :][: len(records) * dtype.itemsize]
        columns[name] = part.view(dtype.base).reshape(len(records), *dtype.shape)
        field.size, field.column = dtype.itemsize, _lend(columns[name], "uint8_t[]", lent)
    records = np.ascontiguousarray(records)
    lib.vms_copy_fields(_lend(records, "uint8_t[]", lent), records.itemsize, len(records), fields, len(names))
    return columns
