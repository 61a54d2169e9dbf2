"""Who took part in a window's flows: VM, tenant and scope, resolved once for each address rather than for each flow."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.config import Network
from sensor.identity.domains import Domain, domain_of
from sensor.identity.registry import EXTERNAL as EXTERNAL
from sensor.identity.registry import MULTICAST, UNSPECIFIED, Asked, Registry, Who
from sensor.keys import mix
from sensor.native import NumpyArray

OTHER = "other"
SCOPES = ("unknown", "east-west", "north-south", "inter-tenant")
UNKNOWN, EAST_WEST, NORTH_SOUTH, INTER_TENANT = range(4)

ROUTER_ADDRESSES = 8
"""A MAC address with more source addresses than this in a window forwards for others."""

ENDPOINT = np.dtype(
    [("ip", "u1", (16,)), ("version", "u1"), ("tags", "u1"), ("vlan", "u2", (4,)), ("vni", "i8"), ("mac", "u1", (6,))]
)


@dataclass(frozen=True)
class Parties:
    """The VMs of a window. ``client`` and ``server`` give each record's VM as an index into ``names``.

    ``endpoints`` (dtype ``ENDPOINT``) are the different ends of the window's flows, ``vm_of`` the VM of each, and
    ``end_of`` the endpoint of each record's client, then of each record's server. ``hosts`` are the hosts that VMs are
    on, None where unknown.
    """

    names: list[str]
    tenants: list[str]
    client: npt.NDArray[np.intp]
    server: npt.NDArray[np.intp]
    scope: npt.NDArray[np.int8]
    hosts: list[str | None] = field(default_factory=list)
    endpoints: NumpyArray = field(default_factory=lambda: np.zeros(0, ENDPOINT))
    vm_of: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    end_of: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))


def resolve(records: NumpyArray, registry: Registry) -> Parties:
    """Names, tenants and scopes for records of dtype ``RECORD``."""
    endpoints, end_of = _distinct(records)
    who = _ask(endpoints, registry, int(records["end_ns"].max()) if len(records) else 0)
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
    tenant_of = np.append(np.unique(np.array(tenants, dtype=object), return_inverse=True)[1], -1)
    scope = _scope(inside[client], inside[server], tenant_of[client] == tenant_of[server])
    scope[overflow] = UNKNOWN
    return Parties([*names, OTHER], [*tenants, OTHER], client, server, scope, hosts, endpoints, vm_of, end_of)


OUTSIDE_KEY = (EXTERNAL, EXTERNAL)

# ---- the different ends of flows


def _distinct(records: NumpyArray) -> tuple[NumpyArray, npt.NDArray[np.intp]]:
    """The different ends of flows in a fixed order, and for each client, then each server, which of them it is."""
    hashes = np.concatenate([_hash(records, "client"), _hash(records, "server")])
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    endpoints = np.zeros(len(first), ENDPOINT)
    for side, of_side in (("client", first < len(records)), ("server", first >= len(records))):
        _fill(endpoints, of_side, records[first[of_side] % max(len(records), 1)], side)
    order = np.argsort(np.ascontiguousarray(endpoints).view(f"V{ENDPOINT.itemsize}"), kind="stable")
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    return endpoints[order], place[inverse.reshape(-1)]


def _fill(endpoints: NumpyArray, where: npt.NDArray[np.bool_], records: NumpyArray, side: str) -> None:
    part = np.zeros(len(records), ENDPOINT)
    part["ip"], part["version"], part["mac"] = records[f"{side}_ip"], records["ip_version"], records[f"{side}_mac"]
    part["tags"], part["vlan"] = records["vlan_count"], records["vlan"]
    part["vni"] = np.where(records["flags"] & native.HAS_VNI, records["vni"].astype(np.int64), -1)
    endpoints[where] = part


def _hash(records: NumpyArray, side: str) -> npt.NDArray[np.uint64]:
    """All that makes an endpoint, in 64 bits."""
    mac = np.zeros((len(records), 8), np.uint8)
    mac[:, :6] = records[f"{side}_mac"]
    mac[:, 6], mac[:, 7] = records["ip_version"], records["vlan_count"]
    ip = np.ascontiguousarray(records[f"{side}_ip"]).view(np.uint64).reshape(-1, 2)
    vlan = np.ascontiguousarray(records["vlan"]).view(np.uint64).reshape(-1)
    vni = np.where(records["flags"] & native.HAS_VNI, records["vni"].astype(np.uint64) + 1, 0).astype(np.uint64)
    return mix(ip[:, 0], ip[:, 1], mac.view(np.uint64).reshape(-1), vlan, vni)


# ---- their names


def _ask(endpoints: NumpyArray, registry: Registry, time_ns: int) -> list[Who]:
    """Who each of the endpoints is."""
    monitored = inside(endpoints["ip"], endpoints["version"], registry.monitored).tolist()
    single = ~forwards(endpoints)
    macs = [mac_text(octets) if one else "" for octets, one in zip(endpoints["mac"].tolist(), single, strict=True)]
    vlans, vnis = endpoints["vlan"].tolist(), endpoints["vni"].tolist()
    answers = []
    for i, (ip, version, tags) in enumerate(
        zip(_packed(endpoints), endpoints["version"].tolist(), endpoints["tags"].tolist(), strict=True)
    ):
        text = _text(ip, version)
        vni = None if vnis[i] < 0 else vnis[i]
        asked = Asked(tuple(vlans[i][:tags]), vni, text, macs[i], monitored[i], _group(ip, version))
        answers.append(registry.who(asked, time_ns))
    return answers


def _packed(endpoints: NumpyArray) -> list[bytes]:
    octets = np.ascontiguousarray(endpoints["ip"]).tobytes()
    return [octets[at : at + 16] for at in range(0, len(octets), 16)]


def _group(ip: bytes, version: int) -> str | None:
    """What an address stands for if no single VM can have it (RFC 1112, RFC 919, RFC 4291)."""
    if version == 4:
        if ip[0] >> 4 == 14 or ip[:4] == b"\xff\xff\xff\xff":
            return MULTICAST
        return UNSPECIFIED if ip[:4] == b"\0\0\0\0" else None
    if version == 6:
        if ip[0] == 0xFF:
            return MULTICAST
        return UNSPECIFIED if not any(ip) else None
    return None


def forwards(endpoints: NumpyArray) -> npt.NDArray[np.bool_]:
    """Endpoints whose MAC address is no VM's own: none, or that of a router."""
    mac = np.zeros((len(endpoints), 8), np.uint8)
    mac[:, :6] = endpoints["mac"]
    number = mac.view(np.uint64).reshape(-1)
    _, of_mac, count = np.unique(number, return_inverse=True, return_counts=True)
    result: npt.NDArray[np.bool_] = (count[of_mac.reshape(-1)] > ROUTER_ADDRESSES) | (number == 0)
    return result


def inside(ip: NumpyArray, versions: NumpyArray, networks: Iterable[Network]) -> npt.NDArray[np.bool_]:
    """Which addresses (shape (n, 16), with their IP versions) are in one of the networks."""
    found = np.zeros(len(ip), bool)
    for network in networks:
        octets = 4 if network.version == 4 else 16
        mask = np.frombuffer(network.netmask.packed, np.uint8)
        wanted = np.frombuffer(network.network_address.packed, np.uint8)
        found |= ((ip[:, :octets] & mask) == wanted).all(axis=1) & (versions == network.version)
    return found


class End(NamedTuple):
    """An endpoint in words."""

    domain: Domain
    ip: str
    mac: str


def end_text(endpoint: Any) -> End:
    """The domain, address and MAC address of one row of ``endpoints``."""
    vni = int(endpoint["vni"])
    domain = domain_of(endpoint["vlan"][: endpoint["tags"]].tolist(), None if vni < 0 else vni)
    return End(domain, address(endpoint["ip"], int(endpoint["version"])), mac_text(endpoint["mac"].tolist()))


def having(endpoints: NumpyArray, ips: Collection[str]) -> list[int]:
    """Which of the endpoints have one of these addresses, in any domain."""
    packed = [ipaddress.ip_address(ip).packed.ljust(16, b"\0") for ip in ips]
    wanted = np.frombuffer(b"".join(packed), np.uint64).reshape(-1, 2)
    found = np.ascontiguousarray(endpoints["ip"]).view(np.uint64).reshape(-1, 2)
    result: list[int] = np.flatnonzero(np.isin(mix(found[:, 0], found[:, 1]), mix(wanted[:, 0], wanted[:, 1]))).tolist()
    return result


def address(octets: NumpyArray, version: int) -> str:
    """The text of an address as a record holds it."""
    return _text(octets.tobytes(), version)


def _text(packed: bytes, version: int) -> str:
    if version == 4:
        return "%d.%d.%d.%d" % tuple(packed[:4])  # noqa: UP031  (the fastest way, for thousands of addresses)
    return str(ipaddress.IPv6Address(packed))


def mac_text(octets: list[int]) -> str:
    """The text of a MAC address; empty for none."""
    return "%02x:%02x:%02x:%02x:%02x:%02x" % tuple(octets) if any(octets) else ""  # noqa: UP031


def _scope(
    client: npt.NDArray[np.bool_], server: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int8]:
    scope = np.full(len(client), UNKNOWN, np.int8)
    scope[client & server & same] = EAST_WEST
    scope[client & server & ~same] = INTER_TENANT
    scope[client != server] = NORTH_SOUTH
    return scope
