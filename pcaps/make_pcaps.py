"""Make every capture in this directory and the README that lists them, byte for byte the same on every machine.

`python pcaps/make_pcaps.py` writes them; `--check` only compares and names each file that differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from generator.registry import CAPTURES
from generator.scenes import demo

HERE = Path(__file__).resolve().parent
README = """# Captures

Small captures that `make_pcaps.py` generates, one for each thing that the sensor has to understand. Do not edit them or
this list: change a scene in `generator/scenes/`, run `python pcaps/make_pcaps.py` and `make golden`, and read the
difference in `tests/golden/`. All of them start at {start}.

| capture | shows |
|---|---|
{rows}
"""


def contents() -> dict[str, bytes]:
    """Every file by name."""
    captures = sorted(CAPTURES, key=lambda capture: capture.name)
    files = {capture.name: capture.build() for capture in captures}
    rows = "\n".join(f"| `{capture.name}` | {capture.shows} |" for capture in captures)
    files["README.md"] = README.format(start=demo.START, rows=rows).encode()
    return files


def strays(directory: Path, names: set[str]) -> set[str]:
    """Captures that no scene makes."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*.pcap*")} - names


def check(directory: Path) -> int:
    """Name every file that is not what it should be; 1 if there is one."""
    files = contents()
    wrong = {name for name, data in files.items() if _read(directory / name) != data}
    wrong |= strays(directory, set(files))
    for name in sorted(wrong):
        print(f"{name} is not what make_pcaps.py makes; run `python pcaps/make_pcaps.py`", file=sys.stderr)
    return int(bool(wrong))


def write(directory: Path) -> int:
    """Write every file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in contents().items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(data)
    return 0


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--directory", type=Path, default=HERE, help="where the captures are (default: here)")
    options = parser.parse_args()
    return (check if options.check else write)(options.directory)


if __name__ == "__main__":
    sys.exit(main())
