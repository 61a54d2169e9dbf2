"""The mirror: it copies what passes the tap, once more behind a router or switch, and drops some of the copies.

It draws its own chances, so that the same traffic can be seen through different mirrors.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .packets import US, Sent
from .path import Connection


@dataclass(frozen=True)
class Mirror:
    """What a mirror does, as shares of packets."""

    copied: float = 0.0
    unseen: float = 0.0
    """Sightings that the mirror drops, each by its own chance."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet in the capture."""

    time_ns: int
    sent: Sent
    copy: bool


def sightings(connection: Connection, mirror: Mirror, copy_ns: int, chance: random.Random) -> list[Sighting]:
    """What the capture shows of a connection.

    A copy comes `copy_ns` after its packet, and up to a tenth more; routers and switches keep the order.
    """
    shown = []
    latest = [0, 0]
    for time_ns, sent in connection.passed:
        kept, copied, copy_kept, wait = (chance.random() for _ in range(4))
        if kept >= mirror.unseen:
            shown.append(Sighting(time_ns, sent, False))
        if copied < mirror.copied and copy_kept >= mirror.unseen:
            when = max(time_ns + copy_ns + round(wait * copy_ns / 10), latest[sent.side] + US)
            latest[sent.side] = when
            shown.append(Sighting(when, sent, True))
    shown.sort(key=lambda sighting: sighting.time_ns)
    return shown
