"""Options and fixtures that several test files share."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.needs import ROOT

pytest_plugins = ["tests.servers", "tests.live"]

SECONDS_PER_CAPTURE = 120

ReadCapture = Callable[[Path], "subprocess.CompletedProcess[str]"]
Say = Callable[[str], None]


TOGETHER = dict.fromkeys(("tests/test_oracles.py", "tests/test_totals.py"), "what the program says of all captures")
"""Files for one process when files run side by side: what each reads in half a minute, the others find there."""


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is nothing to schedule
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file stays in one process, whose fixtures serve all of it, and so do files that share what they read."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return TOGETHER.get(file, file)

    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on request only."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ from what the program says now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def read_capture() -> ReadCapture:
    """Run `vmsensor read --flows -` on a capture as a user would, from the project's root; once for each capture."""

    @cache
    def read(capture: Path) -> subprocess.CompletedProcess[str]:
        path = capture.relative_to(ROOT)
        command = [sys.executable, "-m", "sensor", "read", str(path), "--to", "none", "--flows", "-"]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_PER_CAPTURE, check=False
        )

    return read


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Say:
    """Tell people what was measured: it stands below the tests, whatever pytest captures in whichever process."""
    return lambda text: record_property("said", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have said."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    called = [report for report in reports if isinstance(report, pytest.TestReport) and report.when == "call"]
    said = [str(text) for report in called for name, text in report.user_properties if name == "said"]
    if said:
        terminalreporter.section("measured")
        for text in said:
            terminalreporter.write_line(text)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vmsensor-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
