"""The list of captures: each scene registers its builders, with a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Capture:
    """A file to make: what it shows, and the function that makes its content."""

    name: str
    shows: str
    build: Callable[[], bytes]


CAPTURES: list[Capture] = []


def capture(name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register the decorated builder; its docstring says what the capture shows."""

    def register(build: Callable[[], bytes]) -> Callable[[], bytes]:
        CAPTURES.append(Capture(name, (build.__doc__ or "").rstrip("."), build))
        return build

    return register
