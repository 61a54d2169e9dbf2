"""What looks at one window after the other: the life of VMs, dependencies, security. Makes `event` and `dependency`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensor.analysis.dependencies import dependency_edges
from sensor.analysis.edges import EdgeBook
from sensor.analysis.eventbook import Event, EventBook
from sensor.analysis.findings import Detector, Scene
from sensor.analysis.lifecycle import LifeWatch
from sensor.analysis.movement import MovementWatch
from sensor.analysis.security.bruteforce import BruteForceDetector
from sensor.analysis.security.cards import CardDetector
from sensor.analysis.security.flood import FloodDetector
from sensor.analysis.security.scan import ScanDetector
from sensor.analysis.security.spoof import SpoofDetector
from sensor.snapshot import Snapshot
from sensor.window import Column, Labels, Table


class Observer:
    """All detectors of a sensor, and the books in which their findings become events and edges.

    ``more`` are those that need more than thresholds: a policy, a list.
    """

    def __init__(self, limits: Mapping[str, float], more: Sequence[Detector] = ()) -> None:
        self._limits = limits
        self._lives = LifeWatch(limits)
        self._movement = MovementWatch(limits)
        self._edges = EdgeBook(limits)
        self._events = EventBook(limits)
        self._detectors: list[Detector] = [
            self._lives, self._movement, ScanDetector(limits), FloodDetector(limits), BruteForceDetector(limits),
            SpoofDetector(limits), CardDetector(limits), *more,
        ]  # fmt: skip

    def observe(self, snapshot: Snapshot, scene: Scene, sensor: str) -> list[Table]:
        """What a window shows, as tables."""
        edges = dependency_edges(snapshot, scene.parties)
        known = self._edges.add(edges, scene.start_ns, scene.end_ns, sensor)
        findings = [*known.findings, *(finding for detector in self._detectors for finding in detector.look(scene))]
        if snapshot.partial:
            findings += self._movement.flush()
        events = self._events.take(findings, scene.start_ns, scene.end_ns)
        return [known.table, event_table(events, sensor)]

    def to_json(self) -> dict[str, Any]:
        """What has to be kept over restarts."""
        return {"lives": self._lives.to_json(), "edges": self._edges.to_json()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what ``to_json`` gave; ValueError, TypeError or KeyError when it is something else."""
        edges = EdgeBook.from_json(self._limits, kept["edges"])
        self._lives.restore(kept["lives"])
        self._edges = edges


def event_table(events: Sequence[Event], sensor: str) -> Table:
    """Measurement ``event``. Events of one window may have the same tags, so that each has a time of its own."""
    tags = {
        "sensor": Labels.constant(sensor, len(events)),
        "kind": Labels.of(event.kind for event in events),
        "severity": Labels.of(str(event.severity) for event in events),
        "tenant": Labels.of(event.tenant for event in events),
    }
    texts = {name: [getattr(event, name) for event in events] for name in ("subject", "object", "state", "detail")}
    texts["evidence"] = [" ".join(f"{name}={count}" for name, count in event.evidence.items()) for event in events]
    numbers = {name: [getattr(event, name) for event in events] for name in ("count", "first_ns", "last_ns")}
    fields = {
        **{name: Column(np.array(values, object)) for name, values in texts.items()},
        **{name: Column(np.array(values, np.int64)) for name, values in numbers.items()},
    }
    return Table("event", len(events), tags, fields, offsets=list(range(len(events))))
