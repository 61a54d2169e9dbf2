"""One threshold of a detector: its key in the configuration file, its unit and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["count", "ratio", "per second", "seconds"]


@dataclass(frozen=True)
class Limit:
    """A threshold: ``name`` is its key under ``[limits]`` in the configuration file."""

    name: str
    default: float
    unit: Unit
    help: str
    """What happens at it, one sentence."""


def in_ns(limits: Mapping[str, float], name: str) -> int:
    """A threshold in seconds as nanoseconds. Detectors ask when they need it: thresholds may change while they run."""
    return int(limits[name] * 1e9)
