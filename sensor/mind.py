"""What a sensor knows from window to window, and over restarts: its registry of VMs and its observer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sensor.analysis.findings import Detector
from sensor.analysis.limits import limits_with
from sensor.analysis.observer import Observer
from sensor.analysis.outside import load_naming
from sensor.analysis.policy.detector import PolicyDetector
from sensor.analysis.policy.policyfile import load_policy
from sensor.analysis.policy.rules import Policy
from sensor.analysis.report import Reporter
from sensor.analysis.security.badnets import BadNetworkDetector, load_networks
from sensor.analysis.series import SeriesBudget
from sensor.config import LIMITS_KEY, Settings, limits_from, load_file
from sensor.health import Health
from sensor.identity.inventory import Inventory, InventorySource
from sensor.identity.inventoryfile import load_inventory
from sensor.identity.learned import Learned
from sensor.identity.registry import Registry
from sensor.memory import Memory
from sensor.snapshot import Snapshot
from sensor.watch import Fixed, Source, WatchedFile
from sensor.window import Report

SAVE_EVERY_NS = 300 * 10**9
"""In the time of the windows."""

log = logging.getLogger(__name__)


class Mind:
    """Made from the settings. Raises what is wrong with an inventory, a policy or a list. ``more``: detectors."""

    def __init__(
        self, settings: Settings, interface: str, more: Sequence[Detector] = (), health: Health | None = None
    ) -> None:
        source = watched(settings.inventory)
        listed = _listed(settings, source)
        self._thresholds = _watched_limits(settings)
        self._watched = (source, self._thresholds, *(detector.source for detector in listed))
        self._limits = limits_with(settings.limits)
        """The detectors' own: a change here is one there."""
        self._budget = SeriesBudget(settings.series_budget)
        self.observer = Observer(self._limits, [*listed, *more])
        self.is_kept = settings.memory is not None
        self._memory = Memory(settings.memory)
        self._saved_ns: int | None = None
        self.registry = Registry(settings.monitored, source, self._recall())
        self.reporter = Reporter(
            settings.sensor_name,
            interface,
            self.registry,
            self.observer,
            health,
            self._budget,
            load_naming(settings.external),
        )

    def report(self, snapshot: Snapshot) -> Report:
        """All points of a window, by the thresholds that the configuration file has now."""
        self._limits.update(self._thresholds.current())
        return self.reporter.report(snapshot)

    def reread(self) -> None:
        """Take every file anew with the next window, also one that looks as before."""
        for source in self._watched:
            source.again()

    def _recall(self) -> Learned:
        kept = self._memory.load()
        if not kept:
            return Learned()
        try:
            learned = Learned.from_json(kept["learned"])
            self.observer.restore(kept)
            if "series" in kept:
                self._budget.restore(kept["series"])
            return learned
        except (ValueError, TypeError, KeyError, IndexError) as error:
            log.warning("what was learned before is damaged (%s); it is learned anew", error)
            return Learned()

    def is_due(self, now_ns: int) -> bool:
        """True when it is time to save; the first window begins the count."""
        if self._saved_ns is None or now_ns - self._saved_ns >= SAVE_EVERY_NS:
            due, self._saved_ns = self._saved_ns is not None, now_ns
            return due and self.is_kept
        return False

    def check(self) -> None:
        """OutputError when it could not be kept."""
        if self.is_kept:
            self._memory.check()

    def save(self) -> None:
        """Keep everything; OutputError when that cannot be done."""
        if self.is_kept:
            parts = {"learned": self.registry.learned.to_json(), "series": self._budget.to_json()}
            self._memory.save({**parts, **self.observer.to_json()})


def watched(path: Path | None) -> InventorySource:
    """The inventory that was asked for."""
    return WatchedFile(path, load_inventory, "inventory", _warn) if path else Fixed(Inventory())


def watched_policy(path: Path, inventory: InventorySource) -> WatchedFile[Policy]:
    """The policy in a file; its tenants have to be in the inventory when it is read."""
    return WatchedFile(path, lambda file: load_policy(file, inventory.current().tenants), "policy", _warn)


def _watched_limits(settings: Settings) -> Source[Mapping[str, float]]:
    """The thresholds of the configuration file. What else is in it holds until the next start, which is said."""
    path = settings.configuration
    if path is None:
        return Fixed(limits_with(settings.limits))
    began = load_file(path, "capture")
    del began[LIMITS_KEY]

    def load(path: Path) -> Mapping[str, float]:
        given = load_file(path, "capture")
        limits = limits_with(limits_from(given.pop(LIMITS_KEY), path))
        if given != began:
            _warn(f"{path}: only its [limits] are read again; what else has changed in it takes a restart")
        return limits

    return WatchedFile(path, load, "configuration", _warn)


def _listed(settings: Settings, inventory: InventorySource) -> list[PolicyDetector | BadNetworkDetector]:
    """The detectors that rest on a file."""
    found: list[PolicyDetector | BadNetworkDetector] = []
    if settings.policy:
        found.append(PolicyDetector(watched_policy(settings.policy, inventory)))
    if settings.bad_networks:
        networks = WatchedFile(settings.bad_networks, load_networks, "list of bad networks", _warn)
        found.append(BadNetworkDetector(networks))
    return found


def _warn(text: str) -> None:
    log.warning("%s", text)
