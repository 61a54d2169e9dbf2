"""How long one packet waits while a million flows are made: ``pauses.c`` feeds them one by one and times each call."""

from __future__ import annotations

import argparse
import re
import subprocess
from typing import Any

from tests.bench.build import built_with_native

FLOWS = 1_000_000
BY_CPU, BY_WALL = (f"longest call while {FLOWS:,} flows are made, {how}" for how in ("CPU", "wall clock"))


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The longest call, by both clocks: where others share the core, only the processor's own time tells something."""
    command = [built_with_native("pauses"), str(FLOWS // 100 if options.quick else FLOWS)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wall = max(map(float, re.findall(r"longest by wall clock +([\d.]+) ms", said)))
    cpu = max(map(float, re.findall(r"longest by processor's time .*?([\d.]+) ms of the processor", said)))
    return [{"what": BY_CPU, "value": cpu, "unit": "ms"}, {"what": BY_WALL, "value": wall, "unit": "ms"}]


def names(part: str) -> list[tuple[str, ...]]:
    """What its rows are called."""
    return [(BY_CPU,), (BY_WALL,)]
