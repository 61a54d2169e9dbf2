"""Live capture: CPU time per packet, losses and memory of vmsensor beside others, at the same rate in the same run.

A sender puts packets of TCP conversations on a wire between two network namespaces, for one program after the other.
It needs root, and leaves the host's own network alone. The CPU time is that of all processes of a program, from when it
captures until shortly after the last packet: starting is not in it. ``python -m tests.bench.live`` is this part alone,
under another load.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.contenders import NO_NFSTREAM, TCPDUMP, found, why_no_sensor
from tests.bench.paths import BUILD, HERE, NFSTREAM, ROOT
from tests.bench.tables import LIVE, terminal
from tests.blaster import Wire

SETTLE_SECONDS = 1.5
"""From the last packet to the reading: longer than any of them keeps packets, NFStream's report is once a second."""
EXIT_SECONDS = 10
TICK = os.sysconf("SC_CLK_TCK")
NAMES = ("vmsensor", "vmsensor, 2 workers", TCPDUMP, "softflowd", "argus", "NFStream")
LOAD = {"seconds": 10, "rate": 200_000, "flows": 1000}
NEEDS = "needs root and ip (iproute2), to make network namespaces"


@dataclass(frozen=True)
class Contender:
    """One row. ``received`` and ``dropped`` find numbers in what it prints, or in answers before or after its end."""

    name: str
    command: list[str]
    received: str | None = None
    dropped: str | None = None
    rings: int = 1
    absent: str | None = None
    ask: tuple[str, ...] = ()
    ask_after: tuple[str, ...] = ()


def contenders(interface: str) -> list[Contender]:
    """What runs, in the order of the table."""
    sensor = [sys.executable, "-m", "sensor", "capture", interface, "--to", "none", "--store", str(BUILD / "store")]
    totals, lost = r"received (\d+) = ", r"dropped by kernel (\d+)"
    absent = why_no_sensor()
    control, flows = str(BUILD / "softflowd.ctl"), BUILD / "argus.out"
    flows.unlink(missing_ok=True)
    softflowd = ["softflowd", "-d", "-i", interface, "-m", "1000000", "-c", control, "-p", str(BUILD / "softflowd.pid")]
    nfstream = [str(NFSTREAM), str(HERE / "nfstream_loop.py"), interface]
    return [
        Contender("vmsensor", sensor, totals, lost, absent=absent),
        Contender("vmsensor, 2 workers", [*sensor, "--workers", "2"], totals, lost, rings=2, absent=absent),
        tool(
            TCPDUMP, ["tcpdump", "-i", interface, "-w", "/dev/null"],
            r"(\d+) packets captured", r"(\d+) packets dropped by kernel",
        ),
        tool(
            "softflowd", softflowd, r"Packets processed: (\d+)", r"Packets dropped by libpcap: (\d+)",
            ask=("softflowctl", "-c", control, "statistics"),
        ),
        tool(
            "argus", ["argus", "-i", interface, "-w", str(flows)], r"\s+sum\s+\d+\s+(\d+)",
            ask_after=("racount", "-r", str(flows)),
        ),
        Contender(
            "NFStream", nfstream, r'"packets_processed": (\d+)', r'"packets_dropped_filtered_by_kernel": (\d+)',
            absent=None if NFSTREAM.exists() else NO_NFSTREAM,
        ),
    ]  # fmt: skip


def tool(name: str, command: list[str], received: str, dropped: str | None = None, **more: Any) -> Contender:
    """A program that may not be installed."""
    absent = None if found(command[0]) else "not installed"
    return Contender(name, command, received, dropped, absent=absent, **more)


def measure(wire: Wire, contender: Contender, load: dict[str, int]) -> dict[str, Any]:
    """One row: start it, send, read what it took and what it says."""
    if contender.absent:
        return {"program": contender.name, "skipped": contender.absent}
    output = BUILD / "live-output"
    with output.open("w") as printed:
        process = wire.tap.popen(
            contender.command, stdout=printed, stderr=printed, start_new_session=True, cwd=ROOT
        )  # fmt: skip
        wire.await_capture(process, contender.rings)
        time.sleep(SETTLE_SECONDS)  # whatever else it does when it starts
        before = cpu_seconds(wire.tap.pids())
        sent = wire.blast(**load)
        time.sleep(SETTLE_SECONDS)
        running = wire.tap.pids()
        cpu, memory = cpu_seconds(running) - before, sum(map(peak_kib, running))
        answer = ask(contender.ask)
        end(wire, process)
    text = output.read_text(errors="replace") + answer + ask(contender.ask_after)
    received, dropped = number(contender.received, text), number(contender.dropped, text)
    return {
        "program": contender.name, "offered": sent.offered, "refused": sent.refused, "rate": round(sent.rate),
        "received": received, "dropped": dropped, "cpu_s": round(cpu, 2),
        "cpu_ns_per_packet": round(1e9 * cpu / (received or sent.taken), 1), "peak_mib": round(memory / 1024, 1),
    }  # fmt: skip


def end(wire: Wire, process: subprocess.Popen[str]) -> None:
    """Stop a program and all that it has started; NFStream's meter does not end by itself."""
    os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + EXIT_SECONDS
    while wire.tap.pids() and time.monotonic() < deadline:
        time.sleep(0.05)
        process.poll()
    for pid in wire.tap.pids():
        os.kill(pid, signal.SIGKILL)
    process.wait()


def ask(command: tuple[str, ...]) -> str:
    """What another program says of it."""
    if not command or not found(command[0]):
        return ""
    path = str(found(command[0]))
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False, timeout=EXIT_SECONDS)
    return done.stdout + done.stderr


def number(pattern: str | None, text: str) -> int | None:
    """The last that it said; None if it does not say."""
    said = re.findall(pattern, text) if pattern else []
    return int(said[-1]) if said else None


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes and of the children that they have reaped."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(value) for line in fields for value in line[11:15]) / TICK


def peak_kib(pid: int) -> int:
    """The most that a process has had in memory; pages that processes share count in each."""
    return number(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) or 0


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each, at the load that docs/benchmarks.md shows."""
    return rows(LOAD | {"seconds": 1, "rate": 20_000} if options.quick else LOAD)


def names(part: str) -> list[tuple[str, ...]]:
    """The programs."""
    return [(name,) for name in NAMES]


def rows(load: dict[str, int]) -> list[dict[str, Any]]:
    """A row for each, one after the other."""
    if os.geteuid() != 0 or not found("ip"):
        return [{"program": name, "skipped": NEEDS} for name in NAMES]
    BUILD.mkdir(parents=True, exist_ok=True)
    done = []
    with Wire("bench") as wire:
        for contender in contenders(wire.span_interface):
            print(f"live: {contender.name} ...", flush=True)
            done.append(measure(wire, contender, load))
    return done


def main() -> None:
    """Run all at any load, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=LOAD["seconds"], help="for each program (default: 10)")
    parser.add_argument(
        "--rate", type=int, default=LOAD["rate"], help="packets a second; 0: the best (default: 200000)"
    )
    parser.add_argument("--flows", type=int, default=LOAD["flows"], help="TCP conversations (default: 1000)")
    print(terminal(LIVE, rows(vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
