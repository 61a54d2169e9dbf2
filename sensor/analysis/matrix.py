"""The traffic matrix F(t): who sent how much to whom, how late and with what loss; between VMs, or between tenants.

Of a window [t, t + d) and two ends i and j: throughput T_ij = B_ij / d; latency L_ij as its base, the least RTT from
the tap to j and back, and its waiting part, by which the mean exceeds the base; loss P_ij = lost / sent segments. All
is made of sums over services and windows, so that ratios and means come out as if they had been measured at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sensor.analysis.quantiles import Floats
from sensor.analysis.trust import ratio
from sensor.window import Report, Table, present

By = Literal["vm", "tenant"]
Name = tuple[str, str]
"""Tenant and VM; of a tenant as a whole the VM is empty."""

Ints = npt.NDArray[np.int64]

MOST_PAIRS = 1_000_000
"""Pairs kept apart; the traffic of further ones is added up in ``other``."""

REST: Name = ("other", "other")

METRICS: dict[str, tuple[str, str]] = {
    "bytes": ("octets", "octets from one to the other"),
    "throughput": ("bit/s", "the same over the length of the time"),
    "rtt": ("us", "base latency: least RTT from the tap to the second and back"),
    "waiting": ("us", "waiting latency: mean RTT above the base"),
    "loss": ("ratio", "lost / sent segments"),
}
"""What a matrix can show: unit and meaning."""

_SUMS = ("bytes", "sent", "lost", "rtt_count")


@dataclass(frozen=True)
class Pairs:
    """Column-wise, an entry a pair with traffic: ``src`` and ``dst`` index ``names``. NaN: not measured."""

    names: list[Name]
    src: Ints
    dst: Ints
    values: dict[str, Floats]
    """By the names of ``METRICS``."""


@dataclass(frozen=True)
class Matrix:
    """``cells[i, j]`` is from ``names[i]`` to ``names[j]``; NaN: not measured. Without talk octets are 0."""

    names: list[Name]
    cells: Floats


class PairSums:
    """Adds windows up, pair by pair. ``tenant`` leaves only what is within that tenant."""

    def __init__(self, by: By = "vm", tenant: str | None = None) -> None:
        self.start_ns: int | None = None
        self.end_ns = 0
        self._by = by
        self._tenant = tenant
        self._names: dict[Name, int] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._sums = np.zeros((1024, len(_SUMS)), np.int64)
        self._rtt_us = np.zeros(1024)
        self._base_us = np.full(1024, np.inf)

    def add(self, report: Report) -> None:
        """Add one window."""
        self.start_ns = report.start_ns if self.start_ns is None else min(self.start_ns, report.start_ns)
        self.end_ns = max(self.end_ns, report.end_ns)
        for table in report.tables:
            if table.measurement == "vm_traffic":
                self._add(table)

    @property
    def seconds(self) -> float:
        """Length of the time from the first window to the last."""
        return (self.end_ns - (self.start_ns or 0)) / 1e9

    def pairs(self) -> Pairs:
        """What has been added up."""
        count = len(self._rows)
        ends = np.array(list(self._rows), np.int64).reshape(-1, 2)
        sums = {name: self._sums[:count, column] for column, name in enumerate(_SUMS)}
        base = np.where(np.isfinite(self._base_us[:count]), self._base_us[:count], np.nan)
        values: dict[str, Floats] = {
            "bytes": sums["bytes"].astype(np.float64),
            "throughput": sums["bytes"] * 8 / self.seconds if self.seconds else np.full(count, np.nan),
            "rtt": base,
            "waiting": np.maximum(ratio(self._rtt_us[:count], sums["rtt_count"]) - base, 0),
            "loss": ratio(sums["lost"], sums["sent"]),
        }
        return Pairs(list(self._names), ends[:, 0], ends[:, 1], values)

    def _add(self, table: Table) -> None:
        keep = self._wanted(table)
        ends = [list(zip(table.tags[f"{end}_tenant"], table.tags[f"{end}_vm"], strict=True)) for end in ("src", "dst")]
        rows = np.array([self._row(ends[0][i], ends[1][i]) for i in keep], np.intp)
        columns = {
            name: _filled(table, name)[keep] for name in table.fields if table.fields[name].values.dtype != object
        }
        zero = np.zeros(len(rows))

        def of(name: str) -> Any:
            return columns.get(name, zero)

        sent = of("data_packets") + of("upstream_losses")
        lost = np.maximum(of("retransmissions") - of("spurious"), 0) + of("upstream_losses")
        tcp = present(table.fields["retransmissions"])[keep] if "retransmissions" in table.fields else zero > 0
        parts = (of("bytes"), np.where(tcp, sent, 0), np.where(tcp, lost, 0), of("rtt_count"))
        np.add.at(self._sums, rows, np.stack(parts, axis=1).astype(np.int64))
        np.add.at(self._rtt_us, rows, (of("rtt_min_us") + of("queueing_us")) * of("rtt_count"))
        measured = present(table.fields["rtt_min_us"])[keep] if "rtt_min_us" in table.fields else zero > 0
        np.minimum.at(self._base_us, rows[measured], of("rtt_min_us")[measured])

    def _wanted(self, table: Table) -> list[int]:
        if self._tenant is None:
            return list(range(table.rows))
        tenants = zip(table.tags["src_tenant"], table.tags["dst_tenant"], strict=True)
        return [i for i, both in enumerate(tenants) if both == (self._tenant, self._tenant)]

    def _row(self, src: Name, dst: Name) -> int:
        if self._by == "tenant":
            src, dst = (src[0], ""), (dst[0], "")
        key = (self._name(src), self._name(dst))
        row = self._rows.get(key)
        if row is not None:
            return row
        if len(self._rows) >= MOST_PAIRS and src != REST:
            return self._row(REST, REST)
        row = self._rows[key] = len(self._rows)
        if row == len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
            self._rtt_us = np.concatenate([self._rtt_us, np.zeros(row)])
            self._base_us = np.concatenate([self._base_us, np.full(row, np.inf)])
        return row

    def _name(self, name: Name) -> int:
        return self._names.setdefault(name, len(self._names))


def matrix_of(pairs: Pairs, metric: str, most: int | None = None) -> Matrix:
    """The matrix of a metric, names in order; with ``most``, of the ends with most octets only."""
    size = len(pairs.names)
    octets = np.bincount(pairs.src, pairs.values["bytes"], size) + np.bincount(pairs.dst, pairs.values["bytes"], size)
    chosen = np.argsort(-octets, kind="stable")[:most].tolist() if most is not None else range(size)
    order = sorted(chosen, key=lambda i: pairs.names[i])
    place = np.full(size, -1)
    place[order] = np.arange(len(order))
    cells = np.full((len(order), len(order)), 0.0 if metric in ("bytes", "throughput") else np.nan)
    src, dst = place[pairs.src], place[pairs.dst]
    here = (src >= 0) & (dst >= 0)
    cells[src[here], dst[here]] = pairs.values[metric][here]
    return Matrix([pairs.names[i] for i in order], cells)


def _filled(table: Table, name: str) -> npt.NDArray[Any]:
    column = table.fields[name]
    result: npt.NDArray[Any] = np.where(present(column), column.values, 0)
    return result
