"""The lower bounds of what the sensor needs, as pip's constraints: ``python tests/lowest.py pyproject.toml``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def lowest(description: str) -> Iterator[str]:
    """``name==version`` of each of the project's ``dependencies`` that has a lower bound (PEP 621, PEP 508)."""
    for needed in map(Requirement, tomllib.loads(description)["project"]["dependencies"]):
        for bound in needed.specifier:
            if bound.operator == ">=":
                yield f"{needed.name}=={bound.version}"


if __name__ == "__main__":
    print("\n".join(lowest(Path(sys.argv[1]).read_text(encoding="utf-8"))))
