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

pytest_plugins = ["tests.servers"]

SECONDS_PER_CAPTURE = 60

ReadCapture = Callable[[Path], "subprocess.CompletedProcess[str]"]


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
def open_place() -> Iterator[Path]:
    """A directory that every user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vmsensor-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
