"""The sensor on traffic of which everything is known. The plain suite takes a sample; `make proof` takes all of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.known.capture import pcap
from tests.known.grid import GRID, WAYS, Cell, Known, Score, connections, flows_of, score
from tests.known.truth import CAUSES, truth_of

SEED = 20_000
SAMPLE = 60
WHOLE = 960
"""Connections of a cell; of the 21 cells 20,160."""

ENOUGH = 0.99
FEW = 100
"""Of so few events one more or less says nothing."""


def scores(count: int, directory: Path) -> dict[Cell, Score]:
    """Every cell of the grid, told and compared with the truth."""
    return {cell: score(connections(cell, count, SEED), directory / "known.pcap") for cell in GRID}


def total(parts: dict[Cell, Score]) -> Score:
    """All cells together."""
    whole = Score()
    for part in parts.values():
        whole.add(part)
    return whole


def table(parts: dict[Cell, Score]) -> str:
    """Truth, sensor, precision and recall of each cause, by cell and in all."""
    lines = [f"{'cause':18} {'truth':>9} {'sensor':>9} precision recall"]
    for title, part in [*((str(cell), part) for cell, part in parts.items()), ("all", total(parts))]:
        lines.append(
            f"-- {title}: {part.flows} flows, RTT off by over 2 us in {part.late_samples} of {part.samples}, "
            f"handshakes in {part.late_handshakes} of {part.handshakes}"
        )
        lines += [
            f"{cause:18} {part.truth[cause]:9} {part.sensor[cause]:9} {part.precision(cause):9.4f} "
            f"{part.recall(cause):6.4f}"
            for cause in CAUSES
            if part.truth[cause] or part.sensor[cause]
        ]
    return "\n".join(lines)


def check(whole: Score, enough: float = ENOUGH) -> None:
    """Precision and recall of each cause; RTT and handshakes to the timestamps' resolution."""
    for cause in CAUSES:
        if whole.truth[cause] >= FEW:
            assert whole.precision(cause) >= enough, (cause, whole.precision(cause), whole.wrong[:20])
            assert whole.recall(cause) >= enough, (cause, whole.recall(cause), whole.wrong[:20])
    assert whole.late_samples <= (1 - enough) * whole.samples, whole.wrong[:20]
    assert whole.late_handshakes == 0, whole.wrong[:20]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Score]:
    """A sample of the grid."""
    return scores(SAMPLE, tmp_path_factory.mktemp("known"))


def test_a_sample_of_the_grid(sample: dict[Cell, Score]) -> None:
    """Over losses, reordering, mirror duplicates and drops: causes, RTT and handshakes are those of the truth."""
    check(total(sample), ENOUGH - 0.01)


def test_the_grid_has_every_trouble(sample: dict[Cell, Score]) -> None:
    """The truth is not a desert: each cause occurs, in flows enough."""
    whole = total(sample)
    assert whole.flows >= 0.99 * SAMPLE * len(GRID)
    assert all(whole.truth[cause] for cause in CAUSES), whole.truth


def test_a_sound_path_is_told_without_an_error(sample: dict[Cell, Score]) -> None:
    """Nothing lost, reordered, copied or dropped: not one flow, cause, RTT or handshake is wrong."""
    quiet = sample[Cell(0.0, 0.0, 0.0, 0.0)]
    assert quiet.wrong == []
    assert quiet.samples > SAMPLE


@pytest.mark.proof
def test_the_whole_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than 20,000 flows; the table says how each cause fares in each cell."""
    parts = scores(WHOLE, tmp_path)
    with capsys.disabled():
        print(f"\n{table(parts)}")
    whole = total(parts)
    assert whole.flows >= 20_000
    check(whole)


# ---- what must not change


def by_client(known: Known, capture: Path) -> dict[str, dict[str, Any]]:
    """Flow records by the client's address."""
    capture.write_bytes(pcap(known))
    return {flow["client_ip"]: flow for flow in flows_of(capture)}


def measured(flow: dict[str, Any]) -> dict[str, Any]:
    """A flow record without what only copies bring."""
    return {name: value for name, value in flow.items() if "transit" not in name and "duplicates" not in name}


def test_everything_twice_changes_nothing(tmp_path: Path) -> None:
    """Every packet seen twice, before and after a router or only late: every metric is that of the run without.

    Where senders number their packets that is so of each flow. Where neither an identification nor always a timestamp
    tells packets apart, two equal ACKs and one copied ACK can be the same octets at the same times.
    """
    known = connections(Cell(0.05, 0.02, 1.0, 0.0), 300, SEED)
    once = [
        (replace(happened, sightings=[s for s in happened.sightings if not s.copy]), where) for happened, where in known
    ]
    single, double = by_client(once, tmp_path / "once.pcap"), by_client(known, tmp_path / "twice.pcap")
    assert set(single) == set(double)
    different = {client for client in single if measured(single[client]) != measured(double[client])}
    numbered = {where.client for happened, where in known if happened.identify != "zero"}
    assert not different & numbered
    assert len(different) <= 0.02 * len(known)
    copies = sum(len(happened.sightings) for happened, _ in once)
    assert abs(sum(double[c][f"{way}_mirror_duplicates"] for c in double for way in WAYS) - copies) <= 0.002 * copies


def test_transit_is_the_copies_delay(tmp_path: Path) -> None:
    """Least, mean and longest time from first sighting to copy, by direction."""
    known = connections(Cell(0.0, 0.0, 1.0, 0.0), 60, SEED)
    flows = by_client(known, tmp_path / "twice.pcap")
    for happened, where in known:
        for way, delays in zip(WAYS, truth_of(happened).transit_ns, strict=True):
            flow = flows[where.client]
            true = (min(delays), sum(delays) / len(delays), max(delays))
            told = [flow[f"{way}_transit_{which}_us"] * 1e3 for which in ("min", "avg", "max")]
            assert all(abs(a - b) <= 2000 for a, b in zip(told, true, strict=True)), (where, told, true)


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.05])
def test_a_leaky_mirror(loss: float, tmp_path: Path) -> None:
    """2 % of the packets removed at random: the network's loss moves by < 0.2 points, the mirror's is right by 0.3."""
    known = connections(Cell(loss, 0.01, 0.0, 0.0), 400, SEED)
    chance = random.Random(SEED)
    leaky = [
        (replace(happened, sightings=[s for s in happened.sightings if chance.random() >= 0.02]), where)
        for happened, where in known
    ]
    before, after = score(known, tmp_path / "whole.pcap"), score(leaky, tmp_path / "leaky.pcap")
    assert abs(after.loss(after.sensor) - before.loss(before.sensor)) < 0.002
    assert abs(after.mirror_loss(after.sensor) - after.mirror_loss(after.truth)) < 0.003
    assert abs(after.mirror_loss(after.sensor) - 0.02) < 0.003
