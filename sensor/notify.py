"""What systemd wants to hear of a service: that it is ready, that it lives, that it stops; see sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time

_MICROSECONDS = 1e6


class Notifier:
    """Says it to the socket that systemd names; where there is none, to nobody.

    It connects at once, since whoever starts it may be about to lose the right to. Use as a context manager.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._connect()
        self._every = _watchdog_seconds() / 3
        self._said = 0.0

    def __enter__(self) -> Notifier:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ready(self) -> None:
        """The interface is open and everything that is written to."""
        self._say("READY=1\nSTATUS=capturing")

    def alive(self) -> None:
        """Called more often than is needed; systemd hears it three times in the time that it waits."""
        now = time.monotonic()
        if self._every and now - self._said >= self._every:
            self._said = now
            self._say("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._say(f"STATUS={text}")

    def stopping(self) -> None:
        """It will end soon."""
        self._say("STOPPING=1\nSTATUS=writing the last windows")

    def _say(self, what: str) -> None:
        if self._address:
            try:
                self._socket.send(what.encode())
            except OSError:  # systemd was started anew
                self._connect()
                with contextlib.suppress(OSError):
                    self._socket.send(what.encode())

    def _connect(self) -> None:
        if self._address:
            name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            with contextlib.suppress(OSError):
                self._socket.connect(name)


def _watchdog_seconds() -> float:
    """0 where systemd does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
    except ValueError:
        return 0.0
