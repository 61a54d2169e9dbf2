"""The sensor and its InfluxDB, running in a lab's tap namespace."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.blaster import Wire
from tests.lab import PATIENCE, Lab, Namespace, wait_until
from tests.needs import need_tool

INFLUX_URL = "http://127.0.0.1:8086"  # in the tap's own namespace: the port is free and nobody else reaches it
INFLUX_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:8088"
[meta]
dir = "{0}/meta"
[data]
dir = "{0}/data"
wal-dir = "{0}/wal"
[http]
bind-address = "127.0.0.1:8086"
log-enabled = false
[monitor]
store-enabled = false
"""


def family_of(pid: int) -> dict[str, int]:
    """The processes of a capture, by name: the supervisor, its keeper and the keeper's workers."""
    family, unseen = {"supervisor": pid}, [pid]
    while unseen:
        parent = unseen.pop()
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            unseen += [int(child) for child in children]
            family |= {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in children}
    return family


def workers_of(pid: int) -> list[int]:
    """The capture processes of a supervisor, in the order of their numbers."""
    family = family_of(pid)
    return [family[name] for name in sorted(family) if name.startswith("vms-worker-")]


def as_nobody(*capabilities: str) -> list[str]:
    """Prefix that runs a program as an ordinary user who may read the test's own Python, with these capabilities."""
    need_tool("setpriv")
    granted = ",".join(f"+{name}" for name in ("dac_read_search", *capabilities))
    user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return ["setpriv", *user, "--inh-caps", granted, "--ambient-caps", granted]


class Influx:
    """InfluxDB 1.x in the tap's namespace; it ends with the lab."""

    def __init__(self, tap: Namespace, directory: Path) -> None:
        self.tap = tap
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        config = directory / "influxdb.conf"
        config.write_text(INFLUX_CONFIG.format(directory))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        tap.popen([need_tool("influxd"), "-config", str(config)], **quiet)
        wait_until(self.answers, "influxd to answer")

    def fetch(self, path: str, data: bytes | None = None) -> bytes:
        """The body of the answer to one request."""
        with self.tap.inside(), self._opener.open(INFLUX_URL + path, data, timeout=5) as answer:
            return bytes(answer.read())

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            self.fetch("/ping")
        except OSError:
            return False
        return True

    def create(self, database: str) -> str:
        """Make a database and return its name."""
        self.fetch("/query", urllib.parse.urlencode({"q": f"CREATE DATABASE {database}"}).encode())
        return database

    @staticmethod
    def options(database: str, window: str) -> list[str]:
        """What makes the sensor write its windows here."""
        return ["--window", window, "--to", "influx", "--influx-url", INFLUX_URL, "--influx-bucket", database]

    def query(self, database: str, statement: str) -> list[dict[str, Any]]:
        """Rows of an InfluxQL answer: columns and tags by name, times in ns."""
        answer = self.fetch("/query?" + urllib.parse.urlencode({"db": database, "q": statement, "epoch": "ns"}))
        (result,) = json.loads(answer)["results"]
        assert "error" not in result, result["error"]
        return [
            series.get("tags", {}) | dict(zip(series["columns"], row, strict=True))
            for series in result.get("series", [])
            for row in series["values"]
        ]


@dataclass(frozen=True)
class Ended:
    """How a sensor ended."""

    status: int
    output: str
    errors: str

    @property
    def totals(self) -> re.Match[str]:
        """The line of totals: received, the fates behind it, dropped by kernel, dropped by NIC, unread."""
        line = self.errors.strip().splitlines()[-1]
        match = re.fullmatch(
            r"received (\d+) = (\d+ .+); dropped by kernel (\d+), by NIC (\d+|-)(?:, unread (\d+))?", line
        )
        assert match is not None, self.errors
        return match

    @property
    def received(self) -> int:
        """Packets the sensor says it has received."""
        return int(self.totals[1])

    @property
    def dropped_kernel(self) -> int:
        """Packets that the capture socket had no room for, it says."""
        return int(self.totals[3])

    @property
    def dropped_nic(self) -> int:
        """Packets that the interface lost before the socket, it says."""
        return int(self.totals[4])

    @property
    def unread(self) -> int:
        """Packets that came to the socket and were not read before the capture ended."""
        return int(self.totals[5] or 0)

    def complaint(self) -> str:
        """The one line of an error."""
        (line,) = self.errors.strip().splitlines()
        assert "Traceback" not in line
        return line


class Sensor:
    """``vmsensor capture`` in the tap's namespace, of a lab or of a wire."""

    def __init__(self, lab: Lab | Wire, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.flow_file = directory / "flows.jsonl"

    def start(self, *options: str, interface: str = "span0", prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start it; its embedded store, which is InfluxDB's spool as well, goes to the test's directory."""
        command = [*prefix, sys.executable, "-m", "sensor", "capture", interface]
        return self.lab.tap.popen([*command, "--store", str(self.directory / "store"), *options])

    def capture(self, *options: str, **start: Any) -> subprocess.Popen[str]:
        """Start it and wait until it sees every packet."""
        process = self.start(*options, **start)
        self.lab.await_capture(process)
        return process

    @staticmethod
    def ended(process: subprocess.Popen[str], with_signal: signal.Signals | None = None) -> Ended:
        """Stop it, or wait for its own end."""
        if with_signal is not None:
            process.send_signal(with_signal)
        output, errors = process.communicate(timeout=PATIENCE)
        return Ended(process.returncode, output, errors)

    def flows(self) -> list[dict[str, Any]]:
        """The flow records it has written."""
        return [json.loads(line) for line in self.flow_file.read_text().splitlines()]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two VMs on a switch with a SPAN port. Files that need another cloud have a fixture of this name of their own."""
    with Lab(["web", "app"]) as lab:
        yield lab


@pytest.fixture
def sensor(lab: Lab, tmp_path: Path) -> Sensor:
    """A sensor on the lab of the file, not running yet."""
    return Sensor(lab, tmp_path)
