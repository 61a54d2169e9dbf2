"""The captures in pcaps/ are what their generator makes, on any machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import PCAPS

SCRIPT = PCAPS / "make_pcaps.py"


def make_pcaps(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the generator as a user does."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def products(directory: Path) -> dict[str, bytes]:
    """The captures in a directory and the list of them."""
    found = (*directory.rglob("*.pcap*"), directory / "README.md")
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The directory's products, to be tampered with."""
    for name, data in products(PCAPS).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_regeneration_is_identical(tmp_path: Path) -> None:
    """The generator writes into an empty directory exactly the files that are kept here."""
    made = make_pcaps("--directory", str(tmp_path / "new"))
    assert made.returncode == 0, made.stderr
    fresh, kept = products(tmp_path / "new"), products(PCAPS)
    assert sorted(fresh) == sorted(kept)
    assert [name for name in kept if fresh[name] != kept[name]] == []


def test_check_accepts_what_is_here() -> None:
    """`--check` is silent and content with the captures and their README."""
    checked = make_pcaps("--check")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["demo.pcap", "README.md"])
def test_check_names_a_changed_file(copy: Path, name: str) -> None:
    """One changed octet makes `--check` fail and name the file, and only that file."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    checked = make_pcaps("--check", "--directory", str(copy))
    assert checked.returncode == 1
    assert [line.split()[0] for line in checked.stderr.splitlines()] == [name]


def test_check_names_missing_and_stray_files(copy: Path) -> None:
    """`--check` notices a capture that is gone and one that no scene makes."""
    (copy / "vlan.pcap").unlink()
    shutil.copy(copy / "qinq.pcap", copy / "unknown.pcap")
    checked = make_pcaps("--check", "--directory", str(copy))
    assert checked.returncode == 1
    assert [line.split()[0] for line in checked.stderr.splitlines()] == ["unknown.pcap", "vlan.pcap"]
