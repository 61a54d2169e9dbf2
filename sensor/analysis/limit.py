"""One threshold of a detector: its key in the configuration file, its unit and its default."""

from __future__ import annotations

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
