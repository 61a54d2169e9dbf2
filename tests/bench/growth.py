"""How the flow table grows: the longest that a packet waits meanwhile, and what a flow takes, everything included.

``python -m tests.bench.growth`` feeds new flows through native/ alone, packet by packet, and prints the longest call;
then it makes a capture of as many flows, prints what they take in the table, and the most that the process of
``vmsensor read --to none`` has in memory. Where others share the core, only the processor's time tells something.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.bench import BUILD, HERE, ROOT
from tests.bench.instructions import OPTIONS

PACKETS_A_FLOW, VMS = 9, 5000


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth")
    parser.add_argument("--flows", type=int, default=1_000_000, help="of the capture about half are held at a time")
    options = parser.parse_args()
    os.chdir(ROOT)
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"== {options.flows:,} new flows, packet by packet", flush=True)
    subprocess.run([built("pauses"), str(options.flows)], check=True)
    path = trace(options.flows)
    print(f"== a capture of {options.flows:,} flows", flush=True)
    subprocess.run([built("footprint"), path], check=True)
    print(f"vmsensor read --to none: at most {peak_of_read(path) / 1e6:.0f} MB, Python included")


def built(name: str) -> Path:
    """A C program beside this file, compiled with native/ as one."""
    program = BUILD / name
    whole = program.with_suffix(".c")
    sources = [*sorted((ROOT / "native").glob("*.c")), HERE / f"{name}.c"]
    whole.write_text("".join(f'#include "{path}"\n' for path in sources))
    subprocess.run(["cc", *OPTIONS, "-pthread", "-Inative", "-o", program, whole], check=True)
    return program


def trace(flows: int) -> Path:
    """The capture, made if it is not there."""
    path = BUILD / f"growth-{flows}-flows.pcap"
    if not path.exists():
        sizes = ["--packets", str(PACKETS_A_FLOW * flows), "--flows", str(flows), "--vms", str(VMS)]
        subprocess.run([sys.executable, "-m", "tests.bench.make_trace", *sizes, "--out", path], check=True)
    return path


def peak_of_read(path: Path) -> int:
    """Most octets that the whole process had in memory."""
    command = [sys.executable, "-m", "sensor", "read", str(path), "--to", "none"]
    quietly = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=quietly)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit("growth: vmsensor read failed")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
