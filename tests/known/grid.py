"""The grid of troubles, and the connections of each cell, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import product
from math import exp, log

from .capture import ROUTED, SAME, TAGGED, Address, address
from .mirror import Mirror, Sighting, sightings
from .packets import MS, SECOND, US, Habits, Script
from .path import Connection, Legs, Trouble, run

SPREAD_NS = 60 * SECOND
NEAREST, FARTHEST = 20 * US, 50 * MS
SIZES = (1, 20, 200, 700, 1460, 1461, 4000, 9000, 20_000, 50_000)
REQUESTS = SIZES[:7]
IDENTIFY = ("flow", "flow", "host", "random", "zero")


@dataclass(frozen=True)
class Cell:
    """One place in the grid; shares of packets."""

    loss: float
    reordered: float
    copied: float
    unseen: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.0%}, reordered {self.reordered:.0%}, copied {self.copied:.0%}, unseen {self.unseen:.0%}"
        )

    @property
    def mirror(self) -> Mirror:
        """What the mirror does in this cell."""
        return Mirror(self.copied, self.unseen)


GRID = tuple(Cell(*shares) for shares in product((0, 0.01, 0.05), (0, 0.01, 0.02), (0, 0.5, 1), (0, 0.02, 0.05)))


@dataclass(frozen=True)
class Known:
    """A connection of which everything is known."""

    where: Address
    connection: Connection
    copy_ns: int
    mirror_seed: str

    def shown(self, mirror: Mirror) -> list[Sighting]:
        """What a capture through this mirror has of it."""
        return sightings(self.connection, mirror, self.copy_ns, random.Random(self.mirror_seed))


def connections(cell: Cell, count: int, seed: str) -> list[Known]:
    """So many connections of a cell. The network's chances do not depend on the mirror's part of the cell."""
    network = replace(cell, copied=0, unseen=0)
    return [_known(network, number, random.Random(f"{seed} {network} {number}")) for number in range(1, count + 1)]


def _known(cell: Cell, number: int, chance: random.Random) -> Known:
    where = address(number, chance, (SAME, ROUTED, TAGGED))
    identify = "zero" if where.six else chance.choice(IDENTIFY)
    connection = _connection(cell, identify, chance)
    # Without an identification that changes, only a copy that comes soon can be told from a resend: docs/metrics.md.
    copy_ns = _between(5 * US, MS if identify == "zero" else 8 * MS, chance)
    return Known(where, connection, copy_ns, str(chance.getrandbits(64)))


def _between(least: int, most: int, chance: random.Random) -> int:
    """All orders of magnitude alike."""
    return round(exp(chance.uniform(log(least), log(most))))


def _connection(cell: Cell, identify: str, chance: random.Random) -> Connection:
    """A connection with habits, delays and applications of its own."""
    client, server = _between(NEAREST, FARTHEST, chance), _between(NEAREST, FARTHEST, chance)
    legs = Legs(client, server, chance.choice((0, 0, 5 * US, (client + server) // 10, client + server)))
    said = _script(chance)
    patient = chance.random() < 0.9
    habits = Habits(
        mss=chance.choice((1460, 1448, 536)), window=chance.choice((4, 10, 40)), sack=chance.random() < 0.8,
        timestamps=chance.random() < 0.5, tick_ns=chance.choice((MS, 4 * MS)), ack_each=chance.random() < 0.3,
        timeout_ns=200 * MS + 2 * (legs.around + 4 * legs.jitter) if patient else max(legs.around - MS, 30 * MS),
        probe_octets=chance.randrange(2), clock_offset=chance.getrandbits(31),
    )  # fmt: skip
    client_habits = replace(habits, buffer=16 << 10) if said.stall_ns else habits
    trouble = _trouble(cell, legs, chance)
    return run(chance.randrange(SPREAD_NS), legs, trouble, (client_habits, habits), said, identify, chance)


def _trouble(cell: Cell, legs: Legs, chance: random.Random) -> Trouble:
    """Losses and reordering before the tap, behind it, or half and half.

    What is late is so by less than a round: later than that the sender may have sent it again, and only the marks in
    its packets could tell which of the two came first.
    """
    before, late_before = (chance.choice((0.0, 0.5, 1.0)) * share for share in (cell.loss, cell.reordered))
    late_ns = min(5 * MS, legs.around // 2)
    return Trouble(before, cell.loss - before, late_before, cell.reordered - late_before, late_ns)


def _script(chance: random.Random) -> Script:
    """What two applications say to each other."""
    exchanges = [
        (chance.choice((0, MS, 30 * MS, 300 * MS)), chance.choice(REQUESTS), chance.choice((50 * US, 5 * MS, 250 * MS)),
         chance.choice(SIZES))
        for _ in range(chance.randrange(1, 5))
    ]  # fmt: skip
    keepalives = [(chance.choice((3, 30)) * SECOND, chance.randrange(2))] * chance.choice((0, 0, 0, 1, 2))
    stall = 500 * MS if len(exchanges) > 1 and chance.random() < 0.3 else 0
    if stall:
        exchanges[1] = (*exchanges[1][:3], 50_000)
    return Script(exchanges, keepalives, stall, chance.random() < 0.1)
