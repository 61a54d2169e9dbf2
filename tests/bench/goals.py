"""What the sensor is to reach, and whether the figures on record reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.contenders import SENSOR
from tests.bench.encode import OURS, THEIRS
from tests.bench.enrich import ON_THE_SOCKET
from tests.bench.pauses import BY_CPU
from tests.bench.tables import Column, Row, amount, places, whole
from tests.bench.traces import STANDARD

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
    form: Callable[[float], str] = amount
    """As the figure's own table writes it."""

    def judged(self, parts: Derived) -> Row:
        """A row for the page. What was not measured is neither met nor missed."""
        value = self.found(parts) if all(name in parts for name in self.needs) else None
        met = None if value is None else value <= self.asked if self.at_most else value >= self.asked
        return {
            "what": self.what,
            "asked": f"{'at most' if self.at_most else 'at least'} {self.asked:,} {self.unit}",
            "value": None if value is None else self.form(value),
            "verdict": {None: "not measured", True: "met", False: "MISSED"}[met],
        }


def _of(part: str, value: str, **where: str) -> Callable[[Derived], float | None]:
    """The value of the row in which these keys are these."""

    def found(parts: Derived) -> float | None:
        rows = (row for row in parts[part] if all(row[key] == wanted for key, wanted in where.items()))
        return next((row.get(value) for row in rows), None)

    return found


def _over(part: str, value: str, key: str, ours: str, theirs: str) -> Callable[[Derived], float | None]:
    """A ratio of two rows of one table."""

    def found(parts: Derived) -> float | None:
        above, below = (_of(part, value, **{key: name})(parts) for name in (ours, theirs))
        return None if above is None or not below else above / below

    return found


def _peer(name: str, asked: float) -> Goal:
    return Goal(
        f"{SENSOR}, over {name}, packets/s", asked, "times", ("readers",),
        _over("readers", "packets_per_second", "reader", SENSOR, name), form=places(2),
    )  # fmt: skip


def _reading(part: str, traffic: str, value: str) -> Callable[[Derived], float | None]:
    return _of(part, value, traffic=traffic, reader=SENSOR)


MILLION = "1,000,000 flows"

GOALS = (
    Goal(
        f"{SENSOR}, {STANDARD.name}, one core", 3_000_000, "packets/s", ("readers",),
        _reading("readers", STANDARD.name, "packets_per_second"), form=whole,
    ),
    Goal(
        f"{SENSOR}, {STANDARD.name}, over the bare loop", 1.0, "times", ("readers",),
        _reading("readers", STANDARD.name, "ratio"), form=places(3),
    ),
    Goal(
        f"{SENSOR}, {MILLION}, over the bare loop", 0.8, "times", ("growth",),
        _reading("growth", MILLION, "ratio"), form=places(3),
    ),
    *(_peer(name, asked) for name, asked in (("softflowd", 5), ("argus", 10), ("NFStream", 60))),
    *(
        Goal(
            f"a flow of {traffic}, all included", 384, "octets", ("flow",),
            _of("flow", "octets_per_flow", traffic=traffic), at_most=True, form=places(1),
        )
        for traffic in (STANDARD.name, MILLION)
    ),
    Goal(
        f"memory of the process, {MILLION}", 400.5, "MiB, which is 420 MB", ("growth",),
        _reading("growth", MILLION, "peak_mib"), at_most=True, form=places(1),
    ),
    Goal(BY_CPU, 5, "ms", ("pauses",), _of("pauses", "value", what=BY_CPU), at_most=True),
    Goal(
        "start to first packet", 400, "ms", ("start",),
        _of("start", "wall_ms", reader=SENSOR), at_most=True, form=places(0),
    ),
    Goal(
        "live, CPU of a packet, over tcpdump's", 1.3, "times", ("live",),
        _of("live", "ratio", program="vmsensor"), at_most=True, form=places(2),
    ),
    Goal(ON_THE_SOCKET, 0.5, "s CPU", ("enrich",), _of("enrich", "value", what=ON_THE_SOCKET), at_most=True),
    Goal(OURS, 1_000_000, "lines/s of CPU", ("encode",), _of("encode", "value", what=OURS)),
    Goal(
        "these, over those by influxdb-client", 15, "times", ("encode",),
        _over("encode", "value", "what", OURS, THEIRS),
    ),
)  # fmt: skip

COLUMNS = (
    Column("goal", "what"), Column("asked", "asked"), Column("measured", "value"), Column("verdict", "verdict"),
)  # fmt: skip
