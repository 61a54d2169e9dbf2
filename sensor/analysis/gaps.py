"""Times in which nothing was captured, as events: what is missing in them was not silent."""

from __future__ import annotations

from collections.abc import Iterator

from sensor.analysis.findings import Finding, Scene

MOST_SAID = 100
"""In one window; an interface that flaps more often than that is one event more or less."""


class GapWatch:
    """A detector that is told of gaps by whoever captures; it says them with the next window."""

    def __init__(self, interface: str) -> None:
        self.unsaid = 0
        self._interface = interface
        self._gaps: list[tuple[int, int, str, str]] = []

    def add(self, began_ns: int, ended_ns: int, why: str, what: str = "nothing was captured") -> None:
        """Nothing was captured between these times, or not all of it."""
        if len(self._gaps) < MOST_SAID:
            self._gaps.append((began_ns, ended_ns, why, what))
        else:
            self.unsaid += 1

    def look(self, scene: Scene) -> Iterator[Finding]:
        """The gaps that have ended since the last window."""
        gaps, self._gaps = self._gaps, []
        for began_ns, ended_ns, why, what in gaps:
            seconds = max(ended_ns - began_ns, 0) / 1e9
            yield Finding(
                "capture_gap", "warning", "", self._interface, "",
                f"{what} on {self._interface} for {seconds:.1f} s: {why}",
                {"milliseconds": round(seconds * 1000)}, began_ns, once=True,
            )  # fmt: skip
