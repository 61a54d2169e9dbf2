"""What signals ask for: Ctrl-C and SIGTERM to stop, which code that waits in C is told of as well; SIGHUP to reread.

SIGHUP is also what a terminal that closes sends. To a process with a terminal for its input it means that, and is a
request to stop; a service's input is none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """True once a signal has asked to stop. ``then`` says what is to happen at once, in another thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._callback: Callable[[], None] = lambda: None
        self._reread: Callable[[], None] | None = None

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._asked.is_set()

    def then(self, callback: Callable[[], None]) -> None:
        """Call this when asked; now, if that has been."""
        self._callback = callback
        if self():
            callback()

    def or_reread(self, callback: Callable[[], None]) -> None:
        """Call this, in another thread, when SIGHUP asks to; without it, or with a terminal, SIGHUP asks to stop."""
        if not sys.stdin or not sys.stdin.isatty():
            self._reread = callback

    def ask(self, number: int = signal.SIGTERM) -> None:
        """What a signal does."""
        if number == signal.SIGHUP and self._reread:
            self._reread()
            return
        self._asked.set()
        self._callback()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Signals ask to stop as long as the context lasts.

    Python runs signal handlers between two steps of the main thread, which may be waiting in C for a long time; but it
    writes to the wake-up descriptor at once. System calls go on after a signal: libpcap would take an interrupted one
    for the end of its file.
    """
    stop = Stop()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading, stop), name="signals", daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # nohup has SIGHUP ignored, and means it.
    asking = [n for n in NUMBERS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in asking}
    for number in asking:
        signal.siginterrupt(number, False)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _watch(reading: int, stop: Stop) -> None:
    while received := os.read(reading, 1):
        if received[0] in NUMBERS:
            stop.ask(received[0])
