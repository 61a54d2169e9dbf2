"""The generated parts of docs/benchmarks.md: tables of the figures on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.bench import goals, live
from tests.bench.parts import PARTS, Figures
from tests.bench.paths import FIGURES
from tests.bench.tables import Column, Row, markdown

MACHINE = (Column("part", "what"), Column("what it is, or its version", "unit"))


def recorded() -> Figures:
    """What is on record."""
    figures: Figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"parts": {}}
    return figures


def record(figures: Figures, file: Path = FIGURES) -> None:
    """Put it on record, or into another file."""
    file.write_text(json.dumps(figures, indent=1) + "\n")


def table(name: str) -> str:
    """A part, or that it is not on record."""
    part, figures = PARTS[name], recorded()
    if name not in figures["parts"]:
        return f"Not measured; `python -m tests.bench {name} --update` does it.\n"
    kept = figures["parts"][name]
    when = (
        f"{kept['date']}; {kept['load']:.1f} processes wanted to run on {figures['machine']['processors']} processors"
    )
    return f"{markdown(part.columns, part.rows(figures))}\n{when} just before.\n"


def verdicts(figures: Figures) -> list[Row]:
    """The goals, judged."""
    parts = {name: part.rows(figures) for name, part in PARTS.items() if name in figures["parts"]}
    return [goal.judged(parts) for goal in goals.GOALS]


def machine() -> str:
    """What it was measured on, and with."""
    figures = recorded()
    said = {**figures.get("machine", {}), **figures.get("versions", {})}
    rows = [{"what": name, "unit": value or "not installed"} for name, value in said.items()]
    return markdown(MACHINE, rows)


def load() -> str:
    """What the sender of the live part did."""
    seconds, rate, flows = (live.LOAD[name] for name in ("seconds", "rate", "flows"))
    return f"{rate:,} packets/s asked for, {seconds} s each, {flows:,} TCP conversations:\n"


GENERATED: dict[str, Callable[[], str]] = {
    "bench-machine": machine,
    "bench-goals": lambda: markdown(goals.COLUMNS, verdicts(recorded())),
    "bench-load": load,
    **{f"bench-{name}": lambda name=name: table(name) for name in PARTS},  # type: ignore[misc]
}
"""By the names of the comments between which they stand."""
