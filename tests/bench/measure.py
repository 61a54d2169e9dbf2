"""Whole processes on one core, start-up included: how long each takes, and how much memory.

The repetitions take turns (A B C A B C ...), so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from tests.bench.build import built

LIMIT_S = 300


@dataclass
class Runs:
    """What the repetitions of one command took: seconds, and the most memory that any of them had."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_kib: int = 0

    def add(self, wall_ns: int, cpu_us: int, peak_kib: int) -> None:
        """One repetition."""
        self.wall_s.append(round(wall_ns / 1e9, 4))
        self.cpu_s.append(round(cpu_us / 1e6, 4))
        self.peak_kib = max(self.peak_kib, peak_kib)


@contextmanager
def one_core() -> Iterator[None]:
    """Children inherit it: none gains from having several threads."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def warm(file: Path) -> None:
    """Bring it into the page cache."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(1 << 20):
            pass


def run(name: str, command: Sequence[str], runs: Runs) -> str:
    """One repetition, added to ``runs``; what it printed. One that fails ends the benchmark."""
    with TemporaryFile() as output, TemporaryFile() as took:
        words = [str(built("timed")), str(took.fileno()), str(LIMIT_S), *command]
        ended = subprocess.run(words, stdout=output, stderr=output, pass_fds=(took.fileno(),), check=False)
        output.seek(0)
        took.seek(0)
        printed = output.read().decode(errors="replace")
        said = [int(number) for number in took.read().split()]
    if ended.returncode != 0 or said[3] != 0:
        last = (printed.strip().splitlines() or ["it was killed" if said[3:] else "it could not be started"])[-1]
        sys.exit(f"bench: {name} failed: {last}")
    runs.add(*said[:3])
    return printed
