"""The sensor as a service: what systemd hears of it, and the unit that is shipped."""

from __future__ import annotations

import configparser
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor.notify import Notifier
from tests.command import SECONDS, command, environment
from tests.needs import ROOT, need_root

UNIT = ROOT / "systemd" / "vmsensor@.service"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket like the one that systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        yield listener


@pytest.mark.alone
def test_systemd_hears_that_it_is_ready_lives_and_stops(systemd: socket.socket, tmp_path: Path) -> None:
    """READY when the interface is open, WATCHDOG often enough while it runs, STOPPING before the last windows."""
    need_root()
    live = command("capture", "lo", "--to", "none", "--filter", "port 9", "--no-nic-setup")
    told = environment(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1500000")
    told.pop("WATCHDOG_PID", None)
    with subprocess.Popen(live, env=told, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert systemd.recv(200).decode().startswith("READY=1\n")
            beats = []
            for _ in range(3):
                assert systemd.recv(200) == b"WATCHDOG=1"
                beats.append(time.monotonic())
        finally:
            process.send_signal(signal.SIGTERM)
        while (last := systemd.recv(200).decode()) == "WATCHDOG=1":
            pass
        assert last.startswith("STOPPING=1")
        assert process.wait(SECONDS) == 0
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 1.5


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket, a socket that is gone, a watchdog of another process, nonsense: nothing happens."""
    for variables in (
        {},
        {"NOTIFY_SOCKET": "/nonexistent"},
        {"NOTIFY_SOCKET": "@nobody-listens", "WATCHDOG_USEC": "x"},
    ):
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with Notifier() as notifier:
            notifier.ready()
            notifier.alive()
            notifier.stopping()
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    with Notifier() as notifier:
        notifier.alive()


def unit() -> configparser.ConfigParser:
    """The unit, parsed; keys as they are written."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(UNIT.read_text())
    return parsed


def test_the_unit_is_confined() -> None:
    """Its own account, two capabilities and no more, nothing of the system writable, watched and started again."""
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 30
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_RAW CAP_NET_ADMIN"
    assert (service["DynamicUser"], service["ProtectSystem"], service["Restart"]) == ("yes", "strict", "always")
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    words = service["ExecStart"].split()
    assert words[:3] == ["/usr/bin/vmsensor", "capture", "%i"]
    done = subprocess.run(command("capture", "--help"), capture_output=True, text=True, check=True, env=environment())
    assert all(word in done.stdout for word in words if word.startswith("--"))


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, where it is installed."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed; containers have no systemd")
    text = UNIT.read_text().replace("/usr/bin/vmsensor", "/bin/true")
    (tmp_path / "vmsensor@lo.service").write_text(text)
    done = subprocess.run(
        [analyze, "verify", tmp_path / "vmsensor@lo.service"], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "vmsensor@lo" in line]
    assert complaints == []
