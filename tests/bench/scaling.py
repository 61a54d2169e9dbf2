"""How much faster several processes read a capture than one: whole processes, start-up included, taking turns.

The pairs (1 and 2 workers, then 2 and 1) follow each other closely, so that whatever else the machine does meets both
alike; the median of the pairs' ratios is told, and the CPU time, which other programs disturb less.

usage: python -m tests.bench.scaling [--pairs N] [--workers N] [--quick] [FILE]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
FULL, QUICK = (6_100_000, 200_000, 5000), (200_000, 6500, 1000)  # packets, flows, virtual machines: bench.py's
LIMIT_S = 300


@dataclass(frozen=True)
class Run:
    """What one reading took; ``cpu_s`` is of all its processes."""

    wall_s: float
    cpu_s: float
    packets: int


def main() -> None:
    """Read the trace again and again, print the table."""
    options = parse()
    os.chdir(ROOT)
    trace = options.file or make_trace(*(QUICK if options.quick else FULL))
    counts = (1, options.workers)
    runs: dict[int, list[Run]] = {count: [] for count in counts}
    read(trace, 1)  # brings the file into the page cache
    for pair in range(options.pairs):
        for count in counts if pair % 2 == 0 else counts[::-1]:
            runs[count].append(read(trace, count))
    if len({run.packets for several in runs.values() for run in several}) > 1:
        sys.exit("scaling: not all runs counted as many packets")
    print(table(runs))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scaling", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small trace: shows that the benchmark works, no more")
    parser.add_argument("file", type=Path, nargs="?")
    options = parser.parse_args()
    if options.pairs < 1 or options.workers < 2:
        parser.error("at least one pair, and two workers")
    options.file = options.file and options.file.resolve()
    return options


def make_trace(packets: int, flows: int, vms: int) -> Path:
    """The capture that `make bench` reads."""
    trace = BUILD / f"{packets}-packets-{flows}-flows.pcap"
    if not trace.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        sizes = ["--packets", str(packets), "--flows", str(flows), "--vms", str(vms)]
        command = [sys.executable, "-m", "tests.bench.make_trace", *sizes, "--out", str(trace)]
        subprocess.run(command, check=True)
    return trace


def read(trace: Path, workers: int) -> Run:
    """Run it once."""
    command = [sys.executable, "-m", "sensor", "read", str(trace), "--to", "none", "--workers", str(workers)]
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        limit = threading.Timer(LIMIT_S, os.kill, (process.pid, signal.SIGKILL))
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)  # with its workers, which it has waited for
        wall = time.perf_counter() - begin
        limit.cancel()
        output.seek(0)
        printed = output.read().decode(errors="replace")
    found = re.search(r"received (\d+) = ", printed)
    if status != 0 or found is None:
        sys.exit(f"scaling: {workers} workers failed: {printed.strip()[-500:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, int(found[1]))


def table(runs: dict[int, list[Run]]) -> str:
    """A row for each number of workers."""
    alone = runs[1]
    lines = [
        f"{alone[0].packets:,} packets, medians of {len(alone)} pairs, {len(os.sched_getaffinity(0))} processors, "
        f"load {os.getloadavg()[0]:.1f}",
        "",
        f"{'workers':>8}{'packets/s':>14}{'wall s':>9}{'cpu s':>8}{'speed-up':>10}{'cpu each':>10}",
    ]
    for count, several in runs.items():
        gain = median(one.wall_s / other.wall_s for one, other in zip(alone, several, strict=True))
        each = median(other.cpu_s / count / one.cpu_s for one, other in zip(alone, several, strict=True))
        wall, cpu = (median(getattr(run, name) for run in several) for name in ("wall_s", "cpu_s"))
        lines.append(f"{count:>8}{several[0].packets / wall:>14,.0f}{wall:>9.2f}{cpu:>8.2f}{gain:>10.2f}{each:>10.2f}")
    lines += ["", "speed-up: wall time of one / of several; cpu each: a worker's part of the CPU time that one takes."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
