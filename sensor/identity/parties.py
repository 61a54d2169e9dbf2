"""Who took part in a window's flows: VM, tenant and scope, resolved once for each address rather than for each flow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.config import Network
from sensor.identity.endpoints import ENDPOINT, distinct, end_text, forwards, octets_of
from sensor.identity.registry import EXTERNAL as EXTERNAL
from sensor.identity.registry import MULTICAST, UNSPECIFIED, Asked, Registry, Who
from sensor.keys import Keys, key_of
from sensor.native import NumpyArray

OTHER = "other"
SCOPES = ("unknown", "east-west", "north-south", "inter-tenant")
UNKNOWN, EAST_WEST, NORTH_SOUTH, INTER_TENANT = range(4)


@dataclass(frozen=True)
class Parties:
    """The VMs of a window. ``client`` and ``server`` give each record's VM as an index into ``names``.

    ``endpoints`` (dtype ``ENDPOINT``) are the different ends of the window's flows, ``vm_of`` the VM of each, and
    ``end_of`` the endpoint of each record's client, then of each record's server; ``single`` are those whose MAC
    address is a card of the VM itself. ``hosts`` are the hosts that VMs are on, None where unknown.
    """

    names: list[str]
    tenants: list[str]
    client: npt.NDArray[np.intp]
    server: npt.NDArray[np.intp]
    scope: npt.NDArray[np.int8]
    hosts: list[str | None] = field(default_factory=list)
    endpoints: NumpyArray = field(default_factory=lambda: np.zeros(0, ENDPOINT))
    single: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    vm_of: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    end_of: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    @cached_property
    def keys(self) -> Keys:
        """A key of each name with its tenant, the same in every window."""
        return np.array([key_of(*who) for who in zip(self.tenants, self.names, strict=True)], np.uint64)


def resolve(records: NumpyArray, registry: Registry) -> Parties:
    """Names, tenants and scopes for records of dtype ``RECORD``."""
    endpoints, end_of = distinct(records)
    single = ~forwards(endpoints)
    who = _ask(endpoints, single, registry, int(records["end_ns"].max()) if len(records) else 0)
    found = {OUTSIDE_KEY: 0}
    vm_of = np.array([found.setdefault(answer[:2], len(found)) for answer in who], np.intp)
    hosts: list[str | None] = [None] * (len(found) + 1)
    for answer, vm in zip(who, vm_of.tolist(), strict=True):
        hosts[vm] = hosts[vm] or answer.host
    names, tenants = [vm for vm, _ in found], [tenant for _, tenant in found]
    vm = vm_of[end_of] if len(records) else np.zeros(0, np.intp)
    overflow = (records["flags"] & native.OVERFLOW) != 0
    client, server = vm[: len(records)].copy(), vm[len(records) :].copy()
    client[overflow] = server[overflow] = len(names)
    inside = np.append(np.array([tenant != EXTERNAL for tenant in tenants], dtype=bool), False)
    number = {tenant: i for i, tenant in enumerate(dict.fromkeys(tenants))}
    tenant_of = np.array([*(number[tenant] for tenant in tenants), -1], np.intp)
    scope = _scope(inside[client], inside[server], tenant_of[client] == tenant_of[server])
    scope[overflow] = UNKNOWN
    return Parties([*names, OTHER], [*tenants, OTHER], client, server, scope, hosts, endpoints, single, vm_of, end_of)


OUTSIDE_KEY = (EXTERNAL, EXTERNAL)

# ---- their names

_QUESTION = np.dtype([("end", ENDPOINT), ("single", "?")])
"""All that who an endpoint is depends on, but for what the registry itself knows."""


def _ask(endpoints: NumpyArray, single: npt.NDArray[np.bool_], registry: Registry, time_ns: int) -> list[Who]:
    """Who each of the endpoints is; those that the registry does not remember are put into words for it."""
    questions = np.zeros(len(endpoints), _QUESTION)
    questions["end"], questions["single"] = endpoints, single
    rows = octets_of(questions)
    is_monitored = inside(endpoints["ip"], endpoints["version"], registry.monitored)
    groups = _groups(endpoints)
    monitored, group_of, outside = is_monitored.tolist(), groups.tolist(), (~is_monitored & (groups == 0)).tolist()

    def asked(i: int) -> Asked:
        row = rows[i]
        end = end_text(row[: ENDPOINT.itemsize])
        return Asked(end.vlan, end.vni, end.ip, end.mac if row[-1] else "", monitored[i], _GROUPS[group_of[i]])

    return registry.who(rows, asked, time_ns, outside)


_GROUPS = (None, MULTICAST, UNSPECIFIED)


def _groups(endpoints: NumpyArray) -> npt.NDArray[np.int8]:
    """What each address stands for if no single VM can have it, by its place in _GROUPS (RFC 1112, 919, 4291)."""
    ip, version = endpoints["ip"], endpoints["version"]
    word = np.ascontiguousarray(ip[:, :4]).view(">u4").reshape(-1)
    is_v4, is_v6 = version == 4, version == 6
    groups = np.zeros(len(ip), np.int8)
    groups[(is_v4 & ((word >> 28 == 14) | (word == 0xFFFFFFFF))) | (is_v6 & (ip[:, 0] == 0xFF))] = 1
    groups[(is_v4 & (word == 0)) | (is_v6 & ~ip.any(axis=1))] = 2
    return groups


def inside(ip: NumpyArray, versions: NumpyArray, networks: Iterable[Network]) -> npt.NDArray[np.bool_]:
    """Which addresses (shape (n, 16), with their IP versions) are in one of the networks."""
    found = np.zeros(len(ip), bool)
    for network in networks:
        octets = 4 if network.version == 4 else 16
        mask = np.frombuffer(network.netmask.packed, np.uint8)
        wanted = np.frombuffer(network.network_address.packed, np.uint8)
        found |= ((ip[:, :octets] & mask) == wanted).all(axis=1) & (versions == network.version)
    return found


def _scope(
    client: npt.NDArray[np.bool_], server: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int8]:
    scope = np.full(len(client), UNKNOWN, np.int8)
    scope[client & server & same] = EAST_WEST
    scope[client & server & ~same] = INTER_TENANT
    scope[client != server] = NORTH_SOUTH
    return scope
