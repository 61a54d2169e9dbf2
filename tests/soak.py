"""A capture at half the machine's best rate for as long as asked: memory stays flat, and no descriptor is left open.

``make soak`` runs a quarter of an hour; ``make proof`` a minute of it. Beside conversations come SYNs of ever new
addresses, so that flows begin and end all the time; windows, flow records and what is learned are written.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low

from tests.blaster import Sent, Wire, sent
from tests.live import Ended, Sensor, family_of

FLOWS = 1000
SYNS_PER_SECOND = 200
SAMPLE_SECONDS = 1.0
SETTLE_SECONDS = 1.0
WARM_SECONDS = 180
"""The first part: two minutes of ever new addresses are what the detectors remember, and then forget."""
GROWTH, MARGIN_KIB = 1.05, 4096
"""After the first part, no process may have more than so many times what it had in it, and so many KiB."""


@dataclass
class Process:
    """One process of the capture, over time."""

    name: str
    resident_kib: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Take a sample."""
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert match is not None
        self.resident_kib.append(int(match[1]))
        self.descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))

    def faults(self, warm: int) -> Iterator[str]:
        """What has grown after so many samples."""
        before, after = max(self.resident_kib[:warm]), max(self.resident_kib[warm:])
        if after > before * GROWTH + MARGIN_KIB:
            yield f"{self.name}: {before:,} KiB at first, {after:,} KiB later"
        # The median of a stretch: some are open for a moment, as while the interface is asked, or not yet.
        open_at_first, open_later = median_low(self.descriptors[:warm]), median_low(self.descriptors[-warm:])
        if open_later > open_at_first:
            yield f"{self.name}: {open_at_first} descriptors at first, {open_later} later"


@dataclass
class Soaked:
    """What came of it."""

    processes: list[Process]
    made: list[Sent]
    ended: Ended
    warm: int

    @property
    def faults(self) -> list[str]:
        """Why it has failed."""
        found = [fault for process in self.processes for fault in process.faults(self.warm)]
        offered, told = sum(one.offered for one in self.made), self.ended
        accounted = told.received + told.dropped_kernel + told.dropped_nic + told.unread
        if told.status or accounted != offered:
            found.append(f"sent {offered:,}, accounted for {accounted:,}, status {told.status}: {told.errors}")
        return found

    def __str__(self) -> str:
        seconds = max(one.seconds for one in self.made)
        offered = sum(one.offered for one in self.made)
        lines = [f"{offered:,} packets in {seconds:.0f} s ({offered / seconds:,.0f}/s); {self.ended.totals[0]}"]
        for process in self.processes:
            resident = [f"{part[-1] / 1024:,.0f}" for part in _tenths(process.resident_kib)]
            lines.append(f"{process.name:<14} MiB {' '.join(resident)}; descriptors {process.descriptors[-1]}")
        return "\n".join(lines)


def _tenths(samples: list[int]) -> Iterator[list[int]]:
    size = max(len(samples) // 10, 1)
    return (samples[at : at + size] for at in range(0, len(samples), size))


def soak(seconds: int, warm_seconds: int, directory: Path) -> Soaked:
    """Run it; the wire and all processes are gone afterwards."""
    with Wire("soak") as wire:
        best = wire.blast(seconds=1, flows=FLOWS).rate
        sensor = Sensor(wire, directory)
        options = ("--window", "2s", "--to", "store", "--store-size", "64MiB", "--flows", str(directory / "flows"))
        process = sensor.capture(*options, "--idle-timeout", "5s", "--max-flows", "100000")
        family = {name: (pid, Process(name)) for name, pid in family_of(process.pid).items()}
        senders = [
            wire.blasting(seconds=seconds, rate=int(best / 2), flows=FLOWS),
            wire.blasting(seconds=seconds, rate=SYNS_PER_SECOND, flows=1, syns=SYNS_PER_SECOND - 1),
        ]
        while any(sender.poll() is None for sender in senders):
            time.sleep(SAMPLE_SECONDS)
            for pid, samples in family.values():
                samples.look(pid)
        made = [sent(sender) for sender in senders]
        time.sleep(SETTLE_SECONDS)
        ended = sensor.ended(process, signal.SIGTERM)
    return Soaked([samples for _, samples in family.values()], made, ended, int(warm_seconds / SAMPLE_SECONDS))


@contextmanager
def place() -> Iterator[Path]:
    """A directory for what it writes."""
    with tempfile.TemporaryDirectory(prefix="vmsensor-soak-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def main() -> None:
    """Print what came of it; status 1 when something has grown, or a packet is in no number."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=900, help="how long (default: 900)")
    seconds = parser.parse_args().seconds
    if os.geteuid() != 0:
        sys.exit("soak: needs root, to make network namespaces")
    with place() as directory:
        soaked = soak(seconds, min(WARM_SECONDS, seconds // 3), directory)
    print(soaked)
    for fault in soaked.faults:
        print(f"soak: {fault}", file=sys.stderr)
    sys.exit(1 if soaked.faults else 0)


if __name__ == "__main__":
    main()
