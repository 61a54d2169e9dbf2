"""Reports to a function of this process: for commands that work on windows instead of writing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sensor.window import Report


class CallbackSink:
    """Calls the function with each window."""

    name = "callback"

    def __init__(self, take: Callable[[Report], None]) -> None:
        self._take = take

    def open(self) -> None:
        """Nothing to get ready."""

    def write(self, report: Report) -> None:
        """Hand it on."""
        self._take(report)

    def health(self) -> Mapping[str, int | float]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing to finish."""
