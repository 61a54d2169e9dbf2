"""What the sensor's outputs and workers say of themselves, gathered for measurement ``sensor``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from sensor.metrics import HEALTH, HEALTH_COUNTS

Figures = Mapping[str, int | float]


class Health:
    """Asks every output; of two with the same figure, lags are the longest, all else is summed."""

    def __init__(self) -> None:
        self._outputs: list[Callable[[], Figures]] = []
        self._reported: Counter[str] = Counter()

    def watch(self, output: Callable[[], Figures]) -> None:
        """Ask this one too, from now on."""
        self._outputs.append(output)

    def since_last(self) -> dict[str, int | float | None]:
        """Every figure of ``metrics.HEALTH``; None for what no output has."""
        found: dict[str, int | float | None] = dict.fromkeys(HEALTH)
        for output in self._outputs:
            for name, value in output().items():
                before = found[name]
                found[name] = value if before is None else max(before, value) if name.endswith("_s") else before + value
        for name in HEALTH_COUNTS:
            total = found[name]
            if total is not None:
                found[name] = total - self._reported[name]
                self._reported[name] = int(total)
        return found
