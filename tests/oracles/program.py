"""The real program over a capture, once per test session: its records, its totals and how it ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.needs import ROOT
from tests.oracles.flows import ICMP, ICMP6, SCTP, TCP, UDP, Counts, Endpoint, Key, key_and_direction

PROTOCOLS = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmp6": ICMP6, "sctp": SCTP}
NEVER = ("--idle-timeout", "3650d", "--tcp-idle-timeout", "3650d", "--active-timeout", "3650d")
SECONDS, HUNG = 120, -1
TOTALS = re.compile(r"^received (\d+) = (.+); dropped by kernel (\S+), by NIC (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Totals:
    """The line of totals: what each part of the packets received came to."""

    received: int
    parts: dict[str, int]
    dropped_by_kernel: str
    dropped_by_nic: str


@dataclass(frozen=True)
class Run:
    """How the program ended and what it left."""

    status: int
    records: list[dict[str, Any]]
    stderr: str

    def totals(self) -> Totals:
        """The one line of totals among what the program wrote to stderr."""
        ((received, parts, kernel, nic),) = TOTALS.findall(self.stderr)
        counts = (part.split(" ", 1) for part in parts.split(" + "))
        return Totals(int(received), {part: int(count) for count, part in counts}, kernel, nic)


@cache
def run(capture: Path) -> Run:
    """Run ``read`` over a capture, with no timeout to end a flow early."""
    command = [sys.executable, "-m", "sensor", "read", str(capture), "--to", "none", "--flows", "-", *NEVER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired as error:
        return Run(HUNG, [], str(error))
    return Run(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def direction(record: dict[str, Any]) -> tuple[Key, bool]:
    """The key of a record's flow, and whether its client is the low endpoint."""
    protocol = PROTOCOLS.get(record["protocol"]) or int(record["protocol"])
    client = Endpoint(record["client_ip"], record["client_port"])
    server = Endpoint(record["server_ip"], record["server_port"])
    return key_and_direction(protocol, client, server, tuple(record["vlan"]), record["vni"])


def flows(records: list[dict[str, Any]]) -> dict[Key, Counts]:
    """The records summed up by key: a five-tuple that is used again makes several."""
    table: dict[Key, Counts] = {}
    for record in records:
        key, up = direction(record)
        counts = table.setdefault(key, Counts())
        counts.add(up, record["c2s_packets"], record["c2s_bytes"])
        counts.add(not up, record["s2c_packets"], record["s2c_bytes"])
    return table
