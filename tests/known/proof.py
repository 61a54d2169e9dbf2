"""The proof: how well the sensor tells each cause over the grid, and that no copy or missing packet misleads it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .grid import GRID, Cell, Known, connections
from .mirror import Mirror
from .score import WAYS, Cause, Flow, Score, records, score
from .truth import CAUSES, truth_of

SEED = "known traffic"
LEAST = 0.99
UNKNOWN = "unknown_causes"
UNKNOWN_MOST = 0.0001
"""Of the data packets. Not a cause with a precision: how much the sensor says that it does not know."""
LOSS_MOST, MIRROR_LOSS_MOST = 0.002, 0.003
REMOVED = Mirror(unseen=0.02)
NETWORKS = tuple(cell for cell in GRID if cell.mirror == Mirror())
"""The cells that differ in what the network does."""


def score_cell(cell: Cell, count: int, seed: str = SEED) -> Score:
    """Make a cell's connections, have them measured, and compare."""
    with tempfile.TemporaryDirectory() as directory:
        return score(connections(cell, count, seed), cell.mirror, Path(directory, "cell.pcap"))


def score_grid(cells: Iterable[Cell], count: int) -> dict[Cell, Score]:
    """Score cells, on all processors."""
    cells = tuple(cells)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cells, pool.map(partial(score_cell, count=count), cells), strict=True))


def total(scores: Iterable[Score]) -> Score:
    """All of them together."""
    result = Score()
    for one in scores:
        result.add(one)
    return result


def shortfalls(score: Score, least: float = LEAST) -> list[str]:
    """Each cause whose precision or recall, of counts or of flows, is too low; each time that is off too often."""
    lines = [
        f"{name}: {_ratios(cause)}"
        for name, cause in score.causes.items()
        if name != UNKNOWN and cause.truth + cause.sensor and min(cause.ratios) < least
    ]
    unknown, data = score.causes[UNKNOWN].sensor, score.causes["data_packets"].sensor
    if unknown > UNKNOWN_MOST * data:
        lines.append(f"{UNKNOWN}: {unknown} of {data} data packets")
    lines += [f"{name}: {times}" for name, times in score.times.items() if times.close < least * times.known]
    return lines


def _ratios(cause: Cause) -> str:
    return " ".join(f"{ratio:9.4f}" for ratio in cause.ratios)


HEAD = f"{'':20}{'truth':>10}{'sensor':>10}  precision    recall  of flows:  precision  recall"


def table(name: object, score: Score) -> str:
    """Counts, precision and recall of a set of flows."""
    lines = [f"{name}: {score.flows} flows, {score.packets} packets"]
    for cause, one in score.causes.items():
        if cause in CAUSES and one.truth + one.sensor:
            counts, flows = one.ratios[:2], one.ratios[2:]
            lines.append(
                f"  {cause:18}{one.truth:10}{one.sensor:10}{counts[0]:11.4f}{counts[1]:10.4f}"
                f"{one.flows_truth:10}{flows[0]:11.4f}{flows[1]:8.4f}"
            )
    return "\n".join(lines)


def times_table(score: Score) -> str:
    """How the times were met."""
    lines = [f"{'':20}{'known':>10}{'within 2 us':>13}{'missing':>9}{'only the sensor has one':>26}"]
    for name, times in score.times.items():
        lines.append(f"  {name:18}{times.known:10}{times.close:13}{times.missing:9}{times.unknown:26}")
    return "\n".join(lines)


# --- the same traffic, seen through other mirrors --------------------------------------------------------------------


def changed_by_copies(known: list[Known], capture: Path) -> list[str]:
    """What differs in the flow records, but for the fields on copies, between each packet copied and none."""
    plain, copied = (
        {flow["community_id"]: _without_copies(flow) for flow in records(known, mirror, capture)[1]}
        for mirror in (Mirror(), Mirror(copied=1))
    )
    return [
        f"{flow['client_ip']}: " + ", ".join(f"{field} {flow[field]} and {copied[key][field]}" for field in changed)
        for key, flow in plain.items()
        if (changed := [field for field in flow if flow[field] != copied[key][field]])
    ]


def _without_copies(flow: Flow) -> Flow:
    return {name: value for name, value in flow.items() if "mirror_duplicates" not in name and "transit" not in name}


@dataclass(frozen=True)
class Losses:
    """Loss over all flows, as shares: the network's without and with missing packets, and the mirror's."""

    network: float
    network_removed: float
    mirror: float
    mirror_truth: float

    @property
    def shortfalls(self) -> list[str]:
        """What is off by too much."""
        lines = []
        if abs(self.network_removed - self.network) >= LOSS_MOST:
            lines.append(f"network loss {self.network:.4f}, with packets missing {self.network_removed:.4f}")
        if abs(self.mirror - self.mirror_truth) >= MIRROR_LOSS_MOST:
            lines.append(f"mirror loss {self.mirror:.4f}, in truth {self.mirror_truth:.4f}")
        return lines


def losses(known: list[Known], capture: Path) -> Losses:
    """What the loss figures make of it when a share of the captured packets is removed at random."""
    whole = records(known, Mirror(), capture)[1]
    shown, removed = records(known, REMOVED, capture)
    truths = [direction.counts for one in shown for direction in truth_of(one).directions]
    unseen, payload = (sum(counts[name] for counts in truths) for name in ("unseen_bytes", "payload_bytes"))
    seen = _sum(removed, "payload_bytes")
    told = _sum(removed, "unseen_bytes")
    return Losses(_loss(whole), _loss(removed), told / (seen + told), unseen / (payload + unseen))


def _sum(flows: list[Flow], name: str) -> int:
    return sum(flow[f"{way}_{name}"] or 0 for flow in flows for way in WAYS)


def _loss(flows: list[Flow]) -> float:
    upstream = _sum(flows, "upstream_losses")
    lost = _sum(flows, "retransmissions") - _sum(flows, "spurious") + upstream
    return lost / (_sum(flows, "data_packets") + upstream)
