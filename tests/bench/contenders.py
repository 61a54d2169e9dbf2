"""What reads the same capture beside the sensor: the bare libpcap loop, tcpdump, and three that keep flows."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bench.build import built
from tests.bench.paths import BUILD, HERE, NFSTREAM, ROOT
from tests.bench.traces import ONE_PACKET, Traffic, made

STORE = BUILD / "store"
BATCH = 4096
LIMIT_S = 60
NO_NFSTREAM = "not installed; `make bench` installs it from PyPI"

BARE, BATCHES, SENSOR, STORING = "bare libpcap loop", "pcapy-ng next_batch", "vmsensor, no sink", "vmsensor, store"
TCPDUMP = "tcpdump -w /dev/null"
READERS = (BARE, BATCHES, SENSOR, STORING, TCPDUMP, "softflowd", "argus", "NFStream")
"""All, in the order of the table."""


@dataclass(frozen=True)
class Contender:
    """A program over a capture file.

    ``counted`` finds the number of packets in what it prints, None: it does not say. ``absent`` says why it cannot run.
    ``keeps_flows``: some only count. ``most`` bounds the repetitions of a slow one.
    """

    name: str
    command: Callable[[Traffic], list[str]]
    counted: str | None = None
    absent: str | None = None
    keeps_flows: bool = True
    most: int = 100


def yardstick() -> Contender:
    """Reads and counts, no more: what libpcap itself takes."""
    command = [str(built("bare_loop")), libpcap()]
    return Contender(BARE, lambda traffic: [*command, str(traffic.path)], r"(\d+) packets", keeps_flows=False)


def sensor() -> Contender:
    """Everything that it does for a packet; its windows go nowhere."""
    return _sensor(SENSOR, "--to", "none")


def contenders() -> list[Contender]:
    """As ``READERS`` has them."""
    batches = [sys.executable, str(HERE / "next_batch_loop.py")]
    softflowd = ["-d", "-c", "none", "-p", str(BUILD / "softflowd.pid")]
    nfstream = [str(NFSTREAM), str(HERE / "nfstream_loop.py")]
    return [
        yardstick(),
        Contender(BATCHES, lambda t: [*batches, str(t.path), str(BATCH)], r"(\d+) packets", keeps_flows=False),
        sensor(),
        _sensor(STORING, "--store", str(STORE)),
        _tool(TCPDUMP, "tcpdump", lambda t: ["-r", str(t.path), "-w", "/dev/null"], keeps_flows=False),
        _tool(
            "softflowd", "softflowd",
            lambda t: [*softflowd, "-r", str(t.path), "-m", str(2 * t.flows)], r"Packets processed: (\d+)",
        ),
        _tool("argus", "argus", lambda t: ["-r", str(t.path), "-w", "/dev/null"]),
        Contender(
            "NFStream", lambda t: [*nfstream, str(t.path)], r"(\d+) packets",
            absent=None if NFSTREAM.exists() else NO_NFSTREAM, most=1,
        ),
    ]  # fmt: skip


def versions() -> dict[str, str | None]:
    """What runs here, each as it says itself; None where it is not installed."""
    nfstream = "import importlib.metadata as m; print(m.version('nfstream'))"
    return {
        "vmsensor": said(sys.executable, "-m", "sensor", "--version"),
        "Python": said(sys.executable, "--version"),
        "C compiler": said("cc", "--version", pattern=".*"),
        "libpcap of the bare loop": said(str(built("bare_loop")), libpcap(), str(made(ONE_PACKET))),
        "tcpdump": said("tcpdump", "--version"),
        "softflowd": said("softflowd", "-h"),
        "argus": said("argus", "-h"),
        "NFStream": said(str(NFSTREAM), "-c", nfstream),
    }


def said(program: str, *words: str, pattern: str = r"\d+(?:\.\w+)+") -> str | None:
    """The first version in what it prints; None when there is no such program."""
    path = found(program)
    if path is None:
        return None
    done = subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=ROOT)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[0].strip() if match else "unknown"


def found(program: str) -> str | None:
    """Where it is; administrators' directories are looked through too."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@cache
def why_no_sensor() -> str | None:
    """None when the sensor can be run, or else the last line that it wrote."""
    command = [sys.executable, "-m", "sensor", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=ROOT)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["cannot be run"])[-1]


def libpcap() -> str:
    """The library inside pcapy-ng's wheel, or the system's where pcapy-ng was built here."""
    spec = importlib.util.find_spec("pcapy")
    if spec is None or spec.origin is None:
        sys.exit("bench: pcapy-ng is not installed for this Python; `make bench` sees to that")
    return next(map(str, Path(spec.origin).parent.glob("pcapy_ng.libs/libpcap-*.so*")), "libpcap.so.0.8")


def _sensor(name: str, *sink: str) -> Contender:
    words = [sys.executable, "-m", "sensor", "read"]

    def command(traffic: Traffic) -> list[str]:
        return [*words, str(traffic.path), "--max-flows", str(traffic.max_flows), *sink]

    return Contender(name, command, r"received (\d+) = ", why_no_sensor())


def _tool(
    name: str, program: str, words: Callable[[Traffic], list[str]], counted: str | None = None, keeps_flows: bool = True
) -> Contender:
    path = found(program)
    return Contender(
        name, lambda traffic: [str(path), *words(traffic)], counted, None if path else "not installed", keeps_flows
    )
