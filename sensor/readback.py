"""Windows of the past, from a store or from capture files, for the commands that look at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sensor.config import Settings
from sensor.errors import DamagedInputError
from sensor.runner import read_files
from sensor.show import stored_reports
from sensor.sinks.callback import CallbackSink
from sensor.stopping import Stop
from sensor.window import Report

Take = Callable[[Report], None]


def each_report(source: Path, settings: Settings, take: Take, stop: Stop) -> DamagedInputError | None:
    """Hand every window of a store (a directory) or of a capture file on, in its order.

    What is returned says what of it could not be read: to be raised when the rest has been shown.
    """
    if not source.is_dir():
        try:
            read_files(settings, [str(source)], None, stop, sinks=[CallbackSink(take)])
        except DamagedInputError as damage:
            return damage
        return None
    damaged: list[str] = []
    for report in stored_reports(source, damaged):
        take(report)
        if stop():
            break
    return DamagedInputError(f"{source}: {damaged[0]}; everything else is in the result") if damaged else None
