"""``vmsensor top`` on a terminal: keys, redrawing, and the terminal given back as it was, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sensor.errors import OutputError
from sensor.output import standard_output, write
from sensor.sinks.blocks import require_store
from sensor.sinks.follow import Follower
from sensor.stopping import Stop
from sensor.views import topscreen
from sensor.views.top import Board, Choice, Row

POLL = 0.5
"""Seconds between two looks at the store."""

REDRAW_NS = 10**9
"""So often the age of the window is drawn anew."""

MOST = 10**9
"""More rows than there are."""

_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMED = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down",
    b"\x1b[H": "home", b"\x1bOH": "home", b"\x1b[1~": "home", b"\x1b[F": "end", b"\x1bOF": "end", b"\x1b[4~": "end",
    b" ": "page down", b"k": "up", b"j": "down", b"g": "home", b"G": "end",
}  # fmt: skip


def top(directory: Path, choice: Choice, is_once: bool, stop: Stop) -> None:
    """Show the newest window of the store, and each that follows; where there is no terminal, only the newest."""
    console = Console(file=standard_output(), highlight=False, emoji=False)
    if is_once or not console.is_terminal or console.is_dumb_terminal:
        _print(directory, choice, console)
        return
    try:
        with Keyboard(stop) as keyboard, _live(console) as live:
            Viewer(directory, choice, console, live).run(keyboard, stop)
    except OSError as error:
        raise OutputError(f"standard output: cannot write: {error.strerror}; run it on a terminal") from None


def _print(directory: Path, choice: Choice, console: Console) -> None:
    require_store(directory)
    board = Board()
    board.take(Follower(directory).fresh())
    lines = topscreen.once(board, choice, console.width if console.is_terminal else None, time.time_ns())
    if not lines:
        write(f"{directory}: no window yet\n")
        return
    drawer = Console(force_terminal=console.is_terminal, width=2**15, highlight=False, emoji=False)
    with drawer.capture() as text:
        drawer.print(Text("\n").join(lines), no_wrap=True)
    write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))


def _live(console: Console) -> Live:
    return Live(Text(), console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


class Keyboard:
    """Keys one by one, without echo, as long as the context lasts; and a wait that a signal ends.

    Ctrl-Z is off: a shell would find its prompt on the other screen.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._fd = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._undo = contextlib.ExitStack()
        self._wake = -1

    def __enter__(self) -> Keyboard:
        with contextlib.ExitStack() as undo:
            self._wake, waker = os.pipe()
            os.set_blocking(waker, False)
            undo.callback(os.close, self._wake)
            undo.callback(os.close, waker)
            undo.callback(self._stop.then, lambda: None)
            before = signal.signal(signal.SIGWINCH, lambda *_: _nudge(waker))
            undo.callback(signal.signal, signal.SIGWINCH, before)
            if self._fd is not None:
                undo.callback(termios.tcsetattr, self._fd, termios.TCSAFLUSH, termios.tcgetattr(self._fd))
                _one_by_one(self._fd)
            self._stop.then(lambda: _nudge(waker))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def wait(self, seconds: float) -> Iterator[str]:
        """The keys that are pressed within this time; it is over with the first of them, or with a signal."""
        watched = [self._wake] if self._fd is None else [self._wake, self._fd]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 100)
        if self._fd not in ready or self._fd is None:
            return
        pressed = os.read(self._fd, 1000)
        if not pressed:  # the terminal has gone
            self._stop.ask()
        for key in _KEY.findall(pressed):
            yield _NAMED.get(key) or key.decode("ascii", "replace")


def _one_by_one(fd: int) -> None:
    tty.setcbreak(fd, termios.TCSADRAIN)
    modes = termios.tcgetattr(fd)
    modes[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(fd, termios.TCSADRAIN, modes)


def _nudge(fd: int) -> None:
    with contextlib.suppress(OSError):  # full, or closed a moment ago
        os.write(fd, b"!")


class Viewer:
    """What is on the screen, and what keys do to it."""

    def __init__(self, directory: Path, choice: Choice, console: Console, live: Live) -> None:
        self._directory, self._choice, self._console, self._live = directory, choice, console, live
        self._follower, self._board = Follower(directory), Board()
        self._rows: list[Row] = []
        self._first = 0
        self._drawn: tuple[object, ...] = ()

    def run(self, keyboard: Keyboard, stop: Stop) -> None:
        """Until ``q``, or a signal."""
        while not stop():
            if self._board.take(self._follower.fresh()):
                self._order(self._choice)
            self._draw()
            for key in keyboard.wait(POLL):
                if key in ("q", "Q"):
                    return
                self._press(key)

    def _order(self, choice: Choice) -> None:
        self._choice, self._drawn = choice, ()
        if self._board.window is not None:
            self._rows = choice.of(self._board.window.rows)

    def _press(self, key: str) -> None:
        if key in topscreen.KEYS:
            self._first = 0
            self._order(replace(self._choice, sort=topscreen.KEYS[key]))
        page = topscreen.room_for_rows(self._board, self._console.height)
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -MOST, "end": MOST}
        self._first = max(min(self._first + steps.get(key, 0), len(self._rows) - page), 0)

    def _draw(self) -> None:
        """Only where something is another than before; the age of the window is each second."""
        width, height = self._console.size
        self._first = max(min(self._first, len(self._rows) - topscreen.room_for_rows(self._board, height)), 0)
        now_ns = time.time_ns()
        state = (width, height, self._first, now_ns // REDRAW_NS)
        if state == self._drawn:
            return
        self._drawn = state
        if self._board.window is None:
            lines = topscreen.waiting(self._directory, width, height)
        else:
            page = topscreen.Page(self._rows, self._first, width, height)
            lines = topscreen.screen(self._board, self._board.window, self._choice, page, now_ns)
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)
