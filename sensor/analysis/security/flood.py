"""Floods of half-open connections, datagrams and echo requests, with their victim.

SYN floods are found per victim by a non-parametric CUSUM over the difference between connections begun and completed,
normalised by how many the victim usually completes: H. Wang, D. Zhang, K. Shin, *Detecting SYN Flooding Attacks*, IEEE
INFOCOM 2002. It sums up what exceeds the usual, so that it finds slow floods late rather than never, and forgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit
from sensor.identity.registry import EXTERNAL, MULTICAST, UNSPECIFIED
from sensor.native import NumpyArray
from sensor.protocols import ICMP, ICMP6, TCP, UDP, protocol_name
from sensor.services import service_name

LIMITS = (
    Limit("flood_syn_rate", 100, "per second", "Fewer half-open connections to a VM are no flood."),
    Limit("flood_syn_drift", 0.35, "ratio", "So much more begun than completed is usual: the CUSUM's a."),
    Limit("flood_syn_bound", 1.05, "ratio", "The sum of what exceeds that, at which it is a flood: the CUSUM's N."),
    Limit("flood_udp_rate", 10_000, "per second", "Fewer datagrams to a VM are no flood."),
    Limit("flood_udp_flows", 100, "count", "Datagrams of fewer flows are a stream, not a flood, whatever their rate."),
    Limit("flood_icmp_rate", 1_000, "per second", "Fewer echo requests to a VM are no flood."),
    Limit("flood_answered", 0.1, "ratio", "A VM that answers more than this part of the packets is not flooded."),
)

MOST_VICTIMS = 10_000
"""VMs whose usual is remembered; those that were remembered first are forgotten, and counted."""

ONE_SOURCE = 0.8
"""A source that sends more than this part is named; else there are many."""

MANY = "many sources"
NO_VICTIM = (EXTERNAL, MULTICAST, UNSPECIFIED, "other")
SMOOTHING = 0.2

_HALF_OPEN = [native.STATES.index(state) for state in ("syn_sent", "syn_received")]
_COMPLETED = [native.STATES.index(state) for state in ("established", "fin_wait", "closed")]
_SYN = native.ROLES.index("syn")

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass
class _Usual:
    """What a VM usually completes in a window, and the CUSUM of what it does not."""

    completed: float = 0.0
    sum: float = 0.0


class FloodDetector:
    """Tells VMs that are sent far more than they can answer."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self._limits = limits
        self._usual: dict[tuple[str, str], _Usual] = {}

    def look(self, scene: Scene) -> Iterator[Finding]:
        """The VMs that are flooded in this window."""
        yield from self._syn(scene)
        records = scene.records
        udp = records["protocol"] == UDP
        echo = ((records["protocol"] == ICMP) & (records["client_port"] == 8)) | (
            (records["protocol"] == ICMP6) & (records["client_port"] == 128)
        )
        yield from self._packets(scene, "udp_flood", udp, self._limits["flood_udp_rate"], True)
        yield from self._packets(scene, "icmp_flood", echo, self._limits["flood_icmp_rate"], False)

    def _syn(self, scene: Scene) -> Iterator[Finding]:
        records, size = scene.records, len(scene.parties.names)
        tcp = (records["protocol"] == TCP) & (records["flags"] & native.OVERFLOW == 0)
        begun = tcp & (records["flags"] & native.NEW != 0) & (records["role_source"] == _SYN)
        half_open = begun & np.isin(records["tcp_state"], _HALF_OPEN)
        completed = begun & np.isin(records["tcp_state"], _COMPLETED)
        server = scene.parties.server
        open_of, done_of = (np.bincount(server[mask], minlength=size) for mask in (half_open, completed))
        least = self._limits["flood_syn_rate"] * scene.seconds
        for vm in np.flatnonzero(open_of + done_of).tolist():
            name = scene.parties.names[vm]
            if name in NO_VICTIM:
                continue
            usual = self._usual_of((scene.parties.tenants[vm], name))
            alarmed = self._cusum(usual, int(open_of[vm]), int(done_of[vm]), least)
            if alarmed and open_of[vm] >= least:
                yield self._flooded(scene, "syn_flood", half_open & (server == vm), vm, {"half_open": int(open_of[vm]),
                                    "completed": int(done_of[vm])})  # fmt: skip

    def _cusum(self, usual: _Usual, half_open: int, completed: int, least: float) -> bool:
        """Take a window in; True while the sum is above the bound. What is usual is learnt outside of floods."""
        excess = half_open / max(usual.completed, least)
        usual.sum = max(0.0, usual.sum + excess - self._limits["flood_syn_drift"])
        usual.sum = min(usual.sum, 3 * self._limits["flood_syn_bound"])
        alarmed = usual.sum > self._limits["flood_syn_bound"] or excess > 1 + self._limits["flood_syn_drift"]
        if not alarmed:
            usual.completed += SMOOTHING * (completed - usual.completed)
        return alarmed

    def _usual_of(self, key: tuple[str, str]) -> _Usual:
        if key not in self._usual and len(self._usual) >= MOST_VICTIMS:
            del self._usual[next(iter(self._usual))]
            self.forgotten += 1
        return self._usual.setdefault(key, _Usual())

    def _packets(self, scene: Scene, kind: str, chosen: Mask, rate: float, many: bool) -> Iterator[Finding]:
        records, size, server = scene.records, len(scene.parties.names), scene.parties.server
        chosen = chosen & (records["flags"] & native.OVERFLOW == 0)
        sent = np.bincount(server[chosen], records["c2s_packets"][chosen], size)
        back = np.bincount(server[chosen], records["s2c_packets"][chosen], size)
        flows = np.bincount(server[chosen & (records["c2s_packets"] > 0)], minlength=size)
        flooded = (sent >= rate * scene.seconds) & (back <= self._limits["flood_answered"] * sent)
        if many:
            flooded &= flows >= self._limits["flood_udp_flows"]
        for vm in np.flatnonzero(flooded).tolist():
            if scene.parties.names[vm] not in NO_VICTIM:
                counts = {"packets": int(sent[vm]), "answers": int(back[vm]), "flows": int(flows[vm])}
                yield self._flooded(scene, kind, chosen & (server == vm), vm, counts)

    def _flooded(self, scene: Scene, kind: str, mask: Mask, vm: int, counts: dict[str, int]) -> Finding:
        rows = np.flatnonzero(mask)
        subject, share = _main_source(scene, rows)
        victim = scene.parties.names[vm]
        what = f"{victim}:{_main_service(scene.records[rows])}" if kind == "syn_flood" else victim
        said = ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in counts.items())
        detail = f"{said} in {scene.seconds:g} s, {share:.0%} from {subject}" if subject != MANY else (
            f"{said} in {scene.seconds:g} s, from {len(rows):,} flows of many sources"
        )  # fmt: skip
        return Finding(kind, "critical", scene.parties.tenants[vm], subject, what, detail, counts)


def _main_source(scene: Scene, rows: Ints) -> tuple[str, float]:
    """Who sends most of it, by name or outside address, with its part; or that there are many."""
    records = scene.records[rows]
    words = np.ascontiguousarray(records["client_ip"]).view(np.uint64).reshape(-1, 2)
    _, first, of_row = np.unique(words, axis=0, return_index=True, return_inverse=True)
    weight = np.bincount(of_row.reshape(-1), records["c2s_packets"])
    most = int(weight.argmax())
    share = float(weight[most] / max(weight.sum(), 1))
    return (scene.client(int(rows[first[most]])), share) if share > ONE_SOURCE else (MANY, share)


def _main_service(records: NumpyArray) -> str:
    ports, count = np.unique(records["server_port"], return_counts=True)
    return service_name(protocol_name(TCP), int(ports[count.argmax()]))
