"""Builds the cloud, measures it, shows it, and removes everything that it has made, however it ends.

Environment: LAB_SECONDS is how long it runs, LAB_DATA where the results are kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sensor.errors import INTERRUPTED
from sensor.stopping import Stop, stop_on_signals
from tests.cloud.site import TENANTS, lab_of, lay_cables, machines, write_inventory
from tests.lab import Lab
from tests.live import Influx, Sensor

TOOLS = {"ip": "iproute2", "tc": "iproute2", "ethtool": "ethtool"}
"""Each with the Debian package that has it."""

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
WINDOW = "2s"
TELL_SECONDS = 10
VMSENSOR = [sys.executable, "-m", "sensor"]
DATABASE = "lab"


class CannotError(Exception):
    """The lab cannot be built, or did not hold; the message says what to do."""


class StoppedError(Exception):
    """A signal has asked to stop."""


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def require(seconds: str) -> float:
    """How long to run; CannotError where something is missing."""
    if os.geteuid() != 0:
        raise CannotError("it makes network namespaces, which takes root: sudo make lab")
    for tool, package in TOOLS.items():
        if shutil.which(tool, path=PATH) is None:
            raise CannotError(f"{tool} is not installed; on Debian or Ubuntu: apt-get install {package}")
    if not Path("/dev/net/tun").exists():
        raise CannotError("there is no /dev/net/tun, which the VMs' cables are made of: modprobe tun")
    try:
        number = float(seconds)
    except ValueError:
        number = 0
    if not 1 <= number <= 86400:
        raise CannotError(f"LAB_SECONDS={seconds}: give a number of seconds, from 1 to 86400")
    return number


class Run:
    """One run of the lab, in steps; ``cleanup`` undoes what was done."""

    def __init__(self, seconds: float, stop: Stop, cleanup: ExitStack) -> None:
        self._seconds, self._stop, self._cleanup = seconds, stop, cleanup
        self._vms = machines(seconds / 2)
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._talking: dict[str, subprocess.Popen[str]] = {}
        self.place = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="vmsensor-lab-")))
        self.place.chmod(0o755)  # the sensor gives up being root
        self.store = self.place / "store"

    def measure(self) -> str:
        """Everything up to the end of the sensor; its line of totals."""
        lab = self._build()
        influx = self._influx(lab)
        sensor = Sensor(lab, self.place)
        process = self._capture(sensor, influx)
        self._talk(lab)
        self._look(lab)
        self._check()
        self._silence()
        ended = sensor.ended(process, signal.SIGINT)
        if ended.status != 0:
            raise CannotError(f"the sensor ended with status {ended.status}: {ended.errors.strip()}")
        if influx is not None:
            rows = influx.query(DATABASE, "SELECT COUNT(packets) FROM vm_traffic")
            say(f"InfluxDB has {rows[0]['count'] if rows else 0:,} points of VM pairs.")
        return ended.errors.strip().splitlines()[-1]

    def _check(self) -> None:
        if self._stop():
            raise StoppedError

    def _build(self) -> Lab:
        say(f"Building a cloud: {len(TENANTS)} tenants on the same addresses, {len(self._vms)} VMs, a mirror ...")
        lab = self._cleanup.enter_context(lab_of(self._vms))
        self._check()
        self._running.update(lay_cables(lab, self._vms, self._check))
        write_inventory(self._vms, lab, self.place / "vms.csv")
        self._cleanup.enter_context(lab.mirror())
        self._check()
        return lab

    def _influx(self, lab: Lab) -> Influx | None:
        if shutil.which("influxd", path=PATH) is None:
            say("InfluxDB 1.x is not installed (Debian: apt-get install influxdb): going on without it.")
            return None
        directory = self.place / "influxd"
        directory.mkdir()
        influx = Influx(lab.tap, directory)
        influx.create(DATABASE)
        self._check()
        return influx

    def _capture(self, sensor: Sensor, influx: Influx | None) -> subprocess.Popen[str]:
        options = Influx.options(DATABASE, WINDOW) if influx else ["--window", WINDOW, "--to", "store"]
        process = sensor.start(*options, "--inventory", str(self.place / "vms.csv"), "--sensor-name", "lab")
        sensor.lab.await_capture(process)
        self._running["the sensor"] = process
        self._check()
        return process

    def _talk(self, lab: Lab) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for vm in self._vms:
            command = [sys.executable, "-m", "tests.cloud.traffic", *vm.runs]
            self._talking[f"what runs in {vm.name}"] = lab.vm(vm.name).popen(command, **quiet)
        say(f"The sensor measures for {self._seconds:g} s, windows of {WINDOW}. Half-way shop-1 scans ports of dns-1.")

    def _silence(self) -> None:
        """End the traffic before the sensor, so that nothing is left unread."""
        for process in self._talking.values():
            process.kill()
        time.sleep(0.5)

    # ---- while it runs

    def _look(self, lab: Lab) -> None:
        deadline = time.monotonic() + self._seconds
        if sys.stdin.isatty() and sys.stdout.isatty():
            self._view(deadline)
        else:
            self._tell(lab, deadline)

    def _goes_on(self, deadline: float) -> bool:
        for name, process in {**self._running, **self._talking}.items():
            if process.poll() is not None:
                said = (process.communicate()[1] or "").strip().splitlines()
                raise CannotError(f"{name} has ended with status {process.returncode}: {said[-1] if said else '-'}")
        return not self._stop() and time.monotonic() < deadline

    def _view(self, deadline: float) -> None:
        """The live view, until the time is over or until ``q``."""
        say("q ends it now, with the summary; Ctrl-C without.")
        time.sleep(1)
        with subprocess.Popen([*VMSENSOR, "top", str(self.store)], stderr=subprocess.PIPE, text=True) as view:
            try:
                while view.poll() is None and self._goes_on(deadline):
                    time.sleep(0.1)
            finally:
                if view.poll() is None:
                    view.terminate()
                errors = view.communicate()[1]
        self._check()  # a view that Ctrl-C and we have ended at the same time has no status to speak of
        if view.returncode not in (0, INTERRUPTED):
            raise CannotError(f"vmsensor top has ended with status {view.returncode}: {errors.strip()}")

    def _tell(self, lab: Lab, deadline: float) -> None:
        """A line now and then."""
        told = time.monotonic()
        while self._goes_on(deadline):
            time.sleep(0.1)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                packets = lab.span_counters().rx_packets
                say(f"  {max(deadline - told, 0):.0f} s to go, {packets:,} packets came to the mirror port")


def keep(store: Path, place: Path) -> None:
    """Move the results to where they stay; they belong to whoever called sudo."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.move(store, place)
    owner = int(os.environ.get("SUDO_UID", 0)), int(os.environ.get("SUDO_GID", 0))
    for path in (place, *place.iterdir()):
        os.chown(path, *owner)


def summarise(place: Path, totals: str) -> None:
    """What was measured, and where to look further."""
    subprocess.run([*VMSENSOR, "show", str(place)], check=False)
    vmsensor = ".venv/bin/vmsensor"
    say(f"{totals}\n\nThe results are kept in {place}; look further:")
    for line in ("matrix {} --metric loss", "dependencies {}", "explain web-1 {}"):
        say(f"  {vmsensor} {line.format(place)}")
    say("InfluxDB and Grafana of your own:")
    say(f"  {vmsensor} push {place} --influx-url http://127.0.0.1:8086\n  {vmsensor} grafana export grafana")


def run(seconds: float, place: Path, stop: Stop) -> None:
    """Build, measure, remove, summarise."""
    with ExitStack() as cleanup:
        cleanup.callback(say, "The cloud is removed: namespaces, processes, temporary files.")
        one = Run(seconds, stop, cleanup)
        try:
            totals = one.measure()
        except (CannotError, RuntimeError, TimeoutError):
            if stop():  # the signal may have ended what had just been started
                raise StoppedError from None
            raise
        keep(one.store, place)
    summarise(place, totals)


def main() -> int:
    """The exit status; what goes wrong is one line."""
    try:
        seconds = require(os.environ.get("LAB_SECONDS", "60"))
        with stop_on_signals() as stop:
            run(seconds, Path(os.environ.get("LAB_DATA", "lab-data")), stop)
    except StoppedError:
        print("make lab: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (CannotError, RuntimeError, TimeoutError, OSError, pytest.skip.Exception, pytest.fail.Exception) as error:
        print(f"make lab: {error}", file=sys.stderr)
        return 1
    return 0
