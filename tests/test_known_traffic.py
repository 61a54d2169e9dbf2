"""The sensor on traffic of which everything is known. The plain suite takes a sample; `make proof` takes all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Say
from tests.known import proof
from tests.known.grid import GRID, Cell, connections
from tests.known.proof import (
    SEED,
    changed_by_copies,
    losses,
    score_cell,
    score_grid,
    shortfalls,
    table,
    times_table,
    total,
)
from tests.known.score import Score
from tests.known.truth import CAUSES

SAMPLE = 12
WHOLE = 260
"""Connections of a cell; of the 81 cells 21,060."""

RAREST = {"unknown_causes", "out_of_window"}
"""Forged segments, and what lies before the beginning of a direction; the whole grid has them."""

QUIET = Cell(0, 0, 0, 0)


@pytest.fixture(scope="module")
def sample() -> Score:
    """A few connections of each cell."""
    return total(score_grid(GRID, SAMPLE).values())


def test_a_sample_of_the_grid(sample: Score) -> None:
    """Over losses, reordering, mirror duplicates and drops: causes, RTT and handshakes are those of the truth."""
    assert shortfalls(sample, proof.LEAST - 0.02) == []


def test_the_grid_has_every_trouble(sample: Score) -> None:
    """The truth is not a desert: each cause occurs but the two rarest."""
    assert sample.flows >= 0.99 * SAMPLE * len(GRID)
    assert {name for name in CAUSES if not sample.causes[name].truth} <= RAREST
    assert all(times.known > SAMPLE for times in sample.times.values())


def test_a_sound_path_is_told_without_an_error() -> None:
    """Nothing lost, reordered, copied or dropped: not one flow, cause, RTT or handshake is wrong."""
    quiet = score_cell(QUIET, 100)
    assert quiet.wrong == []
    assert quiet.times["rtt_min"].known > 100


@pytest.mark.parametrize("network", [QUIET, Cell(0.05, 0, 0, 0), Cell(0.05, 0.02, 0, 0)], ids=str)
def test_everything_twice_changes_nothing(network: Cell, tmp_path: Path) -> None:
    """Each packet seen twice, in the same VLAN or another, routed or not: every metric is that of the run without."""
    assert changed_by_copies(connections(network, 100, SEED), tmp_path / "network.pcap") == []


@pytest.mark.parametrize("network", [QUIET, Cell(0.05, 0.02, 0, 0)], ids=str)
def test_a_leaky_mirror(network: Cell, tmp_path: Path) -> None:
    """2 % of the packets removed at random: the network's loss moves by < 0.2 points, the mirror's is right by 0.3."""
    assert losses(connections(network, 200, SEED), tmp_path / "network.pcap").shortfalls == []


@pytest.mark.proof
def test_the_whole_grid(say: Say) -> None:
    """More than 20,000 flows: each cause at least 0.99, in counts and in flows; a table says how each cell fares."""
    cells = score_grid(GRID, WHOLE)
    whole = total(cells.values())
    lines = [table(cell, one) for cell, one in cells.items()]
    say("\n".join([proof.HEAD, *lines, f"\n{proof.HEAD}\n{table('all', whole)}\n\n{times_table(whole)}"]))
    assert whole.flows >= 20_000
    assert shortfalls(whole) == []


@pytest.mark.proof
@pytest.mark.parametrize("network", proof.NETWORKS, ids=str)
def test_other_mirrors_of_the_whole_grid(network: Cell, tmp_path: Path, say: Say) -> None:
    """No copy changes a record, and missing packets move the losses by no more than allowed, in all networks."""
    known = connections(network, WHOLE, SEED)
    changed, lost = (measure(known, tmp_path / "network.pcap") for measure in (changed_by_copies, losses))
    say(f"{network}: {len(changed)} records changed by copies; {lost}")
    assert changed == []
    assert lost.shortfalls == []
