"""The benchmark's own C programs, compiled when their source is younger."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.bench.paths import BUILD, HERE, ROOT

AS_THE_EXTENSION = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-g", "-fwhole-program", "-fno-tree-slp-vectorize", "-pthread"]
"""As native/build.py, which compiles all files as one, behind Python.h; symbols cost no instruction."""


@cache
def built(name: str) -> Path:
    """The program that is made of the C file of this name."""
    program, source = BUILD / name, HERE / f"{name}.c"
    BUILD.mkdir(parents=True, exist_ok=True)
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    _compile(program, source, ["-O3", "-D_GNU_SOURCE", "-ldl"])
    return program


@cache
def built_with_native(name: str) -> Path:
    """The same of a C file that uses native/: with all of that as it is now."""
    program = BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    whole = program.with_suffix(".c")
    sources = [*sorted((ROOT / "native").glob("*.c")), HERE / f"{name}.c"]
    whole.write_text("".join(f'#include "{path}"\n' for path in sources))
    _compile(program, whole, [*AS_THE_EXTENSION, "-I", str(ROOT / "native")])
    return program


def _compile(program: Path, source: Path, options: list[str]) -> None:
    command = [os.environ.get("CC", "cc"), "-o", str(program), str(source), *options]
    if shutil.which(command[0]) is None or subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"bench: {source.name} could not be compiled; on Debian or Ubuntu: apt-get install build-essential")
