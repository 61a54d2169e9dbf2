"""The benchmark's own C programs, compiled when their source is younger."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.bench.paths import BUILD, HERE


@cache
def built(name: str) -> Path:
    """The program that is made of the C file of this name."""
    program, source = BUILD / name, HERE / f"{name}.c"
    BUILD.mkdir(parents=True, exist_ok=True)
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    command = [os.environ.get("CC", "cc"), "-O3", "-D_GNU_SOURCE", "-o", str(program), str(source), "-ldl"]
    if shutil.which(command[0]) is None or subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"bench: {source.name} could not be compiled; on Debian or Ubuntu: apt-get install build-essential")
    return program
