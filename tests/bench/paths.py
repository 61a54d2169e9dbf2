"""Where the benchmark's parts lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build" / "bench"
NFSTREAM = ROOT / "build" / "nfstream" / "bin" / "python"
"""NFStream has a Python of its own, which `make bench` sets up: it needs other packages than the sensor does."""

FIGURES = HERE / "figures.json"
"""What was measured last, on record: the tables of docs/benchmarks.md are made of it."""
