"""Files that operators write: read whole within a bound, as text or TOML, with messages that say what to do."""

from __future__ import annotations

import difflib
import stat
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sensor.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_text(path: Path, what: str, most: int, instead: str) -> str:
    """The text of a file: ``what`` it is, at most ``most`` octets, ``instead`` of more than that.

    InputError when it cannot be read, UsageError when it is too large or no UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: cannot read the {what}: not a regular file")
        with path.open("rb") as file:
            octets = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}") from None
    if len(octets) > most:
        raise UsageError(f"{path}: file: larger than {most // 2**20} MiB; {instead}")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: text: not UTF-8; save the file as UTF-8") from None


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """The tables of a TOML file; UsageError when it is none."""
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib lets some of Python's own ValueErrors through
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    return tables


def unknown_key(key: str, known: Collection[str], where: str) -> str:
    """What to say of a key that is not known, with the nearest one that is."""
    near = difflib.get_close_matches(key, known, 1)
    advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{shown(key)}: not known in {where}; {advice}"


def shown(text: str) -> str:
    """A text in quotes, cut if it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
