"""Live capture: CPU time per packet, losses and memory of vmsensor beside others, at the same rate in the same run.

``python -m tests.bench.live`` has a sender put packets of TCP conversations on a wire between two network namespaces,
for one program after the other. It needs root, and leaves the host's own network alone. The CPU time is that of all
processes of a program, from when it captures until shortly after the last packet: starting is not in it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.bench import BUILD, HERE, ROOT, processor, why_absent
from tests.blaster import Wire

SETTLE_SECONDS = 1.5
"""From the last packet to the reading: longer than any of them keeps packets, NFStream's report is once a second."""
EXIT_SECONDS = 10
TICK = os.sysconf("SC_CLK_TCK")
YARDSTICK = "tcpdump -w /dev/null"


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
    absent = why_absent([sys.executable, "-m", "sensor", "--version"])
    control, flows = str(BUILD / "softflowd.ctl"), BUILD / "argus.out"
    flows.unlink(missing_ok=True)
    softflowd = ["softflowd", "-d", "-i", interface, "-m", "1000000", "-c", control, "-p", str(BUILD / "softflowd.pid")]
    nfstream = [sys.executable, str(HERE / "nfstream_loop.py"), interface]
    return [
        Contender("vmsensor", sensor, totals, lost, absent=absent),
        Contender("vmsensor, 2 workers", [*sensor, "--workers", "2"], totals, lost, rings=2, absent=absent),
        tool(
            YARDSTICK, ["tcpdump", "-i", interface, "-w", "/dev/null"],
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
            absent=None if importlib.util.find_spec("nfstream") else "not installed: pip install 'vmsensor[bench]'",
        ),
    ]  # fmt: skip


def tool(name: str, command: list[str], received: str, dropped: str | None = None, **more: Any) -> Contender:
    """A program that may not be installed."""
    absent = None if found(command[0]) else "not installed"
    return Contender(name, command, received, dropped, absent=absent, **more)


def found(program: str) -> str | None:
    """Where it is; administrators' directories are looked through too."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


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


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """What it prints."""
    asked = f"{options.rate:,} packets/s asked for" if options.rate else "the sender's best rate"
    yardstick = next((row["cpu_ns_per_packet"] for row in rows if row["program"] == YARDSTICK and "rate" in row), None)
    head = f"{'packets/s':>11}{'sent':>13}{'received':>13}{'dropped':>11}{'CPU ns/packet':>15}{'x tcpdump':>11}"
    return "\n".join(
        [
            f"Live: {asked}, {options.seconds} s each, {options.flows:,} conversations; "
            f"{len(os.sched_getaffinity(0))} processors, {processor()}",
            "",
            f"{'':<22}{head}{'peak MiB':>10}",
            *(line(row, yardstick) for row in rows),
            "",
            "Counts as each says itself; -: it does not. CPU per packet received, and memory, of all its processes.",
        ]
    )


def line(row: dict[str, Any], yardstick: float | None) -> str:
    """One row of the table."""
    if "skipped" in row:
        return f"{row['program']:<22}  skipped: {row['skipped']}"
    ratio = f"{row['cpu_ns_per_packet'] / yardstick:.2f}" if yardstick else "-"
    counts = f"{row['rate']:>11,}{row['offered']:>13,}{known(row['received']):>13}{known(row['dropped']):>11}"
    return f"{row['program']:<22}{counts}{row['cpu_ns_per_packet']:>15,.0f}{ratio:>11}{row['peak_mib']:>10.1f}"


def known(count: int | None) -> str:
    """A count, or a dash."""
    return "-" if count is None else f"{count:,}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=10, help="for each program (default: 10)")
    parser.add_argument("--rate", type=int, default=200_000, help="packets a second; 0: the best (default: 200000)")
    parser.add_argument("--flows", type=int, default=1000, help="TCP conversations (default: 1000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def main() -> None:
    """Run all, print the table."""
    options = parse()
    if os.geteuid() != 0 or not found("ip"):
        print("Live: skipped: needs root and ip (iproute2), to make network namespaces")
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    load = {"seconds": options.seconds, "rate": options.rate, "flows": options.flows}
    with Wire("bench") as wire:
        rows = [measure(wire, contender, load) for contender in contenders(wire.span_interface)]
    print(table(rows, options))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
