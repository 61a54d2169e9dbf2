"""`make lab`: it measures a cloud of its own, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cloud import run as cloud
from tests.command import vmsensor
from tests.lab import NETNS, command, wait_until
from tests.needs import ROOT, need_root, need_tool
from tests.terminal import Terminal

SECONDS = 120


@dataclass
class LabRun:
    """What a run is given, and what tells its processes and files from others'."""

    place: Path
    mark: str
    seen: set[int]

    def environment(self, seconds: float) -> dict[str, str]:
        """For `make lab`."""
        given = {"LAB_SECONDS": f"{seconds:g}", "LAB_DATA": str(self.data), "LAB_MARK": self.mark}
        return {**given, "TMPDIR": str(self.place / "tmp")}

    @property
    def data(self) -> Path:
        """Where its results are kept."""
        return self.place / "data"

    def start(self, seconds: float) -> subprocess.Popen[str]:
        """Start it without a terminal, in a group of its own, as a shell would."""
        return subprocess.Popen(
            make_lab(), env={**os.environ, **self.environment(seconds)}, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def processes(self) -> set[int]:
        """Those that run, told by their environment; all that were ever found are remembered."""
        found = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._is_ours(path)}
        self.seen |= found
        return found

    def left_behind(self) -> list[str]:
        """Namespaces, mounts, processes and files that are still there."""
        ours = re.compile(rf"vmsensor-({'|'.join(map(str, self.seen))})-")
        names = os.listdir(NETNS) if NETNS.is_dir() else []
        left = [name for name in [*names, *Path("/proc/mounts").read_text().splitlines()] if ours.search(name)]
        return [*left, *map(str, self.processes()), *os.listdir(self.place / "tmp")]

    def _is_ours(self, process: Path) -> bool:
        try:
            return self.mark.encode() in (process / "environ").read_bytes()
        except OSError:
            return False


def make_lab() -> list[str]:
    """How it is started."""
    return [need_tool("make"), "--no-print-directory", "lab"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabRun]:
    """A run that is not started; whatever of it still runs in the end is killed."""
    need_root()
    for tool in ("ip", "tc", "ethtool", "influxd"):
        need_tool(tool)
    (tmp_path / "tmp").mkdir()
    run = LabRun(tmp_path, f"LAB-{uuid.uuid4()}", set())
    yield run
    for pid in run.processes():
        os.kill(pid, signal.SIGKILL)
    for name in os.listdir(NETNS) if NETNS.is_dir() else []:
        if any(name.startswith(f"vmsensor-{pid}-") for pid in run.seen):
            command(["ip", "netns", "del", name])


@pytest.mark.proof
@pytest.mark.parametrize("seconds", [8, 60])
def test_it_measures_both_tenants(lab: LabRun, seconds: int) -> None:
    """It ends with 0; the summary names the VMs of both; InfluxDB had points; the results are kept, nothing else."""
    process = lab.start(seconds)
    wait_until(lambda: len(lab.processes()) > 10, "the lab to run", 60)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    for ends in ("web-1 +app-1 +acme", "app-1 +db-1 +acme", "shop-1 +api-1 +globex", "shop-1 +dns-1 +globex"):
        assert re.search(rf"^{ends} +east-west ", said, re.MULTILINE), said
    assert re.search(r"^.* critical +port_scan +shop-1 +dns-1 ", said, re.MULTILINE), said
    points = re.search(r"^InfluxDB has (\d+) points of VM pairs\.$", said, re.MULTILINE)
    assert points is not None, said
    assert int(points[1]) > 5 * seconds / 2
    loss = re.search(r"^api-1 +shop-1 .* (\d+\.\d+)%$", said, re.MULTILINE)
    assert loss is not None, said
    assert 0.3 < float(loss[1]) < 6
    assert vmsensor("top", lab.data).stdout.startswith("lab on span0 ")
    assert lab.left_behind() == []


@pytest.mark.parametrize(
    ("said", "later"),
    [
        pytest.param("", 0.5, marks=pytest.mark.proof),
        pytest.param("Building a cloud", 0, marks=pytest.mark.proof),
        ("Building a cloud", 1),
        pytest.param("The sensor measures", 0, marks=pytest.mark.proof),
        pytest.param("The sensor measures", 1, marks=pytest.mark.proof),
    ],
)
def test_ctrl_c_leaves_nothing(lab: LabRun, said: str, later: float) -> None:
    """Ctrl-C while it loads, builds, starts or measures: it ends at once, and nothing of it is left."""
    process = lab.start(60)
    assert process.stdout is not None
    while said and said not in process.stdout.readline():
        pass
    time.sleep(later)
    assert lab.processes()
    if said == "The sensor measures":
        assert len(lab.left_behind()) > 20  # so that a test which finds nothing does not only seem to look
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert "Traceback" not in rest
    assert "make lab: interrupted" in rest or not said
    assert lab.left_behind() == []
    assert not lab.data.exists()


@pytest.mark.proof
def test_on_a_terminal(lab: LabRun) -> None:
    """It shows the live view, in which q leads to the summary; the terminal is as it was."""
    with Terminal(make_lab(), 120, 35, **lab.environment(60)) as terminal:
        terminal.await_screen(lambda lines: any(line.startswith("shop-1  api-1") for line in lines), 60)
        lab.processes()
        terminal.press("q")
        assert terminal.end() == 0
        assert "Top VM pairs" in terminal.said
        assert terminal.is_as_before()
    assert lab.left_behind() == []


@pytest.mark.proof
def test_ctrl_c_in_the_live_view(lab: LabRun) -> None:
    """The view gives the terminal back, the lab goes, and there is no summary."""
    with Terminal(make_lab(), 120, 35, **lab.environment(60)) as terminal:
        terminal.await_screen(lambda lines: any(line.startswith("shop-1  api-1") for line in lines), 60)
        lab.processes()
        terminal.press("\x03")
        assert terminal.end() != 0
        assert "make lab: interrupted" in terminal.said
        assert "Top VM pairs" not in terminal.said
        assert terminal.is_as_before()
    assert lab.left_behind() == []


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not root, a tool that is not installed, a strange LAB_SECONDS: said, with what to do, before anything is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cloud.main() == 1
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cloud, "PATH", "/nowhere")
    assert cloud.main() == 1
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cloud, "TOOLS", {})
    monkeypatch.setenv("LAB_SECONDS", "long")
    assert cloud.main() == 1
    not_root, no_tool, strange = capsys.readouterr().err.splitlines()
    assert not_root.endswith("sudo make lab")
    assert no_tool.endswith("apt-get install iproute2")
    assert strange == "make lab: LAB_SECONDS=long: give a number of seconds, from 1 to 86400"
