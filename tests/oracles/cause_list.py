"""The list of differences between tshark and the sensor (cause_differences.toml), and whether it is true."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.oracles.captures import name
from tests.oracles.cause_rules import RULES
from tests.oracles.cause_table import Row, Table, Way, counted, spoken_of, table, text
from tests.oracles.evidence import Evidence, evidence
from tests.oracles.flows import Key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIST = Path(__file__).with_name("cause_differences.toml")
EVIDENCE = "evidence"  # the key, among a flow's metrics, of what was seen in the packets


@dataclass(frozen=True)
class Entry:
    """What the list says of one metric of one direction of a flow: both numbers, and by rule the frames that show why.

    Of a rule without effect the frames are examples; of the others, all there are.
    """

    tshark: int
    sensor: int
    frames: dict[str, list[int]]

    def line(self, metric: str) -> str:
        """The entry as it stands in the list."""
        reasons = [f", {rule} = {frames}" for rule, frames in self.frames.items()]
        return f"{metric} = {{ tshark = {self.tshark}, sensor = {self.sensor}{''.join(reasons)} }}"


Entries = dict[tuple[str, str], Entry]
"""By flow, as the list calls it, and metric."""


@cache
def content() -> dict[str, Any]:
    """The file: the rules in words, and a table for each flow and direction of each capture."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))


def entries(capture: Path) -> Entries:
    """What the list says of a capture."""
    return {
        (flow, metric): Entry(said.pop("tshark"), said.pop("sensor"), said)
        for flow, metrics in content()["captures"].get(name(capture), {}).items()
        for metric, said in ((metric, dict(said)) for metric, said in metrics.items() if metric != EVIDENCE)
    }


def flow_names(rows: Table) -> dict[Way, str]:
    """The directions of a capture's flows as the list calls them."""
    flows_of: dict[Key, int] = {}
    for way, _ in rows:
        flows_of[way.key] = max(flows_of.get(way.key, 0), way.turn + 1)
    return {way: text(way, flows_of[way.key]) for way, _ in rows}


def differences(capture: Path) -> dict[tuple[str, str], tuple[Way, Row]]:
    """The rows over which tshark and the sensor differ."""
    rows = table(capture)
    names = flow_names(rows)
    return {
        (names[way], metric): (way, row)
        for (way, metric), row in rows.items()
        if counted(metric, row.tshark) != row.sensor
    }


def fault(capture: Path, metric: str, way: Way, row: Row, entry: Entry) -> str | None:
    """What is wrong with an entry; None when the packets bear it out and it accounts for the whole difference."""
    if (entry.tshark, entry.sensor) != (counted(metric, row.tshark), row.sensor):
        return "the numbers are others"
    packets, expected = evidence(capture), counted(metric, row.alone)
    if not undisturbed(packets, way, row, entry):
        return "no rule named tells why tshark says something else of the flow alone"
    for rule, frames in entry.frames.items():
        if not frames or not set(frames) <= set(candidates(rule, packets, metric, way, row)):
            return f"{rule} does not hold for all frames named"
        expected += RULES[rule].effect.get(metric, 0) * len(set(frames))
    return None if expected == row.sensor else f"it accounts for {expected}"


def candidates(rule: str, packets: Evidence, metric: str, way: Way, row: Row) -> list[int]:
    """The frames that may stand for a rule: tshark has to have said of them what the rule takes back, or not to."""
    changed, effect = sorted(set(row.tshark) ^ set(row.alone)), RULES[rule].effect
    speaks = spoken_of(way, metric)
    own = [one.frame for one in packets.segments.values() if (one.key, one.up) == (speaks.key, speaks.up)]
    step = effect.get(metric, 0)
    named = [frame for frame in own if step and (frame in row.alone) == (step < 0)] if effect else changed
    return [frame for frame in named if RULES[rule].holds(packets, way.key, frame)]


def undisturbed(packets: Evidence, way: Way, row: Row, entry: Entry) -> bool:
    """Whether the rules about other frames explain each frame of which tshark says something else in the flow alone."""
    rules = [RULES[rule] for rule in entry.frames if not RULES[rule].effect]
    changed = set(row.tshark) ^ set(row.alone)
    return all(any(rule.holds(packets, way.key, frame) for rule in rules) for frame in changed)


def proposal(capture: Path, metric: str, way: Way, row: Row) -> Entry:
    """An entry with the rules that hold, for someone who then looks at the packets."""
    held = {rule: candidates(rule, evidence(capture), metric, way, row) for rule in RULES}
    frames = {rule: found if RULES[rule].effect else found[:1] for rule, found in held.items() if found}
    return Entry(counted(metric, row.tshark), row.sensor, frames)
