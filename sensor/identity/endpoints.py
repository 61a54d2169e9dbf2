"""The ends of a window's flows: which different ones there are, and each of them in words."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.grouping import group
from sensor.identity.domains import Domain, domain_of
from sensor.keys import mix
from sensor.native import NumpyArray

ROUTER_ADDRESSES = 8
"""A MAC address with more source addresses than this in a window forwards for others."""

ENDPOINT = np.dtype(
    [("ip", "u1", (16,)), ("version", "u1"), ("tags", "u1"), ("vlan", "u2", (4,)), ("vni", "i8"), ("mac", "u1", (6,))]
)
_ROW = struct.Struct("=16s2B4Hq6s")
"""The same, of one endpoint."""


def distinct(records: NumpyArray) -> tuple[NumpyArray, npt.NDArray[np.intp]]:
    """The different ends of flows in a fixed order, and for each client, then each server, which of them it is."""
    hashes = np.concatenate([_hash(records, "client"), _hash(records, "server")])
    same = group(hashes)
    first = same.first
    endpoints = np.zeros(len(first), ENDPOINT)
    for side, of_side in (("client", first < len(records)), ("server", first >= len(records))):
        _fill(endpoints, of_side, records[first[of_side] % max(len(records), 1)], side)
    order = np.argsort(_as_octets(endpoints), kind="stable")
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    return endpoints[order], place[same.of_row]


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


def _as_octets(rows: NumpyArray) -> NumpyArray:
    return np.ascontiguousarray(rows).view(f"V{rows.itemsize}")


def octets_of(rows: NumpyArray) -> list[bytes]:
    """Each row of a structured array as it is in memory, to be looked up by."""
    result: list[bytes] = _as_octets(rows).tolist()
    return result


def forwards(endpoints: NumpyArray) -> npt.NDArray[np.bool_]:
    """Endpoints whose MAC address is no VM's own: none, or that of a router."""
    mac = np.zeros((len(endpoints), 8), np.uint8)
    mac[:, :6] = endpoints["mac"]
    number = mac.view(np.uint64).reshape(-1)
    _, of_mac, count = np.unique(number, return_inverse=True, return_counts=True)
    result: npt.NDArray[np.bool_] = (count[of_mac.reshape(-1)] > ROUTER_ADDRESSES) | (number == 0)
    return result


def having(endpoints: NumpyArray, ips: Collection[str]) -> list[int]:
    """Which of the endpoints have one of these addresses, in any domain."""
    packed = [ipaddress.ip_address(ip).packed.ljust(16, b"\0") for ip in ips]
    wanted = np.frombuffer(b"".join(packed), np.uint64).reshape(-1, 2)
    found = np.ascontiguousarray(endpoints["ip"]).view(np.uint64).reshape(-1, 2)
    result: list[int] = np.flatnonzero(np.isin(mix(found[:, 0], found[:, 1]), mix(wanted[:, 0], wanted[:, 1]))).tolist()
    return result


# ---- in words


class End(NamedTuple):
    """An endpoint in words: its domain, address and MAC address, and the tags and the VNI that make the domain."""

    domain: Domain
    ip: str
    mac: str
    vlan: tuple[int, ...]
    vni: int | None


@lru_cache(maxsize=2**16)  # the ends of one window are those of the next; some 30 MB at most
def end_text(row: bytes) -> End:
    """The octets of one row of ``endpoints`` in words."""
    ip, version, tags, *vlan, vni, mac = _ROW.unpack(row)
    outer, number = tuple(vlan[:tags]), None if vni < 0 else vni
    return End(domain_of(outer, number), _text(ip, version), mac_text(list(mac)), outer, number)


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
