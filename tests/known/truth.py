"""What is true of a connection, in the terms of the flow record, as far as the capture can show it.

It follows from what happened to each packet: which transmission of which bytes it is, whether an earlier one is in the
capture, which arrival an ACK answers, and which two arrivals a DSACK speaks of. The sensor has to infer all that from
headers and times; nothing is inferred here. Where the mirror has dropped what would have told, the truth is what the
rest can show; each such place says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .mirror import Sighting
from .packets import FORGED, KEEPALIVE, PROBE, RST, SYN, Sent

CAUSES = (
    "retransmissions", "spurious", "upstream_losses", "reordered", "keepalives", "window_probes", "zero_windows",
    "out_of_window", "unknown_causes", "unseen_bytes", "mirror_duplicates",
)  # fmt: skip
SIZES = ("packets", "data_packets", "payload_bytes")
NEVER = 1 << 62


@dataclass
class Direction:
    """The truth of one direction."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*SIZES, *CAUSES), 0))
    rtt_ns: list[int] = field(default_factory=list)
    """Of each segment and the ACK that answers it, with Karn's rule."""
    rtt_also_ns: list[int] = field(default_factory=list)
    """Of each segment and an ACK that was sent after its arrival, although the capture does not show what moved it."""
    transit_ns: list[int] = field(default_factory=list)
    has_twins: bool = False
    """Packets that are equal in everything, so that nobody can say which of them a copy is of."""


@dataclass
class Truth:
    """The truth of a connection. Times in ns, None where the capture does not show them."""

    directions: tuple[Direction, Direction]
    handshake_server_ns: int | None
    handshake_client_ns: int | None


def truth_of(shown: list[Sighting]) -> Truth:
    """Everything that a capture of one connection can show."""
    first: list[Sighting] = []
    seen: dict[Sent, Sighting] = {}
    directions = (Direction(), Direction())
    for sighting in shown:
        earlier = seen.setdefault(sighting.sent, sighting)
        if earlier is sighting:
            first.append(sighting)
        else:
            direction = directions[sighting.sent.side]
            direction.counts["mirror_duplicates"] += 1
            direction.transit_ns.append(sighting.time_ns - earlier.time_ns)
    for side, direction in enumerate(directions):
        _Judge(first, side, direction).judge()
        direction.has_twins = _has_twins([sighting.sent for sighting in first if sighting.sent.side == side])
    return Truth(directions, *_handshake(first))


@dataclass(slots=True)
class _Chunk:
    """Bytes that are always sent as one segment."""

    seq: int
    end: int
    passes: list[Sighting] = field(default_factory=list)
    advanced: bool = False
    """It was new to the capture when it came, in order."""
    is_missed: bool = False
    """A captured resend shows, with an ACK or DSACK, that one before it had got through unseen."""


class _Judge:
    """Judges the captured packets of one side, in the order of the capture."""

    def __init__(self, first: list[Sighting], side: int, direction: Direction) -> None:
        self.first, self.side, self.direction = first, side, direction
        self.counts = direction.counts
        self.chunks: dict[int, _Chunk] = {}
        self.by_end: dict[int, _Chunk] = {}
        self.floor: int | None = None  # where the capture of this direction begins
        self.highest = 0  # everything below has been passed over, by later bytes or by an ACK
        self.acked = 0
        self.acks: list[tuple[int, int]] = []  # captured advances of the acknowledgment: from, to
        self.peer_closed = False
        self.old: list[tuple[int, int]] = []  # of this side's segments that did not advance: time, start
        self.shown = {sighting.sent for sighting in first}
        self.verdicts = self._verdicts()

    def judge(self) -> None:
        """Fill in the direction."""
        for sighting in self.first:
            sent = sighting.sent
            if sent.side == self.side:
                self._own(sighting)
            elif sent.kind != FORGED:
                self._others(sighting)
        self.counts["unseen_bytes"] = sum(self._unseen(start, end) for start, end in self.acks)

    def _verdicts(self) -> set[Sent]:
        """Transmissions that a captured DSACK shows to have been needless.

        Of two that had arrived, the one that passed the tap last, as far as the capture shows them.
        """
        order = {sighting.sent: number for number, sighting in enumerate(self.first)}
        verdicts = set()
        for sighting in self.first:
            if sighting.sent.side != self.side and sighting.sent.twice:
                verdicts.add(max(sighting.sent.twice, key=lambda sent: order.get(sent, -1)))
        return verdicts

    # ---- this side's packets

    def _own(self, sighting: Sighting) -> None:
        sent, counts = sighting.sent, self.counts
        counts["packets"] += 1
        counts["payload_bytes"] += sent.octets
        if sent.kind == FORGED:
            counts["out_of_window"] += 1
            counts["data_packets"] += 1
            return
        counts["zero_windows"] += sent.window == 0 and not sent.flags & (SYN | RST)
        if sent.kind in (PROBE, KEEPALIVE):
            # A probe of a window whose closing the mirror dropped looks like a keep-alive, and is one for the capture.
            closed = self.peer_closed or sent.because in self.shown
            counts["window_probes" if closed else "keepalives"] += 1
        elif sent.end > sent.seq:
            counts["data_packets"] += sent.octets > 0
            self._segment(sighting)
        else:
            self.highest = max(self.highest, sent.seq)
        if self.floor is None:
            self.floor = sent.seq

    def _segment(self, sighting: Sighting) -> None:
        sent, counts = sighting.sent, self.counts
        chunk = self.chunks.setdefault(sent.seq, _Chunk(sent.seq, sent.end))
        self.by_end[sent.end] = chunk
        needless = sent.end <= self.acked or sent in self.verdicts
        if self.floor is not None and sent.seq < self.floor:
            counts["unknown_causes"] += 1  # from before the capture of this direction
        elif chunk.passes:
            counts["retransmissions"] += 1
            counts["spurious"] += needless
        elif self.floor is None or sent.end > self.highest:
            chunk.advanced = True  # even if it is a resend: nothing in the capture shows that
        elif not sent.resend:
            # Overtaken before the tap, or shown late by the mirror, which is the same to the capture.
            counts["reordered"] += 1
        elif needless:
            counts["retransmissions"] += 1
            counts["spurious"] += 1
            chunk.is_missed = True
        else:
            # Lost before the tap; or by the mirror and then behind the tap, which is the same to the capture.
            counts["upstream_losses"] += 1
        if sent.resend or not chunk.advanced:
            self.old.append((sighting.time_ns, sent.seq))
        chunk.passes.append(sighting)
        self.highest = max(self.highest, sent.end)

    # ---- the other side's

    def _others(self, sighting: Sighting) -> None:
        sent = sighting.sent
        if sent.flags & RST:
            return
        if not sent.flags & SYN:
            self.peer_closed = sent.window == 0
        if sent.ack is None or sent.ack <= self.acked:
            return
        self._sample(sighting)
        if self.floor is not None:
            self.acks.append((max(self.acked, self.floor), sent.ack))
        self.acked = sent.ack
        self.highest = max(self.highest, sent.ack)

    def _unseen(self, start: int, end: int) -> int:
        """ACKed bytes of which no transmission is in the capture, or only one that came after the one that arrived."""
        shown = sum(
            max(min(chunk.end, end) - max(chunk.seq, start), 0) for chunk in self.chunks.values() if not chunk.is_missed
        )
        return max(end - start - shown, 0)

    def _sample(self, sighting: Sighting) -> None:
        """Karn's rule: of a segment that passed once, in order, with nothing from before it since then."""
        ack = sighting.sent
        chunk = self.by_end.get(ack.ack or 0)
        if chunk is None or not chunk.advanced or len(chunk.passes) != 1:
            return
        since, segment = chunk.passes[0].time_ns, chunk.passes[0].sent
        if not segment.octets or any(when > since and seq < chunk.end for when, seq in self.old):
            return
        if ack.answers is segment:
            self.direction.rtt_ns.append(sighting.time_ns - since)
        elif segment.arrived_ns is not None and segment.arrived_ns <= ack.sent_ns:
            self.direction.rtt_also_ns.append(sighting.time_ns - since)


def _has_twins(packets: list[Sent]) -> bool:
    looks = {
        (one.seq, one.end, one.flags, one.ack, one.window, one.sacks, one.ts_val, one.ts_ecr, one.ident)
        for one in packets
    }
    return len(looks) < len(packets)


def _handshake(first: list[Sighting]) -> tuple[int | None, int | None]:
    """Both halves, where the capture shows one SYN, or one SYN-ACK, and the packet that answers just that one."""
    syn = [sighting for sighting in first if sighting.sent.flags & SYN and sighting.sent.side == 0]
    syn_ack = [sighting for sighting in first if sighting.sent.flags & SYN and sighting.sent.side == 1]
    rest = [s for s in first if s.sent.side == 0 and not s.sent.flags & SYN and s.sent.kind != FORGED]
    server = client = None
    if len(syn) == 1 and syn_ack and not syn_ack[0].sent.resend and syn_ack[0].sent.answers is syn[0].sent:
        server = syn_ack[0].time_ns - syn[0].time_ns
    if len(syn_ack) == 1 and rest and rest[0].sent.answers is syn_ack[0].sent and rest[0].sent.end == 1:
        client = rest[0].time_ns - syn_ack[0].time_ns
    return tuple(None if took is None or took < 0 else took for took in (server, client))  # type: ignore[return-value]
