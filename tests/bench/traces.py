"""The kinds of traffic that are measured, and the capture file of each: made once, and again when its makers change."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.paths import BUILD, HERE, ROOT

MAKERS = [HERE / name for name in ("make_trace.py", "conversations.py", "frames.py")]
PACKETS = 6_100_000
MOST_FLOWS = 1_000_000
"""The sensor's own --max-flows, if no more is asked for."""
SMALLER = 30


@dataclass(frozen=True)
class Traffic:
    """A capture: so many packets of so many flows between so many virtual machines."""

    name: str
    packets: int = PACKETS
    flows: int = 200_000
    vms: int = 5000
    options: tuple[str, ...] = ()
    max_flows: int = MOST_FLOWS
    flood: bool = False  # no conversations: each packet is a flow

    @property
    def held(self) -> int:
        """How many of its flows the sensor's table has room for."""
        return min(self.packets if self.flood else self.flows, self.max_flows)

    @property
    def path(self) -> Path:
        """Its capture file."""
        words = [
            str(self.packets),
            "packets",
            str(self.flows),
            "flows",
            *(word.strip("-").replace("=", "-") for word in self.options),
        ]
        return BUILD / f"{'-'.join(words)}.pcap"

    def smaller(self) -> Traffic:
        """The same kind in little: shows that the benchmark works, no more."""
        packets = max(1, self.packets // SMALLER // 2 * 2)
        return replace(
            self,
            packets=packets,
            flows=0 if self.flood else max(1, self.flows // SMALLER),
            vms=max(2, self.vms // SMALLER),
        )


STANDARD = Traffic("200,000 flows")
GROWTH = (
    Traffic("1,000 flows", flows=1000, vms=1000),
    Traffic("10,000 flows", flows=10_000, vms=1000),
    Traffic("100,000 flows", flows=100_000),
    Traffic("1,000,000 flows", flows=1_000_000, vms=25_000),
    Traffic("4,000,000 flows", flows=4_000_000, vms=100_000, max_flows=4_000_000),
)
KINDS = (
    Traffic("IMIX, whole packets", packets=PACKETS // 2, flows=100_000, options=("--imix",)),
    Traffic("SYN flood", flows=0, options=("--syn-flood=1",), flood=True),
    Traffic("all VXLAN", options=("--vxlan",)),
    Traffic("all twice", options=("--twice",)),
)
ONE_PACKET = Traffic("one packet", packets=1, flows=1, vms=2)


def made(traffic: Traffic) -> Path:
    """Its file, which is there when this returns."""
    path = traffic.path
    if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in MAKERS):
        print(f"Making {path.relative_to(ROOT)} ...", flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        sizes = ["--packets", str(traffic.packets), "--flows", str(traffic.flows), "--vms", str(traffic.vms)]
        command = [sys.executable, "-m", "tests.bench.make_trace", *sizes, *traffic.options, "--out", str(path)]
        if subprocess.run(command, check=False, cwd=ROOT).returncode != 0:
            sys.exit(f"bench: {path.name} could not be made")
    return path
