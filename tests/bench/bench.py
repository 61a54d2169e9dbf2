"""Packets per second and memory of vmsensor beside a bare libpcap loop over the same file, in the same run.

Each reader is a whole process on one core, start-up included. The repetitions take turns (A B C A B C ...), so that
whatever else the machine does meets all of them alike, and the medians are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build" / "bench"
STORE = BUILD / "store"
OUTPUT = BUILD / "output"

FULL, QUICK = (6_100_000, 200_000, 5000), (200_000, 6500, 1000)  # packets, flows, virtual machines
GOAL = 3_000_000
LIMIT_S = 300
BATCH = 4096

BARE, BATCHES, SENSOR, STORING = "bare libpcap loop", "pcapy-ng next_batch", "vmsensor, no sink", "vmsensor, store"


@dataclass
class Reader:
    """One row. ``counted`` finds the number of packets in what it prints; ``absent`` says why it cannot run."""

    name: str
    command: list[str]
    counted: str | None = None
    absent: str | None = None
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_kib: list[int] = field(default_factory=list)
    packets: int | None = None


def main() -> None:
    """Build what is missing, run everything, print the table."""
    options = parse()
    packets, flows, vms = QUICK if options.quick else FULL
    os.chdir(ROOT)
    BUILD.mkdir(parents=True, exist_ok=True)
    trace = make_trace(packets, flows, vms)
    readers = contenders(trace, flows)
    stay_on_one_core()
    warm(trace)
    try:
        for _ in range(options.repetitions):
            for reader in readers:
                if reader.absent is None:
                    measure(reader, packets)
    finally:
        shutil.rmtree(STORE, ignore_errors=True)
    result = summary(readers, trace, packets, flows)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small trace: shows that the benchmark works, no more")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error("--repetitions: at least 1")
    if options.json:
        options.json = options.json.resolve()
    return options


def fail(message: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"bench: {message}")


def make_trace(packets: int, flows: int, vms: int) -> Path:
    """The capture, made again when its generator is younger."""
    trace = BUILD / f"{packets}-packets-{flows}-flows.pcap"
    generator = [HERE / name for name in ("make_trace.py", "conversations.py", "frames.py")]
    if not trace.exists() or trace.stat().st_mtime < max(source.stat().st_mtime for source in generator):
        print(f"Making {trace.relative_to(ROOT)} ...", flush=True)
        sizes = ["--packets", str(packets), "--flows", str(flows), "--vms", str(vms)]
        command = [sys.executable, "-m", "tests.bench.make_trace", *sizes, "--out", str(trace)]
        if subprocess.run(command, check=False).returncode != 0:
            fail("the trace could not be made")
    return trace


def contenders(trace: Path, flows: int) -> list[Reader]:
    """What runs, in the order of the table."""
    file, sensor = str(trace), [sys.executable, "-m", "sensor"]
    totals, absent = r"received (\d+) = ", why_absent([*sensor, "--version"])
    return [
        Reader(BARE, [str(build_bare_loop()), libpcap(), file], r"(\d+) packets"),
        Reader(BATCHES, [sys.executable, str(HERE / "next_batch_loop.py"), file, str(BATCH)], r"(\d+) packets"),
        Reader(SENSOR, [*sensor, "read", file, "--to", "none"], totals, absent),
        Reader(STORING, [*sensor, "read", file, "--store", str(STORE)], totals, absent),
        tool("tcpdump -w /dev/null", ["tcpdump", "-r", file, "-w", "/dev/null"]),
        tool(
            "softflowd",
            ["softflowd", "-d", "-r", file, "-m", str(2 * flows), "-c", "none", "-p", str(BUILD / "softflowd.pid")],
            r"Packets processed: (\d+)",
        ),
    ]


def tool(name: str, command: list[str], counted: str | None = None) -> Reader:
    """A program that may not be installed; administrators' directories are looked through too."""
    path = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Reader(name, [path or "", *command[1:]], counted, None if path else "not installed")


def why_absent(command: list[str]) -> str | None:
    """None when this command works, or else the last line that it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["cannot be run"])[-1]


def build_bare_loop() -> Path:
    """Compile the yardstick."""
    program = BUILD / "bare_loop"
    source = str(HERE / "bare_loop.c")
    command = [os.environ.get("CC", "cc"), "-O3", "-o", str(program), source, "-ldl"]
    if shutil.which(command[0]) is None or subprocess.run(command, check=False).returncode != 0:
        fail(f"{source} could not be compiled; on Debian or Ubuntu: apt-get install build-essential")
    return program


def libpcap() -> str:
    """The library inside pcapy-ng's wheel, or the system's where pcapy-ng was built here."""
    found = importlib.util.find_spec("pcapy")
    if found is None or found.origin is None:
        fail("pcapy-ng is not installed for this Python; `make bench` sees to that")
    return next(map(str, Path(found.origin).parent.glob("pcapy_ng.libs/libpcap-*.so*")), "libpcap.so.0.8")


def stay_on_one_core() -> None:
    """Children inherit it: no reader gains from having several threads."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def warm(trace: Path) -> None:
    """Bring the file into the page cache."""
    with trace.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def measure(reader: Reader, packets: int) -> None:
    """Run it once. The time is that of the whole process; the kernel tells the rest when it is reaped."""
    shutil.rmtree(STORE, ignore_errors=True)
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    streams = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    begin = time.perf_counter()
    child = os.posix_spawn(reader.command[0], reader.command, os.environ, file_actions=streams)
    limit = threading.Timer(LIMIT_S, os.kill, (child, signal.SIGKILL))
    limit.start()
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    limit.cancel()
    os.close(output)
    reader.wall_s.append(wall)
    reader.cpu_s.append(usage.ru_utime + usage.ru_stime)
    reader.peak_kib.append(usage.ru_maxrss)
    check(reader, status, packets)


def check(reader: Reader, status: int, packets: int) -> None:
    """A reader that failed or missed packets is not compared with the others."""
    printed = OUTPUT.read_text(errors="replace")
    if status != 0:
        fail(f"{reader.name} failed: {(printed.strip().splitlines() or [f'wait status {status}'])[-1]}")
    if reader.counted is not None:
        found = re.search(reader.counted, printed)
        reader.packets = int(found[1]) if found else None
        if reader.packets != packets:
            fail(f"{reader.name} counted {reader.packets} of {packets} packets")


def summary(readers: list[Reader], trace: Path, packets: int, flows: int) -> dict[str, Any]:
    """Everything that was measured, as it goes to JSON."""
    rows = [row(reader, packets, median(readers[0].wall_s)) for reader in readers]
    rate = next(entry for entry in rows if entry["reader"] == SENSOR).get("packets_per_second")
    return {
        "machine": {"cpu": processor(), "kernel": platform.release(), "python": platform.python_version()},
        "trace": {"packets": packets, "flows": flows, "bytes": trace.stat().st_size},
        "goal_met": rate >= GOAL if rate is not None and packets == FULL[0] else None,
        "rows": rows,
    }


def row(reader: Reader, packets: int, bare: float) -> dict[str, Any]:
    """One reader's medians.

    The kernel counts into a child's peak what this process needed when it started it: below that, it is only a bound.
    """
    if reader.absent is not None:
        return {"reader": reader.name, "skipped": reader.absent}
    wall, peak = median(reader.wall_s), max(reader.peak_kib)
    return {
        "reader": reader.name,
        "packets": reader.packets,
        "packets_per_second": round(packets / wall),
        "ns_per_packet": round(1e9 * wall / packets, 1),
        "ratio": round(bare / wall, 3),
        "wall_s": [round(seconds, 3) for seconds in reader.wall_s],
        "cpu_s": round(median(reader.cpu_s), 3),
        "peak_mib": round(peak / 1024, 1),
        "peak_is_bound": peak <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def processor() -> str:
    """The processor's name as Linux knows it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def table(result: dict[str, Any]) -> str:
    """What `make bench` prints."""
    machine, trace = result["machine"], result["trace"]
    verdict = {True: "met", False: "MISSED", None: "not judged"}[result["goal_met"]]
    lines = [
        f"{trace['packets']:,} packets, {trace['flows']:,} flows, {trace['bytes'] / 2**20:.0f} MiB; one core of "
        f"{machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}",
        "",
        f"{'':<22}{'packets/s':>14}{'ns/packet':>12}{'x bare loop':>13}{'cpu s':>9}{'peak MiB':>10}",
        *map(line, result["rows"]),
        "",
        "Medians of whole processes, start-up included; <: below what the benchmark itself needs.",
        f"Goal, {GOAL:,} packets/s on one core for `vmsensor read --to none`: {verdict}",
    ]
    return "\n".join(lines)


def line(entry: dict[str, Any]) -> str:
    """One row of the table."""
    if "skipped" in entry:
        return f"{entry['reader']:<22}  skipped: {entry['skipped']}"
    peak = ("< " if entry["peak_is_bound"] else "") + format(entry["peak_mib"], ".1f")
    numbers = f"{entry['packets_per_second']:>14,}{entry['ns_per_packet']:>12,.1f}{entry['ratio']:>13.2f}"
    return f"{entry['reader']:<22}{numbers}{entry['cpu_s']:>9.2f}{peak:>10}"


if __name__ == "__main__":
    main()
