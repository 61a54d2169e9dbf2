"""A window's snapshot as the report that sinks write: every measurement, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sensor.analysis.findings import Scene
from sensor.analysis.fold import dependency_within, event_within
from sensor.analysis.groups import DIRECTIONS, with_traffic
from sensor.analysis.observer import Observer
from sensor.analysis.outside import Naming
from sensor.analysis.series import SeriesBudget
from sensor.analysis.traffic import vm_traffic
from sensor.analysis.trust import confidence, ratio, sides, trust_parts, untold_segments
from sensor.columns import by_column
from sensor.config import DEFAULT_SERIES
from sensor.flows import flow_object
from sensor.health import Health
from sensor.identity.heard import Heard
from sensor.identity.learned import Card, SwitchPort
from sensor.identity.parties import Parties, resolve
from sensor.identity.registry import Registry
from sensor.metrics import FLOW_TOP, SENSOR
from sensor.native import OVERFLOW, NumpyArray
from sensor.snapshot import Snapshot
from sensor.window import Column, Labels, Report, Table

if TYPE_CHECKING:
    from sensor.identity.wire import Reader

TOP_FLOWS = 10
Value = int | float | str | None


class Reporter:
    """Makes reports in the name of one sensor, a window after the other: who that was, how much, and what it means."""

    def __init__(
        self,
        sensor: str,
        interface: str,
        registry: Registry,
        observer: Observer | None = None,
        health: Health | None = None,
        budget: SeriesBudget | None = None,
        naming: Naming | None = None,
    ) -> None:
        self.sensor = sensor
        self.interface = interface
        self._registry = registry
        self._observer = observer
        self._health = health or Health()
        self._naming = naming
        self._budget = budget or SeriesBudget(DEFAULT_SERIES)
        self._reader: Reader | None = None

    def report(self, snapshot: Snapshot) -> Report:
        """All points of a window."""
        snapshot = replace(snapshot, records=by_column(snapshot.records))
        heard, unreadable = self._read(snapshot)
        self._registry.learned.hear(heard)
        self._registry.refresh()
        parties = resolve(snapshot.records, self._registry)
        self._budget.begin(snapshot.start_ns)
        tables = [
            vm_traffic(snapshot, parties, self.sensor, self._budget, self._naming),
            flow_top(snapshot, parties, self.sensor),
        ]
        if self._observer:
            inventory = self._registry.inventory
            scene = Scene(
                snapshot.start_ns, snapshot.end_ns, snapshot.records, parties, heard, inventory, snapshot.presence
            )
            for seen in scene.cards:
                card = Card(seen.place.domain, seen.mac)
                self._registry.learned.see(card, seen.addresses, seen.place.vtep, seen.last_ns)
            dependency, event = self._observer.observe(snapshot, scene, self.sensor)
            tables += [dependency_within(self._budget, dependency), event_within(self._budget, event)]
        tables.insert(2, self._sensor_table(snapshot, unreadable))
        return Report(
            snapshot.start_ns,
            snapshot.end_ns,
            snapshot.start_ns + snapshot.revision,
            [table for table in tables if table.rows],
            snapshot.partial,
        )

    def _sensor_table(self, snapshot: Snapshot, unreadable: int) -> Table:
        own = {
            "notices_unreadable": unreadable,
            "series": self._budget.used,
            "series_folded": self._budget.folded,
            "folded_bytes": self._budget.folded_octets,
            **_fed_from(self._registry.learned.switches),
            **self._health.since_last(),
        }
        return sensor_table(snapshot, self.sensor, self.interface, own)

    def _read(self, snapshot: Snapshot) -> tuple[list[Heard], int]:
        """What the window's packets said of names, and how many of them could not be read."""
        if snapshot.notices is None or not len(snapshot.notices):
            return [], 0
        if self._reader is None:
            from sensor.identity.wire import Reader  # here, because dpkt takes time to load

            self._reader = Reader()
        before = self._reader.unreadable
        return self._reader.read(snapshot.notices), self._reader.unreadable - before


def flow_top(snapshot: Snapshot, parties: Parties, sensor: str, most: int = TOP_FLOWS) -> Table:
    """The flows with most octets, as fields: a five-tuple never becomes a tag."""
    octets = (snapshot.records["c2s_bytes"] + snapshot.records["s2c_bytes"]).astype(np.int64)
    octets[snapshot.records["flags"] & OVERFLOW != 0] = 0
    least = np.partition(octets, -most)[-most] if len(octets) > most else 0
    heavy = np.flatnonzero((octets >= least) & (octets > 0))
    top = heavy[np.argsort(-octets[heavy], kind="stable")][:most].tolist()
    flows = [flow_object(snapshot.records[i], parties, i) for i in top]
    fields = {}
    for metric in FLOW_TOP:
        values = [flow[metric.name] for flow in flows]
        if metric.unit or metric.name.endswith("_port"):
            valid = np.array([value is not None for value in values], bool)
            fields[metric.name] = Column(np.array([value or 0 for value in values], np.int64), valid)
        else:
            fields[metric.name] = Column(np.array(values, object))
    tags = {"sensor": Labels.constant(sensor, len(top)), "rank": Labels.of(str(i + 1) for i in range(len(top)))}
    return Table("flow_top", len(top), tags, fields)


def sensor_table(snapshot: Snapshot, sensor: str, interface: str, own: Mapping[str, Value]) -> Table:
    """What the sensor itself did in the window; also when no packet came. ``own`` is what no packet tells."""
    counters = snapshot.counters
    values: dict[str, Value] = {
        "received": counters.received,
        "dropped_kernel": counters.dropped_kernel,
        "dropped_nic": counters.dropped_nic,
        "ip_bytes": counters.ip_bytes,
        "flows": int(with_traffic(snapshot.records).sum()),
        "mirror_duplicate_ratio": (
            counters.fates["mirror_duplicate"] / counters.received if counters.received else None
        ),
        **_trust(snapshot.records),
        **{f"fate_{name}": count for name, count in counters.fates.items()},
        "windows_lost": 0,
        "flow_records_lost": 0,
        **counters.notes,
        **own,
    }
    fields = {metric.name: _single(values[metric.name], metric.unit in ("ratio", "s")) for metric in SENSOR}
    return Table("sensor", 1, {"sensor": Labels.of([sensor]), "interface": Labels.of([interface])}, fields)


def _trust(records: NumpyArray) -> dict[str, int | float | None]:
    """What the window's figures rest on, over all flows."""
    parts = {name: rows.sum(keepdims=True) for name, rows in trust_parts(records).items()}
    told = sides(records)
    one_sided, tcp = int(told.one.sum()), int((told.one | told.both).sum())
    ratios = {
        "unseen_ratio": ratio(parts["unseen"], parts["payload"] + parts["unseen"]),
        "one_sided_ratio": ratio(np.array([one_sided]), np.array([tcp])),
        "confidence": confidence(parts),
    }
    return {
        "unseen_bytes": int(parts["unseen"][0]),
        "one_sided_flows": one_sided,
        "rtt_count": int(sum(int(records[f"{direction}_rtt_count"].sum()) for direction in DIRECTIONS)),
        "untold_segments": int(untold_segments(parts)[0]),
        **{name: None if np.isnan(value[0]) else float(value[0]) for name, value in ratios.items()},
    }


def _fed_from(switches: Mapping[SwitchPort, int]) -> dict[str, str | None]:
    """The switch port that was heard last."""
    last = max(switches, key=lambda place: switches[place], default=None)
    return {"mirror_switch": last.switch if last else None, "mirror_port": last.port if last else None}


def _single(value: int | float | str | None, is_float: bool) -> Column:
    if isinstance(value, str):
        return Column(np.array([value], object))
    valid = np.array([value is not None])
    return Column(np.array([value or 0], np.float64 if is_float else np.int64), valid)
