"""The network cards of single VMs in a window: where each is, with which addresses, and the base RTT around its VM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sensor import native
from sensor.grouping import group
from sensor.identity.domains import Domain
from sensor.identity.endpoints import address, end_text, octets_of
from sensor.identity.parties import OTHER
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
    parties, rtt = scene.parties, _rtt(scene)
    octets = octets_of(parties.endpoints)
    seen: dict[tuple[str, int], Seen] = {}
    for end, vm, vtep, last_ns in _last_seen(scene):
        domain, ip, mac, _, _ = end_text(octets[end])
        before = seen.get((mac, vm))
        addresses = before.addresses if before else ()
        if not ip.startswith("fe80:") and ip not in addresses:
            addresses = (*addresses, ip)
        seen[mac, vm] = Seen(mac, vm, domain, Place(domain.name, vtep), addresses, rtt.get(vm), last_ns)
    return list(seen.values())


def _last_seen(scene: Scene) -> Iterator[tuple[int, int, str | None, int]]:
    """Cards of single VMs that have sent: endpoint, VM, and each tunnel end it was behind; in order of last packets."""
    records, parties = scene.records, scene.parties
    is_vm = np.array([name not in NO_VM for name in parties.names], np.bool_)
    wanted = (parties.single & is_vm[parties.vm_of])[parties.end_of]
    sent = np.flatnonzero(wanted & (np.concatenate([records["c2s_packets"], records["s2c_packets"]]) > 0))
    record = sent % max(len(records), 1)
    version = np.where(np.isin(records["tunnel"], NO_HOSTS), 0, records["outer_ip_version"])[record]
    behind = np.flatnonzero(version)
    vteps = _outer(records, sent[behind])
    words = vteps.view(np.uint64)
    same_vtep = group(words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, 1])
    vtep = np.zeros(len(sent), np.int64)
    vtep[behind] = same_vtep.of_row + 1
    names = [None, *(address(vteps[i], int(version[behind[i]])) for i in same_vtep.first.tolist())]
    end = parties.end_of[sent].astype(np.int64)
    same = group(end * len(names) + vtep)
    last = same.max(records["end_ns"][record], np.ones(len(sent), np.bool_))
    order = np.argsort(last, kind="stable")
    row = same.first[order]
    told = (end[row], parties.vm_of[end[row]], vtep[row], last[order])
    for its_end, vm, its_vtep, last_ns in zip(*(column.tolist() for column in told), strict=True):
        yield its_end, vm, names[its_vtep], last_ns


def _outer(records: NumpyArray, rows: NumpyArray) -> NumpyArray:
    """The tunnel ends on the senders' side; rows from the number of records on are those that the server has sent."""
    src = rows < len(records)
    outer = np.empty((len(rows), 16), np.uint8)
    outer[src], outer[~src] = records["outer_src"][rows[src]], records["outer_dst"][rows[~src] - len(records)]
    return outer


def _rtt(scene: Scene) -> dict[int, float]:
    """Base RTT from the tap around each VM, in us: the shortest of the window, from data or from a handshake.

    The mean says little of the way: an ACK that its sender delays takes tens of milliseconds.
    """
    records, parties = scene.records, scene.parties
    least = np.full(len(parties.names), np.inf)
    for vm, direction, half in ((parties.server, "c2s", "server"), (parties.client, "s2c", "client")):
        sampled = records[f"{direction}_rtt_count"] > 0
        np.minimum.at(least, vm[sampled], records[f"{direction}_rtt_min_ns"][sampled].astype(np.float64))
        shaken = records[f"handshake_{half}_ns"] != native.ABSENT
        np.minimum.at(least, vm[shaken], records[f"handshake_{half}_ns"][shaken].astype(np.float64))
    known = np.flatnonzero(np.isfinite(least))
    return dict(zip(known.tolist(), (least[known] / 1e3).tolist(), strict=True))
