"""Open vSwitch's database, read and written with the tool that every host with Open vSwitch has: ``ovs-vsctl``.

It finds the database as it always does, by OVS_RUNDIR where that is set. Several commands in one call are one
transaction, of which either all is done or nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from sensor.errors import InterfaceError, PrivilegeError

TOOL = "ovs-vsctl"
SECONDS = 10
"""How long the daemons have for an answer: a bridge with thousands of ports takes ovs-vswitchd a few."""

Row = dict[str, Any]
_SERVICE = "is the service openvswitch-switch running?"


class NoDatabase(Exception):
    """There is no Open vSwitch on this host, or none that runs."""


class Silence(InterfaceError):
    """A daemon has not answered in time."""


class Vsctl:
    """The database, by way of the tool. Failures are InterfaceErrors and PrivilegeErrors; see also ``NoDatabase``."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self._seconds = seconds

    def read(self, tables: Mapping[str, str]) -> list[list[Row]]:
        """The rows of each table with these columns, all of one moment."""
        asked = [[f"--columns={columns}", "list", table] for table, columns in tables.items()]
        answer = self._run(["--format=json"], asked, "its database, ovsdb-server,")
        return [_rows(json.loads(line)) for line in answer.strip().split("\n")]

    def commit(self, commands: Sequence[Sequence[str]], wait: bool = True) -> None:
        """Have a transaction done, and ``ovs-vswitchd`` act on it; what that cannot do is an error as well."""
        self._run([] if wait else ["--no-wait"], commands, "ovs-vswitchd")

    def forget_flows(self) -> None:
        """Have ``ovs-vswitchd`` decide anew about the flows that run, as it does where ports come or go.

        Without, those of Open vSwitch 3.1 and others go on as they were before the mirrors of a bridge changed, for as
        long as they run. A daemon whose control socket is not in its usual place is left alone.
        """
        tool = _path("ovs-appctl")
        if tool is not None:
            line = [tool, f"--timeout={self._seconds}", "revalidator/purge"]
            subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def _run(self, options: Sequence[str], commands: Sequence[Sequence[str]], who: str) -> str:
        tool = _path(TOOL)
        if tool is None:
            raise NoDatabase
        line = [tool, f"--timeout={self._seconds}", *options]
        for command in commands:
            line += ["--", *command]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
        if done.returncode or "Error detected" in done.stderr:
            raise _explained(done, who, self._seconds)
        return done.stdout


def _explained(done: subprocess.CompletedProcess[str], who: str, seconds: int) -> Exception:
    """What it means that the tool has failed."""
    said = done.stderr.strip()
    if done.returncode in (-signal.SIGALRM, 128 + signal.SIGALRM):
        return Silence(f"Open vSwitch: {who} does not answer within {seconds} s; {_SERVICE}")
    if "(No such file or directory)" in said and "database connection failed" in said:
        return NoDatabase()
    if "(Permission denied)" in said:
        return PrivilegeError("Open vSwitch: its database is for root only; run as root")
    if "database connection failed" in said:
        return InterfaceError(f"Open vSwitch: its database cannot be reached; {_SERVICE}")
    first = (said.splitlines() or ["without a word"])[0].removeprefix(f"{TOOL}: ").removesuffix(".")
    return InterfaceError(f"Open vSwitch: {first.replace('.  See', '; see')}")


def _path(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


def quoted(text: str) -> str:
    """A string as the tool's values have it, whatever stands in it."""
    return json.dumps(text)


def _rows(table: Any) -> list[Row]:
    return [dict(zip(table["headings"], map(_plain, row), strict=True)) for row in table["data"]]


def _plain(value: Any) -> Any:
    """A value of the database as Python has it: RFC 7047, section 5.1."""
    match value:
        case ["uuid", str(text)]:
            return text
        case ["set", list(members)]:
            return [_plain(member) for member in members]
        case ["map", list(pairs)]:
            return dict(pairs)
    return value


def members(value: Any) -> list[Any]:
    """A set's members; a set of one comes as that one."""
    return value if isinstance(value, list) else [value]
