"""How long a server keeps points, as servers write it and as people read it."""

from __future__ import annotations

import re

_UNITS_NS = {"ns": 1, "u": 10**3, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
             "h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9, "y": 31536000 * 10**9}  # fmt: skip
_PART = re.compile(r"(\d+)(ns|us|µs|ms|[usmhdwy])")


def parse(text: str) -> int | None:
    """``720h0m0s`` or ``30d`` in ns; None, which is for ever, of ``0s``, ``INF`` and nothing."""
    ns = sum(int(number) * _UNITS_NS[unit] for number, unit in _PART.findall(text))
    return ns or None


def in_words(ns: int | None) -> str:
    """``for 30 days``, ``for ever``."""
    if ns is None:
        return "for ever"
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(ns, seconds * 10**9)
        if count and not rest:
            return f"for {count} {unit}{'' if count == 1 else 's'}"
    return f"for {ns / 1e9:g} seconds"
