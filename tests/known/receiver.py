"""The receiving half of an end: what it holds, what it acknowledges, and the window that it offers."""

from __future__ import annotations

from .packets import PROBE, SCALE, Habits, Sent

HELD_REPORTED = 3
NEVER = 99


class Receiver:
    """Bytes in order up to `next`, and segments held behind holes."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.next: int | None = None
        self.read = 1
        self.stalled = False
        self.ts_recent = 0
        self.latest: Sent | None = None
        """The segment whose arrival moved `next` to its own end; None when that filled a hole."""
        self._held: dict[int, int] = {}
        self._recent: list[int] = []
        self._arrived: dict[int, Sent] = {}
        self._twice: tuple[Sent, Sent] | None = None

    @property
    def has_holes(self) -> bool:
        """Whether something is missing before what is held."""
        return bool(self._held)

    def take(self, sent: Sent) -> bool:
        """Take a segment in; False when all of it was here before. The octet of a window probe is never taken."""
        assert self.next is not None
        if sent.kind == PROBE:
            return False
        before = self.next
        known = sent.end <= before or sent.seq in self._held
        if known:
            if sent.end > sent.seq:
                self._twice = (self._arrived.get(sent.seq, sent), sent)
        else:
            self._arrived[sent.seq] = sent
            self._held[sent.seq] = sent.end
            self._recent = [sent.seq, *[start for start in self._recent if start != sent.seq]][:8]
        while self.next in self._held:
            self.next = self._held.pop(self.next)
        if self.next > before:
            self.latest = sent if sent.end == self.next else None
        if not self.stalled:
            self.read = self.next
        return not known

    def window(self) -> int:
        """Room in the buffer; nothing rather than less than a segment (RFC 9293 section 3.8.6.2.2)."""
        room = self.habits.buffer - ((self.next or 1) - self.read)
        return room >> SCALE << SCALE if room >= self.habits.mss else 0

    def resume(self) -> bool:
        """The application reads again; True when that opens a closed window."""
        closed = self.window() == 0
        self.stalled = False
        self.read = self.next or 1
        return closed

    def blocks(self) -> tuple[tuple[tuple[int, int], ...], tuple[Sent, Sent] | None]:
        """RFC 2018 section 4: the block of the latest arrival first; RFC 2883: a duplicate before all."""
        twice, self._twice = self._twice, None
        if not self._held and not twice:
            return (), None
        merged: list[list[int]] = []
        for start in sorted(self._held):
            if merged and merged[-1][1] == start:
                merged[-1][1] = self._held[start]
            else:
                merged.append([start, self._held[start]])
        rank = {start: number for number, start in enumerate(self._recent)}
        merged.sort(key=lambda block: min(rank.get(s, NEVER) for s in self._held if block[0] <= s < block[1]))
        blocks = tuple((left, right) for left, right in merged)
        if twice is None:
            return blocks[:HELD_REPORTED], None
        return ((twice[1].seq, twice[1].end), *blocks[: HELD_REPORTED - 1]), twice
