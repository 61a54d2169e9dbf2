"""The life of VMs: appeared, silent, returned, terminated. A VM lives while it sends, not by being asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor.analysis.cards import NO_VM, Seen
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit, in_ns
from sensor.identity.vendors import hypervisor_of

MOST_VMS = 100_000
"""VMs followed; of more, those that were heard least lately are forgotten, and counted."""


LIMITS = (
    Limit("vm_learning", 300, "seconds", "A sensor that knows no VM yet calls none of them new for so long."),
    Limit("vm_silence", 300, "seconds", "A VM that has sent nothing for so long is silent."),
    Limit("vm_terminated", 3600, "seconds", "A VM that has sent nothing for so long is taken for terminated."),
)


@dataclass
class _Life:
    first_ns: int
    last_ns: int
    silent: bool = False


class LifeWatch:
    """A detector of what becomes of VMs, by tenant and name."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self._limits = limits
        self._lives: dict[tuple[str, str], _Life] = {}
        self._since_ns: int | None = None

    def look(self, scene: Scene) -> Iterable[Finding]:
        """What this window shows."""
        if self._since_ns is None:
            self._since_ns = scene.start_ns
        learning = scene.end_ns - self._since_ns <= in_ns(self._limits, "vm_learning")
        return [*self._heard(scene, learning), *self._missed(scene.end_ns)]

    def _heard(self, scene: Scene, learning: bool) -> Iterator[Finding]:
        cards = {} if learning else {seen.vm: seen for seen in scene.cards}
        for vm, last_ns in senders(scene):
            key = tenant, name = scene.parties.tenants[vm], scene.parties.names[vm]
            life = self._lives.pop(key, None)
            if life is None:
                self._make_room()
                life = _Life(last_ns, last_ns)
                if not learning:
                    yield _said("vm_appeared", tenant, name, _first_packets(cards.get(vm)), last_ns)
            elif life.silent:
                away = (last_ns - life.last_ns) / 1e9
                yield _said("vm_returned", tenant, name, f"sends again after {away:.0f} s at most", last_ns)
            life.silent, life.last_ns = False, max(life.last_ns, last_ns)
            self._lives[key] = life  # at the end: the order is that of when they were last heard

    def _missed(self, now_ns: int) -> Iterator[Finding]:
        """Those that are silent for too long are at the beginning: the rest need not be looked at."""
        gone = []
        silence_ns, terminated_ns = in_ns(self._limits, "vm_silence"), in_ns(self._limits, "vm_terminated")
        for (tenant, name), life in self._lives.items():
            quiet_ns = now_ns - life.last_ns
            if quiet_ns < silence_ns:
                break
            if not life.silent:
                life.silent = True
                yield _said("vm_silent", tenant, name, f"has sent nothing for {quiet_ns / 1e9:.0f} s", life.last_ns)
            if quiet_ns >= terminated_ns:
                gone.append((tenant, name))
                yield _said("vm_terminated", tenant, name, f"has sent nothing for {quiet_ns / 1e9:.0f} s", life.last_ns)
        for key in gone:
            del self._lives[key]

    def _make_room(self) -> None:
        while len(self._lives) >= MOST_VMS:
            del self._lives[next(iter(self._lives))]
            self.forgotten += 1

    def to_json(self) -> dict[str, Any]:
        """What has to be kept over restarts."""
        return {
            "since_ns": self._since_ns,
            "vms": [[*key, life.first_ns, life.last_ns, life.silent] for key, life in self._lives.items()],
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what ``to_json`` gave; ValueError, TypeError or KeyError when it is something else."""
        lives = {
            (str(tenant), str(name)): _Life(int(first_ns), int(last_ns), bool(silent))
            for tenant, name, first_ns, last_ns, silent in kept["vms"][-MOST_VMS:]
        }
        self._since_ns = None if kept["since_ns"] is None else int(kept["since_ns"])
        self._lives = lives


def _first_packets(seen: Seen | None) -> str:
    """From which card, made by which hypervisor, and where."""
    if seen is None:
        return "sends its first packets"
    made = hypervisor_of(seen.mac)
    return f"sends its first packets, from {seen.mac}{f' ({made})' if made else ''} in {seen.place.text}"


def _said(kind: str, tenant: str, name: str, detail: str, time_ns: int) -> Finding:
    return Finding(kind, "info", tenant, name, detail=detail, time_ns=time_ns, once=True)


def senders(scene: Scene) -> list[tuple[int, int]]:
    """VMs (indices into the parties' names) that have sent something in the window, and when they did last."""
    records, parties = scene.records, scene.parties
    last: npt.NDArray[np.int64] = np.full(len(parties.names), -1, np.int64)
    for vm, direction in ((parties.client, "c2s"), (parties.server, "s2c")):
        sent = records[f"{direction}_packets"] > 0
        np.maximum.at(last, vm[sent], records["end_ns"][sent])
    names, sent_ns = parties.names, last.tolist()
    found = [vm for vm in np.flatnonzero(last >= 0).tolist() if names[vm] not in NO_VM]
    return [(vm, last_ns) for last_ns, _, vm in sorted((sent_ns[vm], names[vm], vm) for vm in found)]
