"""The network cards of single VMs in a window: where each is, with which addresses, and the base RTT around its VM."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor import native
from sensor.identity.domains import Domain
from sensor.identity.parties import OTHER, address, end_text, forwards
from sensor.identity.registry import EXTERNAL, MULTICAST, UNSPECIFIED
from sensor.native import NumpyArray

if TYPE_CHECKING:
    from sensor.analysis.findings import Scene

NO_VM = (EXTERNAL, MULTICAST, UNSPECIFIED, OTHER)

NO_HOSTS = tuple(native.TUNNELS.index(kind) for kind in ("none", "erspan"))
"""Tunnels whose ends are no hosts of VMs: ERSPAN ends at the monitoring host."""


class Place(NamedTuple):
    """A domain's name, and the address of a tunnel end or None."""

    domain: str
    vtep: str | None

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.domain} behind {self.vtep}" if self.vtep else self.domain


class Seen(NamedTuple):
    """A card in a window."""

    mac: str
    vm: int
    domain: Domain
    place: Place
    addresses: tuple[str, ...]
    rtt_us: float | None
    last_ns: int
    """Last packet of a flow that it has sent in."""


def cards_of(scene: Scene) -> list[Seen]:
    """The cards of single VMs that have sent something, where they are, and the base RTT around them.

    A card that was seen in two places is where it was seen last; one in two domains at the same time forwards between
    them, and is left out like routers and what is no VM.
    """
    parties, found = scene.parties, _last_seen(scene)
    endpoints = parties.endpoints
    single = ~forwards(endpoints)
    rtt = _rtt(scene)
    seen: dict[tuple[str, int], Seen] = {}
    for end, vtep, last_ns in found:
        vm = int(parties.vm_of[end])
        if not single[end] or parties.names[vm] in NO_VM:
            continue
        domain, ip, mac = end_text(endpoints[end])
        before = seen[mac, vm].addresses if (mac, vm) in seen else ()
        more = () if ip.startswith("fe80:") or ip in before else (ip,)
        seen[mac, vm] = Seen(mac, vm, domain, Place(domain.name, vtep), (*before, *more), rtt.get(vm), last_ns)
    return list(seen.values())


def _last_seen(scene: Scene) -> list[tuple[int, str | None, int]]:
    """Each sender (index of its endpoint) with each tunnel end it was behind, in the order of their last packets."""
    records, end_of = scene.records, scene.parties.end_of
    tunnelled = np.where(np.isin(records["tunnel"], NO_HOSTS), 0, records["outer_ip_version"])
    outer = np.concatenate([records["outer_src"], records["outer_dst"]])
    outer[np.tile(tunnelled == 0, 2)] = 0
    sent = np.flatnonzero(np.concatenate([records["c2s_packets"], records["s2c_packets"]]) > 0)
    words = np.ascontiguousarray(outer[sent]).view(np.uint64).reshape(-1, 2)
    _, vtep = np.unique(words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, 1], return_inverse=True)
    key = end_of[sent].astype(np.int64) * (len(sent) + 1) + vtep.reshape(-1)
    unique, first, group = np.unique(key, return_index=True, return_inverse=True)
    last = np.zeros(len(unique), np.int64)
    np.maximum.at(last, group.reshape(-1), np.tile(records["end_ns"], 2)[sent])
    order = np.argsort(last, kind="stable")
    return [
        (int(end_of[row]), _vtep(outer[row], int(tunnelled[row % len(records)])), last_ns)
        for row, last_ns in zip(sent[first[order]].tolist(), last[order].tolist(), strict=True)
    ]


def _vtep(octets: NumpyArray, version: int) -> str | None:
    return address(octets, version) if version else None


def _rtt(scene: Scene) -> dict[int, float]:
    """Base RTT from the tap around each VM, in us: the shortest of the window, from data or from a handshake.

    The mean says little of the way: an ACK that its sender delays takes tens of milliseconds.
    """
    records, parties = scene.records, scene.parties
    least = np.full(len(parties.names), np.inf)
    for vm, direction, half in ((parties.server, "c2s", "server"), (parties.client, "s2c", "client")):
        sampled = records[f"{direction}_rtt_count"] > 0
        np.minimum.at(least, vm[sampled], records[f"{direction}_rtt_min_ns"][sampled])
        shaken = records[f"handshake_{half}_ns"] != native.ABSENT
        np.minimum.at(least, vm[shaken], records[f"handshake_{half}_ns"][shaken])
    return {int(vm): float(least[vm] / 1e3) for vm in np.flatnonzero(np.isfinite(least))}
