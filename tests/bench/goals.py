"""What the sensor is to reach, and whether the figures on record reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.contenders import SENSOR
from tests.bench.encode import OURS, THEIRS
from tests.bench.enrich import ON_THE_SOCKET
from tests.bench.tables import Column, Row, amount

Derived = Mapping[str, Sequence[Row]]
"""The rows of each part that was measured."""


@dataclass(frozen=True)
class Goal:
    """``found`` takes the figure from the parts that it ``needs``; it is to be at least, or at most, what is asked."""

    what: str
    asked: float
    unit: str
    needs: tuple[str, ...]
    found: Callable[[Derived], float | None]
    at_most: bool = False

    def judged(self, parts: Derived) -> Row:
        """A row for the page. What was not measured is neither met nor missed."""
        value = self.found(parts) if all(name in parts for name in self.needs) else None
        met = None if value is None else value <= self.asked if self.at_most else value >= self.asked
        return {
            "what": self.what,
            "asked": f"{'at most' if self.at_most else 'at least'} {self.asked:,} {self.unit}",
            "value": value,
            "verdict": {None: "not measured", True: "met", False: "MISSED"}[met],
        }


def _of(part: str, key: str, name: str, value: str) -> Callable[[Derived], float | None]:
    def found(parts: Derived) -> float | None:
        return next((row.get(value) for row in parts[part] if row[key] == name), None)

    return found


def _encoder_ratio(parts: Derived) -> float | None:
    ours, theirs = (_of("encode", "what", name, "value")(parts) for name in (OURS, THEIRS))
    return None if ours is None or not theirs else ours / theirs


GOALS = (
    Goal(
        f"{SENSOR}, 200,000 flows, one core", 3_000_000, "packets/s", ("readers",),
        _of("readers", "reader", SENSOR, "packets_per_second"),
    ),
    Goal(ON_THE_SOCKET, 0.5, "s CPU", ("enrich",), _of("enrich", "what", ON_THE_SOCKET, "value"), at_most=True),
    Goal(OURS, 1_000_000, "lines/s of CPU", ("encode",), _of("encode", "what", OURS, "value")),
    Goal("these, over those by influxdb-client", 15, "times", ("encode",), _encoder_ratio),
)  # fmt: skip

COLUMNS = (
    Column("goal", "what"), Column("asked", "asked"), Column("measured", "value", amount), Column("verdict", "verdict"),
)  # fmt: skip
