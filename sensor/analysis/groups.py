"""Grouping of a window's flows into directed VM pairs, and sums over the groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor.grouping import Groups, Ints, group
from sensor.identity.parties import Parties
from sensor.native import HAS_PORTS, OVERFLOW, NumpyArray
from sensor.protocols import WITH_PORTS, protocol_name
from sensor.services import service_name

DIRECTIONS = ("c2s", "s2c")


@dataclass(frozen=True)
class Ends:
    """Who the flows of a window are put down to: for each record, client, server and service, and their names.

    ``client`` and ``server`` are indices into ``names`` and ``tenants``, ``service`` into ``services`` (protocol,
    service). ``scope`` is an index into ``parties.SCOPES``.
    """

    names: list[str]
    tenants: list[str]
    services: list[tuple[str, str]]
    client: Ints
    server: Ints
    service: Ints
    scope: Ints


@dataclass(frozen=True)
class PairGroups(Groups):
    """Each record appears twice, once for each direction: rows 0..n-1 client to server, n..2n-1 server to client.

    The arrays of the groups are ``src``, ``dst``, ``service`` and ``scope``
    (indices as in ``ends``) and ``reverse`` (the group of the other direction).
    """

    ends: Ends
    src: Ints
    dst: Ints
    service: Ints
    scope: Ints
    reverse: Ints


def ends_of(records: NumpyArray, parties: Parties) -> Ends:
    """As the parties say, and by the server's port."""
    services, service = services_of(records)
    return Ends(
        parties.names, parties.tenants, services, parties.client.astype(np.int64), parties.server.astype(np.int64),
        service, parties.scope.astype(np.int64),
    )  # fmt: skip


def group_pairs(ends: Ends) -> PairGroups:
    """Group records by source VM, destination VM, protocol and service."""
    src, dst = np.concatenate([ends.client, ends.server]), np.concatenate([ends.server, ends.client])
    both = np.concatenate([ends.service, ends.service])
    size, services = len(ends.names), max(len(ends.services), 1)
    groups = group((src * size + dst) * services + both)
    first = groups.first
    # Every group has one of the other direction: the turned keys are the same keys in another order.
    reverse = group((dst[first] * size + src[first]) * services + both[first]).of_row
    scope = np.concatenate([ends.scope, ends.scope])[first]
    return PairGroups(groups.of_row, groups.first, ends, src[first], dst[first], both[first], scope, reverse)


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
    same = group(key + 1)
    named = [_service(k) for k in key[same.first].tolist()]
    place = {pair: number for number, pair in enumerate(sorted(set(named)))}
    index = np.array([place[pair] for pair in named], dtype=np.int64)
    return list(place), index[same.of_row]


def _service(key: int) -> tuple[str, str]:
    if key < 0:
        return "other", "other"
    protocol = protocol_name(key // 65537)
    port = key % 65537 - 1
    return protocol, service_name(protocol, None if port < 0 else port)
