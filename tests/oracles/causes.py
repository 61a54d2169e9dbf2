"""The causes of odd TCP segments: what the sensor says beside what tshark says, by flow and direction.

`python -m tests.oracles.causes` prints the table. Where the two differ, cause_differences.py says who is right and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.oracles import program
from tests.oracles.captures import CAPTURES, by_tshark, name
from tests.oracles.copies import without_copies
from tests.oracles.flows import Key, direction
from tests.oracles.tshark_oracle import Judgement

METRICS = ("resent", "spurious", "out_of_order", "lost_segment", "ack_lost_segment", "keep_alive", "zero_window")
"""Lost segments and ACKs of what was never seen are told by whether there are any; the rest by number."""

Direction = tuple[Key, bool]


@dataclass
class Row:
    """One direction of one flow, which has the same five-tuple and domain."""

    capture: str
    flow: str
    tshark: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    sensor: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    frames: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    mixed: bool = False
    """tshark follows this flow together with another tenant's of the same addresses, as one stream."""
    copied: bool = False
    """Every frame of which tshark says anything here is a mirror duplicate."""

    @property
    def silent(self) -> bool:
        """Neither says anything."""
        return not any(self.tshark.values()) and not any(self.sensor.values())

    def differences(self) -> list[str]:
        """The metrics in which they differ."""
        return [metric for metric in METRICS if self.tshark[metric] != self.sensor[metric]]


@cache
def rows(capture: Path) -> list[Row]:
    """All TCP flows of a capture, each direction by itself."""
    reading = by_tshark(capture)
    if reading is None or reading.damaged:
        return []
    table: dict[Direction, Row] = {}
    streams: dict[str, set[Key]] = defaultdict(set)
    of_stream: dict[Direction, set[str]] = defaultdict(set)
    counted = without_copies(capture, list(reading.verdicts))
    for judgement in reading.judgements:
        key, up = direction(judgement.packet)
        row = table.setdefault((key, up), Row(name(capture), _flow(key, up), copied=True))
        streams[judgement.stream].add(key)
        of_stream[key, up].add(judgement.stream)
        _add_judgement(row, judgement)
        row.copied &= not judgement.causes or counted[judgement.number - 1] is None
    for (key, up), row in table.items():
        row.mixed = any(len(streams[stream]) > 1 for stream in of_stream[key, up])
        row.copied &= any(row.tshark.values())
    for record in program.run(capture).records:
        _add_record(table, record)
    return list(table.values())


def _flow(key: Key, up: bool) -> str:
    ends = [f"{end.ip}:{end.port}" for end in (key.low, key.high)]
    return " > ".join(ends if up else reversed(ends))


def _add_judgement(row: Row, judgement: Judgement) -> None:
    for metric in _metrics_of(judgement.causes):
        row.frames[metric].append(judgement.number)
        row.tshark[metric] = 1 if metric.endswith("lost_segment") else row.tshark[metric] + 1


def _metrics_of(causes: frozenset[str]) -> Iterator[str]:
    """tshark names a resend by all kinds that fit; a needless one is only that."""
    if "spurious_retransmission" in causes:
        yield "spurious"
    elif causes & {"retransmission", "fast_retransmission"}:
        yield "resent"
    yield from (cause for cause in causes if cause in METRICS)


def _add_record(table: dict[Direction, Row], record: dict[str, Any]) -> None:
    if record["protocol"] != "tcp":
        return
    key, up = program.direction(record)
    for way, upwards in (("c2s", up), ("s2c", not up)):
        if (row := table.get((key, upwards))) is None:
            continue

        def of(*fields: str, way: str = way) -> int:
            return sum(record[f"{way}_{field}"] or 0 for field in fields)

        row.sensor["resent"] += of("retransmissions", "upstream_losses") - of("spurious")
        row.sensor["spurious"] += of("spurious")
        row.sensor["out_of_order"] += of("reordered")
        row.sensor["keep_alive"] += of("keepalives", "window_probes")
        row.sensor["zero_window"] += of("zero_windows")
        row.sensor["lost_segment"] |= of("upstream_losses", "reordered", "unseen_bytes") > 0
        row.sensor["ack_lost_segment"] |= of("unseen_bytes") > 0


def main() -> None:
    """Print every direction of which either says anything."""
    print("tshark/sensor".ljust(76), *(metric.rjust(12)[-12:] for metric in METRICS))
    for capture in CAPTURES:
        for row in rows(capture):
            if not row.silent:
                notes = " mixed tenants" * row.mixed + " copies" * row.copied
                cells = (f"{row.tshark[metric]}/{int(row.sensor[metric])}".rjust(12) for metric in METRICS)
                print(f"{row.capture} {row.flow}"[:76].ljust(76), *cells, notes)


if __name__ == "__main__":
    main()
