"""The program as its users run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.needs import PCAPS, ROOT, need_tool

OK, UNEXPECTED, USAGE, INPUT, DAMAGED, INTERFACE, PRIVILEGE, OUTPUT, DELIVERY = range(9)
"""Exit statuses, as documented."""

QUIET = ("--to", "none")
SECONDS = 120
"""Whoever takes longer hangs. It measures nothing: where others want the processors too, a start takes long."""
DEMO = PCAPS / "demo.pcap"
TOTALS = re.compile(r"received \d+ = ")

Done = subprocess.CompletedProcess[str]


def command(*arguments: object) -> list[str]:
    """How the program is started."""
    return [sys.executable, "-m", "sensor", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what configures the program, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFLUXDB_V2_")}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def vmsensor(
    *arguments: object,
    cwd: Path = ROOT,
    prefix: list[str] | None = None,
    stdin: bytes | None = None,
    stdout: Any = None,
    **variables: str,
) -> Done:
    """Run it; ``stdout`` redirects its standard output, ``prefix`` is a program that runs it."""
    done = subprocess.run(
        [*(prefix or []), *command(*arguments)],
        cwd=cwd, input=stdin, stdout=subprocess.PIPE if stdout is None else stdout, stderr=subprocess.PIPE,
        timeout=SECONDS, check=False, env=environment(**variables),
    )  # fmt: skip
    return Done(done.args, done.returncode, *(_text(said) for said in (done.stdout, done.stderr)))


def _text(said: bytes | None) -> str:
    return (said or b"").decode(errors="surrogateescape")


def without(*capabilities: str) -> list[str]:
    """A prefix that takes capabilities away, so that root meets refusals as anybody does."""
    if os.geteuid() != 0:
        return []
    dropped = ",".join(f"-{capability}" for capability in capabilities)
    return [need_tool("setpriv"), "--bounding-set", dropped, "--inh-caps", dropped]


def records(done: Done) -> list[dict[str, Any]]:
    """The flow records on standard output."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def complaint(done: Done, status: int) -> str:
    """The one line, besides the totals, in which the program said what is wrong before it ended with `status`."""
    lines = [line for line in done.stderr.splitlines() if not TOTALS.match(line)]
    assert (done.returncode, len(lines)) == (status, 1), done.stderr
    assert lines[0].startswith("vmsensor: "), done.stderr
    return lines[0].removeprefix("vmsensor: ")
