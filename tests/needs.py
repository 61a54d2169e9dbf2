"""What tests need from the machine: absent things skip with their reason, or fail where everything must be there.

CI sets ``VMSENSOR_REQUIRE_ALL=1``, so that a test cannot be skipped unnoticed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PCAPS = ROOT / "pcaps"
SHARED_CAPTURES = ROOT.parent / "shared" / "captures"


def missing(reason: str) -> None:
    """Skip the test, or fail it where nothing may be missing."""
    if os.environ.get("VMSENSOR_REQUIRE_ALL") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


def need_tool(name: str) -> str:
    """Path of an executable, looked for in the administrator's directories too."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        missing(f"{name} is not installed")
    return str(path)


def need_root() -> None:
    """The test makes network namespaces."""
    if os.geteuid() != 0:
        missing("needs root, to make network namespaces")


def need_shared() -> Path:
    """The directory with captures made by others; it is not part of the project, so even CI may lack it."""
    if not SHARED_CAPTURES.is_dir():
        pytest.skip(f"the shared captures are not at {SHARED_CAPTURES}")
    return SHARED_CAPTURES
