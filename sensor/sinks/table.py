"""The summary on the terminal, printed when the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sensor.output import standard_output
from sensor.summary import Summary, print_summary
from sensor.window import Report


class TableSink:
    """Adds up what it is given and prints it at the end; ``where`` then says where the results are kept."""

    name = "table"

    def __init__(self, where: Callable[[], Iterable[str]] = lambda: ()) -> None:
        self._summary = Summary()
        self._where = where

    def open(self) -> None:
        """Fail now if there is nothing to print to."""
        standard_output()

    def write(self, report: Report) -> None:
        """Add one window."""
        self._summary.add_report(report)

    def health(self) -> Mapping[str, int | float]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Print."""
        print_summary(self._summary, self._where())
