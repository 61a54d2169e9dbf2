"""What is true of a connection, in the terms of the flow record, as far as the capture can show it.

Everything follows from what happened to each packet: which transmission of which bytes it is, where it was lost, which
arrival an ACK answers. What the sensor would have to guess is known here. Where the mirror dropped a packet, the truth
is what the remaining ones can show; each such place says so.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from .ends import DATA, FORGED, KEEPALIVE, PROBE, RST, SYN
from .path import Connection, Sighting

CAUSES = (
    "retransmissions", "spurious", "upstream_losses", "reordered", "keepalives", "window_probes", "zero_windows",
    "out_of_window", "mirror_duplicates", "unseen_bytes",
)  # fmt: skip


@dataclass
class Direction:
    """The truth of one direction."""

    packets: int = 0
    payload_bytes: int = 0
    data_packets: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    rtt_min_ns: int | None = None


@dataclass
class Truth:
    """The truth of a connection. Times in ns, None where the capture does not show them."""

    directions: tuple[Direction, Direction]
    handshake_server_ns: int | None
    handshake_client_ns: int | None
    transit_ns: tuple[list[int], list[int]]


def truth_of(connection: Connection) -> Truth:
    """Everything that the capture of a connection can show."""
    first: list[Sighting] = []
    seen: dict[int, Sighting] = {}
    transit: tuple[list[int], list[int]] = ([], [])
    directions = (Direction(), Direction())
    for sighting in connection.sightings:
        earlier = seen.setdefault(id(sighting.sent), sighting)
        if earlier is sighting:
            first.append(sighting)
        else:
            directions[sighting.sent.side].counts["mirror_duplicates"] += 1
            transit[sighting.sent.side].append(sighting.time_ns - earlier.time_ns)
    for side, direction in enumerate(directions):
        _Judge(first, side, direction).judge()
    if any(sighting.copy for sighting in first):
        # Nobody can tell that a packet is a copy when its first sighting is missing: its time is that of another place.
        for direction in directions:
            direction.rtt_min_ns = None
        return Truth(directions, None, None, transit)
    return Truth(directions, *_handshake(first), transit)


class _Judge:
    """Goes through the capture once for one direction."""

    def __init__(self, first: list[Sighting], side: int, direction: Direction) -> None:
        self.first, self.side, self.direction = first, side, direction
        self.counts = direction.counts
        self.passed: dict[int, list[Sighting]] = defaultdict(list)  # captured transmissions by start
        self.ends: dict[int, int] = {}
        self.highest = self.acked = 0
        self.peer_closed = False
        self.unseen: set[int] = set()
        self.floor: int | None = None  # where the direction began for the capture
        self.resends: list[tuple[int, int]] = []  # (time, start)
        self.judged: dict[int, list[str]] = defaultdict(list)  # causes of captured resends by start, if still open

    def judge(self) -> None:
        for sighting in self.first:
            sent = sighting.sent
            if sent.side == self.side:
                self._own(sighting)
            elif sent.kind != FORGED:
                self._others(sighting)

    # ---- this side's packets

    def _own(self, sighting: Sighting) -> None:
        sent, counts = sighting.sent, self.counts
        self.direction.packets += 1
        self.direction.payload_bytes += sent.octets
        closed = sent.window >> 7 == 0 and not sent.flags & (SYN | RST)
        counts["zero_windows"] += closed and sent.kind != FORGED
        if sent.kind == FORGED:
            counts["out_of_window"] += 1
            self.direction.data_packets += 1
        elif sent.kind in (PROBE, KEEPALIVE):
            # A probe of a window whose closing the mirror dropped looks like a keep-alive, and is one for the capture.
            counts["window_probes" if self.peer_closed else "keepalives"] += self.floor is not None
        elif sent.end > sent.seq:
            self.direction.data_packets += sent.octets > 0
            self._segment(sighting)
        if sent.kind == FORGED:
            return
        self.highest = max(self.highest, sent.seq)  # an empty packet, too, shows how far its sender has come
        if self.floor is None:
            self.floor = sent.seq

    def _segment(self, sighting: Sighting) -> None:
        sent, counts = sighting.sent, self.counts
        earlier = self.passed[sent.seq]
        if self.floor is None or sent.end > self.highest:
            pass  # nothing later has passed: even a resend only advances, as far as the capture can show
        elif not sent.resend:
            counts["reordered"] += 1
            counts["unseen_bytes"] -= max(min(sent.end, self.acked) - sent.seq, 0)  # the mirror was only late
        elif sent.end <= self.acked:
            counts["retransmissions"] += 1
            counts["spurious"] += 1
        else:
            cause = "retransmissions" if earlier else "upstream_losses"
            counts[cause] += 1
            self.judged[sent.seq].append(cause)
        if sent.resend:
            self.resends.append((sighting.time_ns, sent.seq))
        earlier.append(sighting)
        self.ends[sent.seq] = sent.end
        self.highest = max(self.highest, sent.end)

    # ---- the other side's ACKs

    def _others(self, sighting: Sighting) -> None:
        sent = sighting.sent
        if not sent.flags & (SYN | RST):
            self.peer_closed = sent.window >> 7 == 0
        if sent.ack is None or sent.flags & RST:
            return
        if sent.names_duplicate:
            self._named(*sent.sacks[0])
        if sent.ack > self.acked:
            self._sample(sighting)
            self._cover(self.acked, sent.ack)
            self.acked = sent.ack
        self.highest = max(self.highest, sent.ack)

    def _named(self, start: int, end: int) -> None:
        """The receiver has got these bytes twice: the last of their resends was needless.

        If it was the first that the capture shows, the mirror had missed the one before.
        """
        if not self.judged[start]:
            return
        counts = self.counts
        counts["spurious"] += 1
        if self.judged[start].pop() == "upstream_losses":
            counts["upstream_losses"] -= 1
            counts["retransmissions"] += 1
            counts["unseen_bytes"] += end - start

    def _cover(self, start: int, end: int) -> None:
        """Bytes that are ACKed and that no captured packet carried: the mirror missed them."""
        if self.floor is None:
            return  # of a direction that has not been seen nobody knows where it began
        start = max(start, self.floor)
        carried = sum(max(min(until, end) - max(seq, start), 0) for seq, until in self.ends.items())
        self.counts["unseen_bytes"] += max(end - start - carried, 0)

    def _sample(self, sighting: Sighting) -> None:
        """Karn's rule: the ACK answers a segment that passed once, and nothing before it was sent again meanwhile.

        A resend counts as well where it is the only one that passed.
        """
        answered = sighting.sent.answers
        if answered is None or answered.end != sighting.sent.ack or answered.kind != DATA:
            return
        passed = self.passed.get(answered.seq, [])
        if len(passed) != 1 or passed[0].sent is not answered or not answered.octets:
            return
        since = passed[0].time_ns
        if any(when > since and seq < answered.end for when, seq in self.resends):
            return
        took = sighting.time_ns - since
        least = self.direction.rtt_min_ns
        self.direction.rtt_min_ns = took if least is None else min(least, took)


def _handshake(first: list[Sighting]) -> tuple[int | None, int | None]:
    """Both halves, if the capture shows each packet of it, each sent once."""
    syn = [s for s in first if s.sent.flags & SYN and s.sent.side == 0]
    syn_ack = [s for s in first if s.sent.flags & SYN and s.sent.side == 1]
    ack = [s for s in first if s.sent.side == 0 and not s.sent.flags & SYN and s.sent.kind != FORGED]
    empty = bool(ack) and ack[0].sent.end == ack[0].sent.seq
    server = client = None
    if len(syn) == 1 and syn_ack and not syn[0].sent.resend and syn_ack[0].time_ns >= syn[0].time_ns:
        server = syn_ack[0].time_ns - syn[0].time_ns if syn_ack[0].sent.answers is None else None
    if len(syn_ack) == 1 and ack and ack[0].sent.answers is syn_ack[0].sent and empty:
        client = ack[0].time_ns - syn_ack[0].time_ns
    return server, client
