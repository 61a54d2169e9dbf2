"""Commands that Ctrl-C ends early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sensor.errors import INTERRUPTED, SensorError
from sensor.stopping import Stop, stop_on_signals


class Interrupted(SensorError):
    """Ctrl-C or SIGTERM ended the command early."""

    exit_status = INTERRUPTED


@contextlib.contextmanager
def interruptible(said: str = "interrupted; the packets read so far are counted") -> Iterator[Stop]:
    """A signal ends the command early, as interrupted; what has been read so far is still written."""
    with stop_on_signals() as stop:
        try:
            yield stop
        except SensorError:
            if not stop():
                raise
    if stop():
        raise Interrupted(said)
