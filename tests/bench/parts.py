"""The parts of the benchmark: which module measures each, and how its rows are shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench import derived, scaling
from tests.bench.tables import FLOW, LINES, LIVE, READING, SCALING, START, Column, Row

Figures = dict[str, Any]
"""``machine``, ``versions``, and ``parts``: of each its ``date``, the ``load`` before it, its ``rows``."""


@dataclass(frozen=True)
class Part:
    """``module`` has ``measured(part, options)``, which makes rows, and ``names(part)``, which says which.

    It is loaded when it is needed: some need numpy, which takes its time.
    """

    name: str
    module: str
    columns: Sequence[Column]
    derive: Callable[[Figures, Sequence[Row]], Sequence[Row]]
    keys: tuple[str, ...]

    def measured(self, options: object) -> list[Row]:
        """Run it."""
        rows: list[Row] = importlib.import_module(self.module).measured(self.name, options)
        return rows

    def names(self) -> list[tuple[str, ...]]:
        """What its rows are called, whether they could be measured or not: the values of ``keys``."""
        names: list[tuple[str, ...]] = importlib.import_module(self.module).names(self.name)
        return names

    def rows(self, figures: Figures) -> Sequence[Row]:
        """What was measured, with what follows from it."""
        return self.derive(figures, figures["parts"][self.name]["rows"])


def _beside_one_packet(figures: Figures, rows: Sequence[Row]) -> Sequence[Row]:
    return derived.reading(rows, figures["parts"].get("start", {"rows": []})["rows"])


def _reading(name: str) -> Part:
    return Part(name, "tests.bench.reading", READING, _beside_one_packet, ("traffic", "reader"))


def _lines(name: str) -> Part:
    return Part(name, f"tests.bench.{name}", LINES, lambda _, rows: rows, ("what",))


PARTS = {
    part.name: part
    for part in (
        Part("start", "tests.bench.reading", START, lambda _, rows: derived.start(rows), ("traffic", "reader")),
        _reading("readers"),
        _reading("growth"),
        _reading("kinds"),
        Part("scaling", "tests.bench.scaling", SCALING, lambda _, rows: scaling.derived(rows), ("workers",)),
        Part("flow", "tests.bench.flowmemory", FLOW, lambda _, rows: rows, ("traffic",)),
        _lines("pauses"),
        _lines("enrich"),
        _lines("encode"),
        Part("live", "tests.bench.live", LIVE, lambda _, rows: derived.live(rows), ("program",)),
    )
}
"""In the order in which they run: ``start`` first, which others refer to. Each has its place on the page."""
