"""The lower bounds of what the sensor needs, as pip's constraints: ``python tests/lowest.py pyproject.toml``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

BOUND = re.compile(r'^ +"([a-z0-9-]+)>=([0-9.]+)["; ]', re.MULTILINE)
"""A line of ``dependencies``, which the section begins with; those of the extras stand in one line each."""


def lowest(description: str) -> list[str]:
    """``name==version`` for each."""
    needed = description.partition("\ndependencies = [\n")[2].partition("\n]\n")[0]
    return [f"{name}=={version}" for name, version in BOUND.findall(needed)]


if __name__ == "__main__":
    print("\n".join(lowest(Path(sys.argv[1]).read_text(encoding="utf-8"))))
