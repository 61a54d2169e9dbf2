"""The grid of troubles: for each cell connections, their capture and their truth; and how well the sensor tells it."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.command import vmsensor

from .capture import Address, address, pcap
from .ends import MS, SECOND, Habits, Script
from .path import US, Connection, Legs, Trouble, run
from .truth import CAUSES, Truth, truth_of

SPREAD_NS = 60 * SECOND
WAYS = ("c2s", "s2c")
DELAYS = (20 * US, 60 * US, 150 * US, 400 * US, 2 * MS, 9 * MS, 30 * MS, 50 * MS)
SIZES = (1, 20, 200, 700, 1460, 1461, 4000, 9000, 20_000, 50_000)
PAUSES = (0, MS, 30 * MS, 300 * MS)
THINKING = (50 * US, 5 * MS, 250 * MS)
LATE_US = 2
"""Timestamps are cut to microseconds."""


@dataclass(frozen=True)
class Cell:
    """One place in the grid; shares of packets."""

    loss: float
    reordered: float
    copied: float
    unseen: float

    def __str__(self) -> str:
        return (f"loss {self.loss:.0%}, reordering {self.reordered:.0%}, duplicates {self.copied:.0%}, "
                f"mirror drops {self.unseen:.0%}")  # fmt: skip

    def trouble(self, chance: random.Random) -> Trouble:
        """Where a connection's losses are: before the tap, behind it, or half and half."""
        before = chance.choice((0.0, 0.5, 1.0)) * self.loss
        return Trouble(before, self.loss - before, self.reordered, self.copied, self.unseen)


GRID = tuple(
    Cell(loss, reordered, copied, unseen)
    for loss in (0.0, 0.01, 0.05)
    for reordered, copied, unseen in (
        (0.0, 0.0, 0.0), (0.02, 0.0, 0.0), (0.0, 1.0, 0.0), (0.01, 0.5, 0.0), (0.0, 0.0, 0.02), (0.0, 0.0, 0.05),
        (0.02, 1.0, 0.05),
    )
)  # fmt: skip


def script(chance: random.Random) -> Script:
    """What two applications say to each other."""
    exchanges = [
        (chance.choice(PAUSES), chance.choice(SIZES[:7]), chance.choice(THINKING), chance.choice(SIZES))
        for _ in range(chance.randrange(1, 5))
    ]
    keepalives = [(chance.choice((3, 30)) * SECOND, chance.randrange(2))] * chance.choice((0, 0, 0, 1, 2))
    stall = 500 * MS if len(exchanges) > 1 and chance.random() < 0.3 else 0
    if stall:
        exchanges[1] = (*exchanges[1][:3], 50_000)
    return Script(exchanges, keepalives, stall, chance.random() < 0.1)


def connection(where: Address, trouble: Trouble, chance: random.Random) -> Connection:
    """A connection with habits, delays and applications of its own."""
    client, server = chance.choice(DELAYS), chance.choice(DELAYS)
    legs = Legs(client, server, chance.choice((0, 0, 5 * US, (client + server) // 10)))
    said = script(chance)
    habits = Habits(
        mss=chance.choice((1460, 1448, 536)), window=chance.choice((4, 10, 40)), sack=chance.random() < 0.8,
        timestamps=chance.random() < 0.5, ack_each=chance.random() < 0.3,
        timeout_ns=max(200 * MS, 2 * legs.around) if chance.random() < 0.9 else legs.around * 6 // 5 + 30 * MS,
        clock_offset=chance.getrandbits(31),
    )  # fmt: skip
    ends = (replace(habits, buffer=16 << 10) if said.stall_ns else habits, habits)
    identify = "zero" if where.six else chance.choice(("flow", "flow", "host", "zero"))
    # Without an identification that changes, only a copy that comes soon can be told from a resend.
    copy_ns = MS if identify == "zero" else chance.choice((50 * US, MS, 8 * MS))
    return run(chance.randrange(SPREAD_NS), legs, trouble, ends, said, identify, chance, copy_ns)


Known = list[tuple[Connection, Address]]


def connections(cell: Cell, count: int, seed: int) -> Known:
    """So many connections of a cell, with their addresses."""
    chance = random.Random(f"{seed} {cell}")
    tagged = not cell.unseen  # a copy in another VLAN whose first sighting is missing would be another flow
    places = [address(number, chance, tagged) for number in range(1, count + 1)]
    return [(connection(where, cell.trouble(chance), chance), where) for where in places]


@dataclass
class Score:
    """How well counts are told: by flow and direction, and by their sums."""

    truth: Counter[str] = field(default_factory=Counter)
    sensor: Counter[str] = field(default_factory=Counter)
    agreed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    flows: int = 0
    samples: int = 0
    late_samples: int = 0
    handshakes: int = 0
    late_handshakes: int = 0
    payload: int = 0
    data_packets: int = 0

    def add(self, other: Score) -> None:
        """Add another score up."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, list):
                mine.extend(value)
            elif isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)

    def precision(self, cause: str) -> float:
        """Of what the sensor counts, the part that is true."""
        return self.agreed[cause] / self.sensor[cause] if self.sensor[cause] else 1.0

    def recall(self, cause: str) -> float:
        """Of what is true, the part that the sensor counts."""
        return self.agreed[cause] / self.truth[cause] if self.truth[cause] else 1.0

    def loss(self, counts: Counter[str]) -> float:
        """The network's loss over all flows."""
        lost = counts["retransmissions"] - counts["spurious"] + counts["upstream_losses"]
        return lost / (self.data_packets + counts["upstream_losses"])

    def mirror_loss(self, counts: Counter[str]) -> float:
        """The mirror's loss over all flows."""
        return counts["unseen_bytes"] / (self.payload + counts["unseen_bytes"])


def flows_of(capture: Path, *options: str) -> list[dict[str, Any]]:
    """The sensor's flow records of a capture."""
    done = vmsensor("read", capture, "--to", "none", "--flows", "-", "--tcp-idle-timeout", "10m", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def score(known: Known, capture: Path) -> Score:
    """Hold the sensor's flow records against the truth."""
    capture.write_bytes(pcap(known))
    records: dict[str, list[dict[str, Any]]] = {}
    for flow in flows_of(capture):
        records.setdefault(flow["client_ip"] if flow["server_port"] == 443 else flow["server_ip"], []).append(flow)
    result = Score()
    for happened, where in known:
        truth = truth_of(happened)
        found = records.get(where.client, [])
        if not happened.sightings:
            continue
        result.flows += 1
        if len(found) != 1 or found[0]["server_port"] != 443:
            result.wrong.append(f"{where.client}: {len(found)} flows")
            continue
        _compare(result, truth, found[0], where.client)
    return result


def _compare(result: Score, truth: Truth, flow: dict[str, Any], name: str) -> None:
    for way, direction in zip(WAYS, truth.directions, strict=True):
        result.payload += flow[f"{way}_payload_bytes"] or 0
        result.data_packets += flow[f"{way}_data_packets"] or 0
        if flow[f"{way}_packets"] != direction.packets:
            result.wrong.append(f"{name} {way}: {flow[f'{way}_packets']} packets, {direction.packets} in truth")
        for cause in CAUSES:
            true, told = direction.counts[cause], flow[f"{way}_{cause}"] or 0
            result.truth[cause] += true
            result.sensor[cause] += told
            result.agreed[cause] += min(true, told)
            if true != told:
                result.wrong.append(f"{name} {way}: {cause} {told}, {true} in truth")
        if direction.rtt_min_ns is not None:
            result.samples += 1
            if not _close(flow[f"{way}_rtt_min_us"], direction.rtt_min_ns):
                result.late_samples += 1
                result.wrong.append(f"{name} {way}: rtt_min {flow[f'{way}_rtt_min_us']}, {direction.rtt_min_ns / 1e3}")
    for half, true_ns in (("server", truth.handshake_server_ns), ("client", truth.handshake_client_ns)):
        if true_ns is not None:
            result.handshakes += 1
            if not _close(flow[f"handshake_{half}_us"], true_ns):
                result.late_handshakes += 1
                result.wrong.append(f"{name}: handshake_{half} {flow[f'handshake_{half}_us']}, {true_ns / 1e3}")


def _close(told_us: float | None, true_ns: int) -> bool:
    return told_us is not None and abs(told_us - true_ns / 1e3) <= LATE_US
