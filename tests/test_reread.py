"""Thresholds that change while the sensor runs, and SIGHUP."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sensor.config import build
from sensor.runner import read_files
from sensor.sinks.callback import CallbackSink
from sensor.stopping import stop_on_signals
from sensor.window import Report
from tests.command import SECONDS, command, environment
from tests.needs import PCAPS, need_root

DEAF = """
window = '1s'
[limits]
scan_targets = 1_000_000
flood_syn_bound = 1e12
flood_syn_drift = 1e12
flood_udp_rate = 1e12
flood_icmp_rate = 1e12
bruteforce_connections = 1_000_000
"""
"""A configuration with which no attack is told."""


def kinds(report: Report) -> list[str]:
    """The events of a window."""
    return [kind for table in report.tables if table.measurement == "event" for kind in table.tags["kind"]]


def told(capture: str, configuration: Path, changes: dict[int, str]) -> list[tuple[int, str]]:
    """The events of a capture, each with the number of its window; ``changes``: what the file becomes after which."""
    found: list[tuple[int, str]] = []
    windows = 0

    def take(report: Report) -> None:
        nonlocal windows
        found.extend((windows, kind) for kind in kinds(report))
        if windows in changes:
            configuration.write_text(changes[windows])
        windows += 1

    settings = build("read", {"to": ["none"]}, configuration)
    with stop_on_signals() as stop:
        read_files(settings, [str(PCAPS / "behaviour" / f"attack-{capture}.pcap")], None, stop, [CallbackSink(take)])
    return found


@pytest.mark.parametrize(
    ("capture", "kind", "change"),
    [
        ("port-scan", "port_scan", 3),
        ("syn-flood", "syn_flood", 3),
        ("icmp-flood", "icmp_flood", 2),
        ("brute-force", "brute_force", 14),
    ],
)
def test_thresholds_hold_from_the_next_window_on(capture: str, kind: str, change: int, tmp_path: Path) -> None:
    """With the defaults back in the file, the attack that went on unsaid is told; without that change it never is."""
    configuration = tmp_path / "sensor.toml"
    configuration.write_text(DEAF)
    assert told(capture, configuration, {}) == []
    (first, *_) = told(capture, configuration, {change: "window = '1s'\n"})
    assert first[1] == kind
    assert first[0] > change
    configuration.write_text("window = '1s'\n")
    assert told(capture, configuration, {0: DEAF}) == []


def test_what_takes_a_restart_and_what_is_wrong_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A changed window is named as one for the next start; a bad limit leaves the ones before in force."""
    configuration = tmp_path / "sensor.toml"
    configuration.write_text(DEAF)
    changes = {0: "window = '2s'\n" + DEAF.partition("\n")[2].partition("\n")[2], 2: "[limits]\nscan_target = 3\n"}
    assert told("port-scan", configuration, changes) == []
    takes_restart, stays = [record.message for record in caplog.records]
    assert takes_restart == (
        f"{configuration}: only its [limits] are read again; what else has changed in it takes a restart"
    )
    assert stays.startswith(f"{configuration}: [limits]: unknown limit 'scan_target'; did you mean 'scan_targets'?; ")
    assert stays.endswith(" stays in force")


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """As at a shell: who runs these tests under nohup has SIGHUP ignored by everything that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def capturing(said: Path, stdin: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A capture on loopback that has begun."""
    live = command("capture", "lo", "--to", "none", "--window", "1s", "--filter", "port 9", "--no-nic-setup", *more)
    with (
        said.open("w") as errors,
        subprocess.Popen([*live, "--flows", os.devnull], env=environment(), stderr=errors, stdin=stdin) as process,
    ):
        try:
            until = time.monotonic() + SECONDS
            while not _has_handlers(process.pid) and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(1)  # until everything is open
            yield process
        finally:
            process.kill()


def _has_handlers(pid: int) -> bool:
    caught = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught[0].split()[1], 16) >> (signal.SIGHUP - 1) & 1)


def wait_for(text: str, said: Path) -> str:
    """The line with this text, when it is there."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for line in said.read_text().splitlines():
            if text in line:
                return line
        time.sleep(0.1)
    raise AssertionError(f"{text!r} is not in {said.read_text()!r}")


def test_sighup_has_a_service_read_its_files_again(tmp_path: Path) -> None:
    """It is said; a file that is bad now is named though nothing of it had changed; the capture goes on to its end."""
    need_root()
    inventory = tmp_path / "vms.toml"
    inventory.write_text("vm = []\n")
    said = tmp_path / "said"
    with capturing(said, subprocess.DEVNULL, "--inventory", str(inventory)) as process:
        process.send_signal(signal.SIGHUP)
        assert "read again with the next window" in wait_for("SIGHUP", said)
        inventory.write_text("nonsense = 1\n")
        process.send_signal(signal.SIGHUP)
        assert str(inventory) in wait_for("stays in force", said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert said.read_text().splitlines()[-1].startswith("received 0 = ")


def test_a_terminal_that_closes_ends_its_capture(tmp_path: Path) -> None:
    """With a terminal for its input SIGHUP is a request to stop: the last window and the totals are written."""
    need_root()
    ours, theirs = pty.openpty()
    try:
        with capturing(tmp_path / "said", theirs) as process:
            process.send_signal(signal.SIGHUP)
            assert process.wait(SECONDS) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert (tmp_path / "said").read_text().splitlines()[-1].startswith("received 0 = ")


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    """Who has SIGHUP ignored at its start goes on ignoring it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
