"""All captures there are to compare over: the project's own, and those made by others where they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.needs import PCAPS, SHARED_CAPTURES, need_tool
from tests.oracles import dpkt_oracle, tshark_oracle
from tests.oracles.capture_file import Unreadable
from tests.oracles.copies import without_copies
from tests.oracles.differences import DIFFERENCES
from tests.oracles.flows import Verdict

CAPTURES = [*sorted(PCAPS.glob("*.pcap*")), *sorted(SHARED_CAPTURES.glob("*.pcap*"))]


def name(capture: Path) -> str:
    """How a capture is called in tests and in the table of differences."""
    return f"{capture.parent.name}/{capture.name}"


@cache
def by_tshark(capture: Path) -> tshark_oracle.Reading | None:
    """What tshark says; None where it cannot read the capture."""
    try:
        return tshark_oracle.read(need_tool("tshark"), capture)
    except Unreadable:
        return None


@cache
def by_dpkt(capture: Path) -> list[Verdict] | None:
    """What the dpkt oracle says; None where it cannot read the capture."""
    try:
        return dpkt_oracle.read(capture)
    except Unreadable:
        return None


def read_ahead(captures: Iterable[Path], *readers: Callable[[Path], object]) -> None:
    """Let the (cached) readers go over captures on every processor."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for reader in readers:
            pool.map(reader, captures)


def selected(request: pytest.FixtureRequest) -> list[Path]:
    """The captures of all tests that are to run."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    return list({call.params["capture"]: None for call in parameters if call and "capture" in call.params})


def opinions(capture: Path) -> dict[str, list[Verdict]]:
    """What each oracle that can read the capture says, frame by frame."""
    tshark, dpkt = by_tshark(capture), by_dpkt(capture)
    said = {"tshark": tshark.verdicts if tshark else None, "dpkt": dpkt}
    return {oracle: verdicts for oracle, verdicts in said.items() if verdicts is not None}


@cache
def decoded(capture: Path) -> list[Verdict]:
    """What each frame holds: what the oracles agree on, or the table's word."""
    said = opinions(capture)
    verdicts = list(next(iter(said.values()), []))
    for difference in DIFFERENCES:
        if difference.capture == name(capture):
            verdicts[difference.frame - 1] = difference.verdict(said)
    return verdicts


@cache
def right(capture: Path) -> list[Verdict]:
    """What the sensor has to count: mirror duplicates left out."""
    return without_copies(capture, decoded(capture))
