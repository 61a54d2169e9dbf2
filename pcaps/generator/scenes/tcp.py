"""What a tap sees of TCP besides whole, undisturbed connections."""

from __future__ import annotations

from ..conversation import Outcome
from ..files import pcap
from ..registry import capture
from ..wire import AFTER, BEFORE, LATE
from .small import framed, visit


def _only(outcome: Outcome, side: str) -> Outcome:
    return Outcome([packet for packet in outcome.packets if packet.side == side], outcome.truth)


def _after(outcome: Outcome, skipped: int) -> Outcome:
    return Outcome(outcome.packets[skipped:], outcome.truth)


@capture("one-sided.pcap")
def one_sided() -> bytes:
    """Two connections of which the mirror delivers one direction each."""
    return pcap(framed(_only(visit(), "c2s"), _only(visit(sport=40002, start_ms=20), "s2c")))


@capture("snapped.pcap")
def snapped() -> bytes:
    """Frames cut to 60 octets: sizes come from the IP header."""
    return pcap(framed(visit(size=20000)), snaplen=60)


@capture("midstream.pcap")
def midstream() -> bytes:
    """The capture starts after the handshake: once with a request, once with the answer."""
    return pcap(framed(_after(visit(), 3), _after(visit(sport=40002, start_ms=20), 5)))


@capture("handshake-resend.pcap")
def handshake_resend() -> bytes:
    """A SYN lost behind the tap and sent twice; a SYN-ACK lost behind the tap, both sent twice."""
    return pcap(framed(visit(faults={("c2s", 0): AFTER}), visit(sport=40002, start_ms=50, faults={("s2c", 0): AFTER})))


@capture("port-reuse.pcap")
def port_reuse() -> bytes:
    """A five-tuple used again two seconds after its connection closed."""
    return pcap(framed(visit(), visit(start_ms=2000)))


@capture("reset.pcap")
def reset() -> bytes:
    """A connection that the client resets, and one left open."""
    return pcap(framed(visit(ending="reset"), visit(sport=40002, start_ms=20, ending="open")))


@capture("loss.pcap")
def loss() -> bytes:
    """One connection each: lost after the tap, lost before the tap, overtaken, all three."""
    after, before, late = {("s2c", 3): AFTER}, {("s2c", 4): BEFORE}, {("s2c", 2): LATE}
    causes = (after, before, late, {**after, ("s2c", 6): BEFORE, **late})
    return pcap(framed(*(
        visit(size=30000, sport=40001 + i, start_ms=500 * i, faults=faults) for i, faults in enumerate(causes)
    )))  # fmt: skip
