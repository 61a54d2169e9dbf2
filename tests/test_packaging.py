"""The sdist is enough to build the wheel, and the wheel holds the package and nothing else.

Both are built as a front end for PEP 517 does it, but without isolation, so that no network is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

import sensor
from tests.needs import ROOT, missing

SETUPTOOLS = (77, 0)
NOT_SOURCES = shutil.ignore_patterns(
    ".*", "build", "dist", "demo-data", "lab-data", "vmsensor-data", "*.egg-info", "*.so", "__pycache__"
)


@dataclass(frozen=True)
class Built:
    """What a build from a clean copy of the sources made."""

    sdist: Path
    wheel: Path
    log: str


def call_backend(hook: str, sources: Path, output: Path) -> tuple[Path, str]:
    """Call a PEP 517 hook in its own process, as front ends do; return what it made and what it printed."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)], cwd=sources, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = output.iterdir()
    return made, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The sdist of a copy of the sources, and the wheel made from that sdist alone."""
    if tuple(map(int, metadata.version("setuptools").split(".")[:2])) < SETUPTOOLS:
        missing("setuptools is older than 77.0: pip install --upgrade setuptools")
    place = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, place / "sources", ignore=NOT_SOURCES)
    (place / "sources" / "sensor" / "scratch.txt").write_text("a stray file of a developer")
    sdist, _ = call_backend("build_sdist", place / "sources", place / "sdist")
    with tarfile.open(sdist) as archive:
        # Newer Pythons warn unless a filter is chosen; 3.11.2 and older have none.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(place)
    wheel, log = call_backend("build_wheel", place / sdist.name.removesuffix(".tar.gz"), place / "wheel")
    yield Built(sdist, wheel, log)
    shutil.rmtree(place)


def names_below(folder: str, pattern: str) -> set[str]:
    """Paths of the project's own files, relative to its root."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}


def wheel_metadata(wheel: Path) -> Message:
    """The wheel's METADATA file."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_sdist_holds_what_a_build_and_its_tests_need(built: Built) -> None:
    """Native sources, headers, the cffi builder, tests, captures and the licence are in the sdist."""
    with tarfile.open(built.sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"LICENSE", "CHANGELOG.md", "README.md", "Makefile", "pyproject.toml", "setup.py"}
    wanted |= names_below("native", "*.[ch]") | names_below("tests", "*.[ch]") | names_below("pcaps", "*.pcap")
    wanted |= names_below("native", "*.py") | names_below("sensor", "*.py") | names_below("tests", "*.py")
    wanted |= names_below("dashboards", "*.py") | names_below("sensor", "*.json")
    assert wanted - inside == set()


def test_wheel_holds_the_package_the_extension_and_nothing_else(built: Built) -> None:
    """Every module, the dashboards, py.typed, the licence and one extension; no sources in C, no tests, no strays."""
    with zipfile.ZipFile(built.wheel) as archive:
        inside = set(archive.namelist())
    info = {name for name in inside if ".dist-info/" in name}
    extension = {name for name in inside if name.startswith("sensor/_native.") and name.endswith(".so")}
    assert len(extension) == 1
    data = names_below("sensor/grafana", "*.json") | {"sensor/py.typed"}
    assert inside - info - extension == names_below("sensor", "*.py") | data
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in info)


def test_wheel_says_what_the_package_says(built: Built) -> None:
    """The version comes from the package, the licence is an SPDX expression, and no dependency has an upper bound."""
    described = wheel_metadata(built.wheel)
    assert (described["Name"], described["Version"]) == ("vmsensor", sensor.__version__)
    assert described["License-Expression"] == "Apache-2.0"
    # Whoever makes the dashboards anew has to make the same: what users install is not concerned.
    required = [
        line for line in described.get_all("Requires-Dist", []) if "extra == 'dashboards'" not in line.replace('"', "'")
    ]
    versions = [line.split(";")[0] for line in required]
    assert [version for version in versions if "<" in version or "==" in version] == []


def test_extension_is_compiled_fast_and_for_every_processor(built: Built) -> None:
    """The compiler gets -O3, C11 and all of our C at once, but no flag that ties the result to this processor."""
    compiled = [line for line in built.log.splitlines() if " -c " in line and "native" in line]
    assert len(compiled) == 1
    assert all("-O3" in line and "-std=c11" in line for line in compiled)
    assert "-march=native" not in built.log
    assert "-mtune=native" not in built.log


def test_extension_compiles_without_warnings(built: Built) -> None:
    """Neither our C nor cffi's glue makes the compiler warn at -O3."""
    assert [line for line in built.log.splitlines() if re.search(r"\.[ch]:\d+.*warning:", line)] == []


def test_wheel_installs_and_loads_away_from_the_sources(built: Built, tmp_path: Path) -> None:
    """The unpacked wheel's extension loads by itself and agrees with its header about the histogram's origin."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sensor; from sensor._native import lib;"
        "print(sensor.__file__, lib.vms_bucket_low_ns(0))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "sensor" / "__init__.py"), "0"]
