"""Instructions that the data plane takes for a packet, beside those that are on record: a gate that noise cannot move.

``python -m tests.bench.instructions`` makes small captures, counts them through native/ alone under callgrind, and
fails when one of them takes 5 % more than ``instructions.toml`` says. ``--update`` writes what they take now. Another
compiler makes other instructions: the figures are those of the compiler that stands beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from sensor.textfiles import parse_toml
from tests.bench.build import built_with_native
from tests.bench.paths import BUILD, HERE, ROOT

RECORD = HERE / "instructions.toml"
ALLOWED = 1.05
PACKETS, FLOWS, VMS = 60_000, 3000, 500
KINDS = {"tcp": [], "vxlan": ["--vxlan"], "syn_flood": ["--syn-flood"], "udp": ["--udp-only"]}


def compiler() -> str:
    """Which one, with its version."""
    return subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def trace(kind: str) -> Path:
    """The capture of a kind."""
    path = BUILD / f"instructions-{kind}.pcap"
    sizes = ["--packets", str(PACKETS), "--flows", str(FLOWS), "--vms", str(VMS)]
    command = [sys.executable, "-m", "tests.bench.make_trace", *sizes, *KINDS[kind], "--out", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return path


def instructions(path: Path) -> float:
    """For each packet of a capture."""
    command = [
        "valgrind",
        "--tool=callgrind",
        f"--callgrind-out-file={BUILD / 'callgrind.out'}",
        str(built_with_native("count_file")),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    packets = re.search(r"(\d+) packets", done.stdout)
    assert collected is not None, done.stderr
    assert packets is not None, done.stdout
    return int(collected[1]) / int(packets[1])


def measured() -> dict[str, Any]:
    """What it takes now, with what that depends on."""
    paths = {kind: trace(kind) for kind in KINDS}
    digests = {kind: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for kind, path in paths.items()}
    counts = {kind: round(instructions(path), 1) for kind, path in paths.items()}
    return {"compiler": compiler(), "capture": digests, "per_packet": counts}


def recorded() -> dict[str, Any]:
    """What is on record."""
    return parse_toml(RECORD.read_text(), RECORD)


def incomparable(now: dict[str, Any], before: dict[str, Any]) -> str | None:
    """Why the two cannot be compared."""
    if now["compiler"] != before["compiler"]:
        return f"recorded with {before['compiler']}, this is {now['compiler']}"
    if now["capture"] != before["capture"]:
        return "this numpy draws other captures"
    return None


def slower(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The kinds that take more than they may."""
    counts = {kind: (now["per_packet"][kind], before["per_packet"][kind]) for kind in KINDS}
    return [
        f"{kind}: {count:,} instructions a packet, {was:,} on record"
        for kind, (count, was) in counts.items() if count > ALLOWED * was
    ]  # fmt: skip


def write(now: dict[str, Any]) -> None:
    """Put it on record."""
    lines = ["# Instructions a packet; python -m tests.bench.instructions --update", f'compiler = "{now["compiler"]}"']
    for table in ("per_packet", "capture"):
        lines += ["", f"[{table}]", *(f"{kind} = {value!r}".replace("'", '"') for kind, value in now[table].items())]
    RECORD.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Print both; status 1 when it takes more than it may."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.instructions")
    parser.add_argument("--update", action="store_true", help="put what it takes now on record")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("instructions: valgrind is not installed; on Debian or Ubuntu: apt-get install valgrind")
    now = measured()
    if options.update:
        write(now)
    before = recorded()
    for kind, count in now["per_packet"].items():
        print(f"{kind:<12}{count:>10,.1f} instructions a packet; on record {before['per_packet'][kind]:,.1f}")
    why = incomparable(now, before)
    if why:
        sys.exit(f"instructions: cannot be compared: {why}")
    for complaint in slower(now, before):
        print(f"instructions: {complaint}", file=sys.stderr)
    sys.exit(1 if slower(now, before) else 0)


if __name__ == "__main__":
    main()
