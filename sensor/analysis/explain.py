"""Why a VM is slow: along the edges that slowed down, or began to fail, at the same time, down to the likely root.

Sherlock (Bahl et al., SIGCOMM 2007) and CauseInfer (Chen et al., INFOCOM 2014) walk the dependency graph likewise: the
cause of a slow service is the deepest one below it that is slow itself, of which nothing that it needs is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sensor.analysis.edges import LIMITS
from sensor.analysis.graph import VM, Edge, Graph, Key, Moment

LEAST_WINDOWS = 3
"""An edge of fewer windows with enough responses has nothing usual."""

USUAL = 0.25
"""What is usual is this quantile of the windows' 95th percentiles: right while up to three quarters are slow."""

NETWORK = 0.5
"""The network is to blame if the way to the server grew by more than this part of what the response time did."""


@dataclass(frozen=True)
class Trouble:
    """An edge that was slow or failing in some windows, the first of which began at ``since_ns``."""

    edge: Edge
    windows: frozenset[int]
    since_ns: int
    now_us: float | None = None
    usual_us: float | None = None
    way_now_us: float | None = None
    """SYN to SYN-ACK, None where no connection was opened. RTTs of data do not tell: an ACK may wait for the answer."""
    way_usual_us: float | None = None
    failed: int = 0
    attempts: int = 0

    @property
    def extra_us(self) -> float:
        """By how much it is slower than usual."""
        return (self.now_us or 0) - (self.usual_us or 0)

    @property
    def is_network(self) -> bool | None:
        """Whether the way to the server explains it, rather than the server; None if that was not measured."""
        if self.way_now_us is None or self.way_usual_us is None or self.extra_us <= 0:
            return None
        return self.way_now_us - self.way_usual_us > NETWORK * self.extra_us


@dataclass(frozen=True)
class Step:
    """An edge on the way to a root, and what part of the trouble above it explains; None at the top."""

    trouble: Trouble
    share: float | None
    below: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """``paths`` lead from the VM down; ``roots`` are where they end; ``above`` slowed down with the VM itself."""

    vm: VM
    paths: list[Step]
    roots: list[VM]
    above: list[Trouble]


def troubles(graph: Graph, limits: Mapping[str, float] | None = None) -> dict[Key, Trouble]:
    """Every edge that was in trouble."""
    used = {limit.name: (limits or {}).get(limit.name, limit.default) for limit in LIMITS}
    found = ((key, _slow(edge, used) or _failing(edge, used)) for key, edge in graph.edges.items())
    return {key: trouble for key, trouble in found if trouble}


def explain(graph: Graph, vm: VM, limits: Mapping[str, float] | None = None) -> Explanation:
    """What slowed a VM down."""
    found = troubles(graph, limits)
    above = _above(graph, vm, found)
    roots: dict[VM, None] = {}
    paths = _below(graph, vm, found, None, (vm,), roots)
    if not paths and above:
        roots[vm] = None
    return Explanation(vm, paths, list(roots), above)


def _below(
    graph: Graph, vm: VM, found: dict[Key, Trouble], cause: Trouble | None, way: tuple[VM, ...], roots: dict[VM, None]
) -> list[Step]:  # fmt: skip
    steps = []
    for edge in graph.needs(vm):
        trouble = found.get(edge.key)
        if trouble is None or edge.key.server in way or (cause and not trouble.windows & cause.windows):
            continue
        share = min(trouble.extra_us / cause.extra_us, 1.0) if cause and cause.extra_us > 0 < trouble.extra_us else None
        if cause and share is not None and share < USUAL:
            continue  # slow as well, but far too little to be the cause
        below = _below(graph, edge.key.server, found, trouble, (*way, edge.key.server), roots)
        if not below:
            roots[edge.key.server] = None
        steps.append(Step(trouble, share, below))
    return sorted(steps, key=lambda step: -step.trouble.extra_us)


def _above(graph: Graph, vm: VM, found: dict[Key, Trouble]) -> list[Trouble]:
    """The edges into the VM, and those above them, that were in trouble at the same time; the nearest first."""
    above: dict[Key, Trouble] = {}
    waiting: list[tuple[VM, frozenset[int] | None]] = [(vm, None)]
    while waiting:
        one, windows = waiting.pop(0)
        for edge in graph.needed_by(one):
            trouble = found.get(edge.key)
            if trouble and edge.key not in above and (windows is None or trouble.windows & windows):
                above[edge.key] = trouble
                waiting.append((edge.key.client, trouble.windows))
    return list(above.values())


def _slow(edge: Edge, limits: Mapping[str, float]) -> Trouble | None:
    least = min(limits["edge_slow_responses"], 5)
    measured = [moment for moment in edge.moments if moment.response_us is not None and moment.responses >= least]
    if len(measured) < LEAST_WINDOWS:
        return None
    usual_us = float(np.quantile([moment.response_us or 0 for moment in measured], USUAL, method="lower"))
    bound_us = max(limits["edge_slow_factor"] * usual_us, usual_us + limits["edge_slow_least"] * 1e6)
    is_slow = [(moment.response_us or 0) > bound_us for moment in measured]
    # One slow window among many is chance; some in a row are not.
    row = int(limits["edge_slow_windows"])
    if not any(all(is_slow[at : at + row]) for at in range(len(measured) - row + 1)):
        return None
    slow = [moment for moment, late in zip(measured, is_slow, strict=True) if late]
    quick = [moment for moment, late in zip(measured, is_slow, strict=True) if not late]
    now_us = float(np.median([moment.response_us or 0 for moment in slow]))
    return Trouble(
        edge, _windows(slow), slow[0].start_ns, now_us, usual_us, _median_way(slow), _median_way(quick)
    )  # fmt: skip


def _failing(edge: Edge, limits: Mapping[str, float]) -> Trouble | None:
    least, part = limits["edge_failed_least"], limits["edge_failed_ratio"]
    bad = [moment for moment in edge.moments if moment.failed >= least and moment.failed > part * moment.attempts]
    if not bad:
        return None
    failed, attempts = sum(moment.failed for moment in bad), sum(moment.attempts for moment in bad)
    return Trouble(edge, _windows(bad), bad[0].start_ns, failed=failed, attempts=attempts)


def _windows(moments: list[Moment]) -> frozenset[int]:
    return frozenset(moment.start_ns for moment in moments)


def _median_way(moments: list[Moment]) -> float | None:
    measured = [moment.handshake_us for moment in moments if moment.handshake_us is not None]
    return float(np.median(measured)) if measured else None
