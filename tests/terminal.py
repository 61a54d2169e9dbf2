"""A program on a pseudo-terminal, as a person has it: what it draws, what keys do, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

from tests.needs import ROOT

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OTHER_SCREEN, HOME_SCREEN, CURSOR_OFF, CURSOR_ON = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """``with Terminal(argv) as terminal``; the program is killed at the end if it still runs."""

    def __init__(self, argv: list[str], width: int = 120, height: int = 30, **variables: str) -> None:
        self._keyboard, self._line = pty.openpty()
        self.said = ""
        self.resize(width, height)
        self.modes = termios.tcgetattr(self._line)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **variables}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            argv, stdin=self._line, stdout=self._line, stderr=self._line, env=environment, cwd=ROOT,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._keyboard)
        os.close(self._line)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size; the kernel then tells the program."""
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: str) -> None:
        """Type, Ctrl-C as its character too."""
        os.write(self._keyboard, keys.encode())

    def lines(self) -> list[str]:
        """The newest screen, without colours."""
        frame = self.said.rpartition("\x1b[H")[2]
        return [line.rstrip() for line in ESCAPE.sub("", frame).replace("\r", "").split("\n")]

    def await_screen(self, condition: Callable[[list[str]], Any], timeout: float = 20) -> list[str]:
        """The first screen that meets the condition."""
        deadline = time.monotonic() + timeout
        while not condition(self.lines()):
            assert time.monotonic() < deadline, self.said[-3000:]
            self._listen(0.05)
        return self.lines()

    def end(self, with_signal: signal.Signals | None = None, timeout: float = 20) -> int:
        """Send a signal, or none, and wait for the end: the status, or the signal that killed it, negative."""
        if with_signal is not None:
            self.process.send_signal(with_signal)
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it goes on"
            self._listen(0.05)
        while self._listen(0.05):
            pass
        return int(self.process.returncode)

    def is_as_before(self) -> bool:
        """Echo and all other modes as they were, the first screen back, the cursor seen."""
        return (
            termios.tcgetattr(self._line) == self.modes
            and self.said.rfind(OTHER_SCREEN) <= self.said.rfind(HOME_SCREEN)
            and self.said.rfind(CURSOR_OFF) <= self.said.rfind(CURSOR_ON)
        )

    def _listen(self, seconds: float) -> bool:
        if not select.select([self._keyboard], [], [], seconds)[0]:
            return False
        self.said += os.read(self._keyboard, 65536).decode("utf-8", "replace")
        return True
