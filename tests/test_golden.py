"""What the program says of each capture in pcaps/, against what it said when someone last looked.

`pytest tests/test_golden.py --update-golden` (or `make golden`) rewrites tests/golden/; read the difference.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ReadCapture
from tests.needs import PCAPS

GOLDEN = Path(__file__).parent / "golden"
CAPTURES = sorted(PCAPS.glob("*.pcap*"))


def golden_of(capture: Path) -> Path:
    """The file that holds a capture's expected output."""
    return GOLDEN / f"{capture.name}.txt"


def in_order(flow: str) -> tuple[int, str, int, str]:
    """Where a flow's line goes: flows end in an order that means nothing here."""
    record = json.loads(flow)
    return record["start_ns"], record["client_ip"], record["client_port"] or 0, flow


def transcript(run: subprocess.CompletedProcess[str]) -> str:
    """Exit status, standard error, and the flows in order."""
    flows = sorted(run.stdout.splitlines(), key=in_order)
    return "\n".join([f"exit status {run.returncode}", *run.stderr.splitlines(), *flows, ""])


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.name)
def test_golden(capture: Path, read_capture: ReadCapture, update_golden: bool) -> None:
    """Flow records, totals and exit status of a capture are the ones that were reviewed."""
    said, golden = transcript(read_capture(capture)), golden_of(capture)
    if update_golden:
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(said, encoding="utf-8")
    assert golden.is_file(), f"{golden.name} is missing: run pytest tests/test_golden.py --update-golden"
    assert said.splitlines() == golden.read_text(encoding="utf-8").splitlines()


def test_every_golden_has_its_capture() -> None:
    """No golden file outlives its capture."""
    assert {path.name for path in GOLDEN.glob("*")} <= {golden_of(capture).name for capture in CAPTURES}
