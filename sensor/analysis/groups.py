"""Grouping of a window's flows into directed VM pairs, and sums over the groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor.identity.parties import Parties
from sensor.native import HAS_PORTS, OVERFLOW, NumpyArray
from sensor.protocols import WITH_PORTS, protocol_name
from sensor.services import service_name

Ints = npt.NDArray[np.int64]
DIRECTIONS = ("c2s", "s2c")


@dataclass(frozen=True)
class PairGroups:
    """Each record appears twice, once for each direction: rows 0..n-1 client to server, n..2n-1 server to client.

    ``of_row`` is the group of each row; the arrays of the groups are ``src``, ``dst`` (indices into the parties'
    names), ``service`` (index into ``services``) and ``reverse`` (the group of the other direction).
    """

    of_row: Ints
    src: Ints
    dst: Ints
    service: Ints
    reverse: Ints
    services: list[tuple[str, str]]
    order: Ints
    starts: Ints

    def __len__(self) -> int:
        return len(self.src)

    def sum(self, rows: NumpyArray) -> Ints:
        """Exact sums over each group of a value a row."""
        return np.add.reduceat(rows[self.order].astype(np.int64), self.starts) if len(self) else np.zeros(0, np.int64)

    def min(self, rows: NumpyArray) -> NumpyArray:
        """The least value of each group."""
        return np.minimum.reduceat(rows[self.order], self.starts) if len(self) else rows

    def max(self, rows: NumpyArray) -> NumpyArray:
        """The greatest value of each group."""
        return np.maximum.reduceat(rows[self.order], self.starts) if len(self) else rows


def group_pairs(records: NumpyArray, parties: Parties) -> PairGroups:
    """Group records by source VM, destination VM, protocol and service."""
    services, service = services_of(records)
    src = np.concatenate([parties.client, parties.server]).astype(np.int64)
    dst = np.concatenate([parties.server, parties.client]).astype(np.int64)
    both = np.concatenate([service, service])
    size = len(parties.names)
    key = (src * size + dst) * max(len(services), 1) + both
    unique, first, of_row = np.unique(key, return_index=True, return_inverse=True)
    of_row = of_row.reshape(-1)
    backwards = (dst[first] * size + src[first]) * max(len(services), 1) + both[first]
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(len(unique)))
    reverse = np.searchsorted(unique, backwards)
    return PairGroups(of_row, src[first], dst[first], both[first], reverse, services, order, starts)


def with_traffic(records: NumpyArray) -> npt.NDArray[np.bool_]:
    """Flows of which a packet was counted; others have records for late news: an ACK, a copy, being given up."""
    packets = records["c2s_packets"].astype(np.int64) + records["s2c_packets"]
    result: npt.NDArray[np.bool_] = (records["flags"] & OVERFLOW == 0) & (packets > 0)
    return result


def rows_of(records: NumpyArray, name: str) -> NumpyArray:
    """A field of both directions, as rows of PairGroups."""
    return np.concatenate([records[f"{direction}_{name}"] for direction in DIRECTIONS])


def services_of(records: NumpyArray) -> tuple[list[tuple[str, str]], Ints]:
    """Protocol and service names, and for each record which of them it has."""
    ports = (records["flags"] & HAS_PORTS != 0) & np.isin(records["protocol"], WITH_PORTS)
    port = np.where(ports, records["server_port"].astype(np.int64), -1)
    key = np.where(records["flags"] & OVERFLOW, -1, records["protocol"].astype(np.int64) * 65537 + port + 1)
    unique, inverse = np.unique(key, return_inverse=True)
    named = [_service(int(k)) for k in unique]
    distinct = sorted(set(named))
    index = np.array([distinct.index(pair) for pair in named], dtype=np.int64)
    return distinct, index[inverse.reshape(-1)] if len(unique) else np.zeros(0, np.int64)


def _service(key: int) -> tuple[str, str]:
    if key < 0:
        return "other", "other"
    protocol = protocol_name(key // 65537)
    port = key % 65537 - 1
    return protocol, service_name(protocol, None if port < 0 else port)
