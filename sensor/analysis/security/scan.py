"""Scans of ports and of hosts, by sequential hypothesis testing (Threshold Random Walk).

J. Jung, V. Paxson, A. Berger, H. Balakrishnan, *Fast Portscan Detection Using Sequential Hypothesis Testing*, IEEE
Symposium on Security and Privacy 2004: each first contact of a source with a service of a host makes one of two
hypotheses likelier. A client mostly succeeds, a scanner mostly fails. The walk ends at a scanner when the likelihood
ratio passes a bound, and is held at another one for a client, so that a long good record does not excuse a scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log
from typing import NamedTuple

import numpy as np

from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit, in_ns
from sensor.analysis.security.attempts import (
    Attempts,
    AttemptWatch,
    service_label,
    severity_from,
    tenant_between,
)
from sensor.analysis.security.ledger import Index, Ledger
from sensor.grouping import group
from sensor.keys import mix
from sensor.native import NumpyArray

LIMITS = (
    Limit("attempt_wait", 1, "seconds", "What is not answered for so long has failed."),
    Limit("scan_targets", 10, "count", "A scanner has failed at so many different services or hosts at least."),
    Limit("scan_memory", 300, "seconds", "A first contact, and a source's record, are forgotten after so long."),
    Limit("scan_theta0", 0.8, "ratio", "A client's first contacts succeed with this probability."),
    Limit("scan_theta1", 0.2, "ratio", "And a scanner's with this one."),
    Limit("scan_alpha", 0.01, "ratio", "So often may a client be taken for a scanner."),
    Limit("scan_beta", 0.99, "ratio", "So often has a scanner to be found."),
)

MOST_CONTACTS, MOST_SOURCES = 500_000, 20_000
"""First contacts and sources remembered; the oldest give way, and are counted in ``forgotten``."""

MOST_SAID = 1000
"""Scanners told in one window."""

CONTACT = np.dtype(
    [("key", "u8"), ("last_ns", "i8"), ("source", "u8"), ("target", "u8"), ("service", "i8"), ("failed", "?")]
)
SOURCE = np.dtype([("key", "u8"), ("last_ns", "i8"), ("walk", "f8")])
"""``walk``: the logarithm of the likelihood ratio."""


class Odds(NamedTuple):
    """Logarithms of likelihood ratios: the steps of a source's walk, and the bounds at which it is decided."""

    success: float
    failure: float
    scanner: float
    client: float

    @classmethod
    def of(cls, limits: Mapping[str, float]) -> Odds:
        """From the probabilities; ValueError when they cannot tell a scanner from a client."""
        theta0, theta1 = limits["scan_theta0"], limits["scan_theta1"]
        alpha, beta = limits["scan_alpha"], limits["scan_beta"]
        if not 0 < theta1 < theta0 < 1:
            raise ValueError("scan_theta1 has to be less than scan_theta0, and both between 0 and 1")
        if not 0 < alpha < beta < 1:
            raise ValueError("scan_alpha has to be less than scan_beta, and both between 0 and 1")
        return cls(
            log(theta1 / theta0), log((1 - theta1) / (1 - theta0)), log(beta / alpha), log((1 - beta) / (1 - alpha))
        )


class ScanDetector:
    """Tells sources that try what is not there."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = limits
        self._watch = AttemptWatch(limits)
        self._contacts = Ledger(CONTACT, MOST_CONTACTS)
        self._sources = Ledger(SOURCE, MOST_SOURCES)

    @property
    def forgotten(self) -> int:
        """Attempts, contacts and sources that there was no room for."""
        return self._watch.forgotten + self._contacts.forgotten + self._sources.forgotten

    def look(self, scene: Scene) -> Iterator[Finding]:
        """Sources that have gone on scanning in this window."""
        attempts = self._watch.look(scene)
        for ledger in (self._contacts, self._sources):
            ledger.keep(scene.end_ns - ledger.rows["last_ns"] <= in_ns(self._limits, "scan_memory"))
        first = self._first_contacts(attempts.rows, scene.end_ns)
        suspects = self._walk(attempts.rows[first], scene.end_ns)
        for source in suspects[:MOST_SAID].tolist():
            mine = first[attempts.rows["source"][first] == source]
            finding = self._judge(attempts, mine, source)
            if finding:
                yield finding

    def _first_contacts(self, rows: NumpyArray, now_ns: int) -> Index:
        """The attempts that are the first of their source at a service of a host; a success goes before a failure."""
        order = np.argsort(~rows["answered"], kind="stable")
        keys = mix(rows["source"], rows["target"], rows["service"].astype(np.uint64))[order]
        first = group(keys).first
        at, new = self._contacts.at(keys[first])
        chosen = order[first]
        self._contacts.rows["last_ns"][at] = now_ns
        for name in ("source", "target", "service"):
            self._contacts.rows[name][at[new]] = rows[name][chosen[new]]
        self._contacts.rows["failed"][at[new]] = ~rows["answered"][chosen[new]]
        self._contacts.bound()
        return np.sort(chosen[new])

    def _walk(self, rows: NumpyArray, now_ns: int) -> NumpyArray:
        """Move the walks of the sources on; those that are beyond the bound and have failed again, worst first."""
        same = group(rows["source"])
        sources = rows["source"][same.first]
        failed, worked = same.sum(~rows["answered"]), same.sum(rows["answered"])
        at, _ = self._sources.at(sources)
        odds = Odds.of(self._limits)
        walk = self._sources.rows["walk"][at] + worked * odds.success
        walk = np.maximum(walk, odds.client) + failed * odds.failure
        walk = np.minimum(walk, 2 * odds.scanner)  # neither is a bad record for ever
        self._sources.rows["walk"][at] = walk
        self._sources.rows["last_ns"][at] = now_ns
        self._sources.bound()
        suspects = np.flatnonzero((walk >= odds.scanner) & (failed > 0))
        return sources[suspects[np.argsort(-failed[suspects], kind="stable")]]

    def _judge(self, attempts: Attempts, mine: Index, source: int) -> Finding | None:
        """What a suspect has done in all; None if it has failed at too little."""
        held = self._contacts.rows[self._contacts.rows["source"] == np.uint64(source)]
        bad = held[held["failed"]]
        if len(bad) < self._limits["scan_targets"] or 2 * len(bad) <= len(held):
            return None
        targets, services = np.unique(bad["target"]), np.unique(bad["service"])
        last = mine[~attempts.rows["answered"][mine]][-1]
        tenant, victim = attempts.tenant(last, "source"), attempts.tenant(last, "target")
        vertical = len(services) > len(targets)
        if vertical:
            what = attempts.name(last, "target") if len(targets) == 1 else ""
        else:
            what = service_label(int(attempts.rows["service"][last])) if len(services) == 1 else ""
        failures = int((~attempts.rows["answered"][mine]).sum())
        return Finding(
            "port_scan" if vertical else "host_sweep", severity_from(tenant), tenant_between(tenant, victim),
            attempts.name(last, "source"), what,
            f"{len(bad):,} of {len(held):,} first contacts failed: {len(services):,} services, {len(targets):,} hosts",
            {"failures": failures, "successes": len(mine) - failures},
        )  # fmt: skip
