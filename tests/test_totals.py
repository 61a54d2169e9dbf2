"""The line of totals over every capture: it adds up, it is complete, and the program ends as documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracles import program
from tests.oracles.capture_file import open_capture
from tests.oracles.captures import CAPTURES, name, read_ahead, selected

every_capture = pytest.mark.parametrize("capture", CAPTURES, ids=name)
SOUND, DAMAGED = 0, 4


@pytest.fixture(autouse=True, scope="module")
def _everything_is_read(request: pytest.FixtureRequest) -> None:
    """Start the program for all captures at once."""
    read_ahead(selected(request), program.run)


@every_capture
def test_totals_add_up(capture: Path) -> None:
    """Every packet of the capture is received, and every received packet ended in one named part."""
    totals = program.run(capture).totals()
    assert totals.received == sum(totals.parts.values()) == len(open_capture(capture).frames)


@every_capture
def test_records_hold_the_packets_that_are_in_flows(capture: Path) -> None:
    """The records sum up to the totals' flows; no capture here is large enough to overflow."""
    run = program.run(capture)
    counts = program.flows(run.records).values()
    assert run.totals().parts["in flows"] == sum(flow.up_packets + flow.down_packets for flow in counts)
    assert run.totals().parts["overflow"] == 0


@every_capture
def test_drops_of_a_file_are_unknown(capture: Path) -> None:
    """What was dropped when a file was made cannot be known: a dash, not a zero."""
    totals = program.run(capture).totals()
    assert (totals.dropped_by_kernel, totals.dropped_by_nic) == ("-", "-")


@every_capture
def test_ends_as_documented(capture: Path) -> None:
    """Hostile packets are no error; only a capture that is cut ends with its own status. Nothing ends in a trace."""
    run = program.run(capture)
    assert run.status == (DAMAGED if open_capture(capture).damaged else SOUND)
    assert "Traceback" not in run.stderr
