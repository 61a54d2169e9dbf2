"""Who took part in a window's flows: VM, tenant and scope, resolved once for each address rather than for each flow.

A VM is named by its address. Its tenant is its domain: ``vni5003``, ``vlan10``, ``vlan10.20``, or ``default``.
Addresses outside the monitored prefixes are all one VM, ``external``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.config import Network
from sensor.native import NumpyArray

EXTERNAL = "external"
OTHER = "other"
DEFAULT_TENANT = "default"
SCOPES = ("unknown", "east-west", "north-south", "inter-tenant")
UNKNOWN, EAST_WEST, NORTH_SOUTH, INTER_TENANT = range(4)

_ENDPOINT = np.dtype([("ip", "u1", (16,)), ("version", "u1"), ("tags", "u1"), ("vlan", "u2", (4,)), ("vni", "i8")])


@dataclass(frozen=True)
class Parties:
    """The VMs of a window. ``client`` and ``server`` give each record's VM as an index into ``names``."""

    names: list[str]
    tenants: list[str]
    client: npt.NDArray[np.intp]
    server: npt.NDArray[np.intp]
    scope: npt.NDArray[np.int8]


def resolve(records: NumpyArray, monitored: tuple[Network, ...]) -> Parties:
    """Names, tenants and scopes for records of dtype ``RECORD``."""
    endpoints = np.concatenate([_endpoints(records, "client"), _endpoints(records, "server")])
    packed = np.ascontiguousarray(endpoints).view(f"V{_ENDPOINT.itemsize}")
    unique, inverse = np.unique(packed, return_inverse=True)
    unique = unique.view(_ENDPOINT)
    internal = _inside(unique, monitored)
    names, tenants, vm_of = _name(unique, internal)
    vm = vm_of[inverse.reshape(-1)]
    overflow = (records["flags"] & native.OVERFLOW) != 0
    client, server = vm[: len(records)].copy(), vm[len(records) :].copy()
    client[overflow] = server[overflow] = len(names)
    known = np.append(np.array([tenant != EXTERNAL for tenant in tenants], dtype=bool), False)
    tenant_of = np.append(np.unique(np.array(tenants, dtype=object), return_inverse=True)[1], -1)
    scope = _scope(known[client], known[server], tenant_of[client] == tenant_of[server])
    scope[overflow] = UNKNOWN
    return Parties([*names, OTHER], [*tenants, OTHER], client, server, scope)


def _endpoints(records: NumpyArray, side: str) -> NumpyArray:
    endpoints = np.zeros(len(records), _ENDPOINT)
    endpoints["ip"] = records[f"{side}_ip"]
    endpoints["version"] = records["ip_version"]
    endpoints["tags"] = records["vlan_count"]
    endpoints["vlan"] = records["vlan"]
    endpoints["vni"] = np.where(records["flags"] & native.HAS_VNI, records["vni"].astype(np.int64), -1)
    # A VNI is the tenant's network by itself; the tags beside it belong to one site or another.
    for name in ("tags", "vlan"):
        endpoints[name][endpoints["vni"] >= 0] = 0
    return endpoints


def _inside(endpoints: NumpyArray, networks: tuple[Network, ...]) -> npt.NDArray[np.bool_]:
    inside = np.zeros(len(endpoints), bool)
    for network in networks:
        octets = 4 if network.version == 4 else 16
        mask = np.frombuffer(network.netmask.packed, np.uint8)
        wanted = np.frombuffer(network.network_address.packed, np.uint8)
        match = ((endpoints["ip"][:, :octets] & mask) == wanted).all(axis=1)
        inside |= match & (endpoints["version"] == network.version)
    return inside


def _name(endpoints: NumpyArray, internal: npt.NDArray[np.bool_]) -> tuple[list[str], list[str], npt.NDArray[np.intp]]:
    """Names and tenants of VMs, and for each endpoint which of them it is."""
    names, tenants = [EXTERNAL], [EXTERNAL]
    vm_of = np.zeros(len(endpoints), np.intp)
    for i in np.flatnonzero(internal):
        endpoint = endpoints[i]
        vm_of[i] = len(names)
        names.append(address(endpoint["ip"], int(endpoint["version"])))
        tenants.append(tenant(int(endpoint["vni"]), endpoint["vlan"][: endpoint["tags"]].tolist()))
    return names, tenants, vm_of


def address(octets: NumpyArray, version: int) -> str:
    """The text of an address as a record holds it."""
    packed = octets.tobytes()
    return str(ipaddress.IPv4Address(packed[:4])) if version == 4 else str(ipaddress.IPv6Address(packed))


def tenant(vni: int, vlan: list[int]) -> str:
    """The name of a domain; ``vni`` is -1 where there is none. VLAN 0 is a priority tag, not a VLAN (802.1Q)."""
    if vni >= 0:
        return f"vni{vni}"
    ids = [str(tag) for tag in vlan if tag]
    return "vlan" + ".".join(ids) if ids else DEFAULT_TENANT


def _scope(
    client: npt.NDArray[np.bool_], server: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int8]:
    scope = np.full(len(client), UNKNOWN, np.int8)
    scope[client & server & same] = EAST_WEST
    scope[client & server & ~same] = INTER_TENANT
    scope[client != server] = NORTH_SOUTH
    return scope
