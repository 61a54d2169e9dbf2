"""All thresholds of all detectors: the keys under ``[limits]`` in the configuration file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from sensor.analysis import edges, eventbook, lifecycle, movement
from sensor.analysis.limit import Limit
from sensor.analysis.security import bruteforce, cards, flood, scan, spoof

LIMITS: tuple[Limit, ...] = tuple(
    limit
    for module in (eventbook, lifecycle, movement, edges, scan, flood, bruteforce, spoof, cards)
    for limit in getattr(module, "LIMITS", ())
)

DEFAULTS: dict[str, float] = {limit.name: limit.default for limit in LIMITS}


def limits_with(given: Mapping[str, object]) -> dict[str, float]:
    """The defaults, with some of them changed; ValueError with what is wrong."""
    for name, value in given.items():
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, 1)
            raise ValueError(f"unknown limit {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{name} takes a number, not {value!r}")
    limits = {**DEFAULTS, **{name: float(value) for name, value in given.items()}}  # type: ignore[arg-type]
    scan.Odds.of(limits)
    return limits
