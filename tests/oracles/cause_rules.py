"""Why tshark and the sensor differ over a segment: each reason as a check of the packets.

The definitions in words are in cause_differences.toml, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.oracles.alone import five_tuple
from tests.oracles.evidence import FIN, SEQUENCE_NUMBERS, SYN, Evidence, Segment
from tests.oracles.flows import Key

OUT_OF_REACH = 2**20  # octets: more than any window without scaling, twice the largest in the captures
MOST_BETWEEN = 256  # packets that a sender may have sent to others between two of one flow


@dataclass(frozen=True)
class Rule:
    """``holds`` for a frame of a flow, or not.

    ``effect`` is what each such frame adds to tshark's numbers to make them the sensor's. A rule without one says what
    other frames do to tshark's stream: its numbers are then those of the flow alone.
    """

    holds: Callable[[Evidence, Key, int], bool]
    effect: dict[str, int] = field(default_factory=dict)


def from_on(number: int, start: int) -> bool:
    """Whether a sequence number, or a timestamp, is another one or beyond it (RFC 9293 section 3.4)."""
    return (number - start) % SEQUENCE_NUMBERS < SEQUENCE_NUMBERS // 2


def mirror_duplicate(evidence: Evidence, key: Key, frame: int) -> bool:
    """The frame is a mirror duplicate, or comes after one in the same stream."""
    return any(copy <= frame for copy in evidence.copies.get(five_tuple(key), ()))


def other_tenant(evidence: Evidence, key: Key, frame: int) -> bool:
    """The same addresses and ports were in use in another VLAN or virtual network before."""
    return any(other != key and first < frame for other, first in evidence.domains.get(five_tuple(key), {}).items())


def decoded_otherwise(evidence: Evidence, key: Key, frame: int) -> bool:
    """The frame is one that differences.py says is another packet, or comes after one in the same stream."""
    return any(other <= frame for other in evidence.decoded_otherwise.get(five_tuple(key), ()))


def earlier(evidence: Evidence, one: Segment, same_way: bool = True) -> Iterator[Segment]:
    """What passed before a segment, in its direction or in the other one."""
    for other in evidence.segments.values():
        if other.frame < one.frame and other.key == one.key and (other.up == one.up) == same_way:
            yield other


def with_same_octets(evidence: Evidence, one: Segment) -> Iterator[Segment]:
    """Packets of their own, by their marks, that brought the octets of a segment before."""
    for other in earlier(evidence, one):
        repeated = from_on(one.seq, other.seq) and from_on(other.end, one.end)
        if other.payload and repeated and (other.ident, other.stamp) != (one.ident, one.stamp):
            yield other


def passed_before(evidence: Evidence, key: Key, frame: int) -> bool:
    """Its octets are further up in the capture, in another packet."""
    one = evidence.segments[frame]
    return one.payload > 0 and any(with_same_octets(evidence, one))


def sent_later(evidence: Evidence, key: Key, frame: int) -> bool:
    """It had not passed, and was sent after the segment that left it out, by the sender's own marks."""
    one = evidence.segments[frame]
    opener = next((other for other in earlier(evidence, one) if other.payload and from_on(other.seq, one.end)), None)
    return opener is not None and not any(with_same_octets(evidence, one)) and marked_later(one, opener)


def marked_later(one: Segment, other: Segment) -> bool:
    """Whether IP identification and TCP timestamp, or the one there is, say that one was sent after the other."""
    marks = []
    if one.ident and other.ident:
        marks.append(0 < (one.ident - other.ident) % 2**16 <= MOST_BETWEEN)
    if one.stamp is not None and other.stamp is not None and one.stamp != other.stamp:
        marks.append(from_on(one.stamp, other.stamp))
    return bool(marks) and all(marks)


def acked_without_payload(evidence: Evidence, key: Key, frame: int) -> bool:
    """A SYN or FIN without payload that had passed before, and that the other side has acknowledged since."""
    one = evidence.segments[frame]
    passed = any(other.seq == one.seq and other.flags & one.flags & (SYN | FIN) for other in earlier(evidence, one))
    answers = (other.ack for other in earlier(evidence, one, same_way=False) if other.ack is not None)
    return one.payload == 0 and passed and any(from_on(ack, one.end) for ack in answers)


def named_by_dsack(evidence: Evidence, key: Key, frame: int) -> bool:
    """It had passed before, and a later ACK reports just its octets as received twice (RFC 2883)."""
    one = evidence.segments[frame]
    reports = (
        other.held[0]
        for other in evidence.segments.values()
        if other.frame > frame and (other.key, other.up) == (key, not one.up) and other.held and other.ack is not None
        and from_on(other.ack, other.held[0][1])
    )  # fmt: skip
    return any(with_same_octets(evidence, one)) and (one.seq, one.end) in reports


def before_the_capture(evidence: Evidence, key: Key, frame: int) -> bool:
    """Its direction was joined without a SYN, at a later octet: whether these had passed, the capture cannot know."""
    one = evidence.segments[frame]
    first = min(earlier(evidence, one), key=lambda other: other.frame, default=one)
    return not first.flags & SYN and one.payload > 0 and from_on(first.seq, one.end)


def window_closed(evidence: Evidence, key: Key, frame: int) -> bool:
    """The other side's latest packet says that it takes nothing now: this one asks for its window."""
    latest = max(earlier(evidence, evidence.segments[frame], same_way=False), key=lambda other: other.frame)
    return latest.window == 0 and evidence.segments[frame].payload <= 1


def out_of_reach(one: Segment, evidence: Evidence) -> bool:
    """Whether it begins far beyond all that the other side has acknowledged until then."""
    acked = [other.ack for other in earlier(evidence, one, same_way=False) if other.ack is not None]
    return bool(acked) and all((one.seq - ack) % SEQUENCE_NUMBERS in range(OUT_OF_REACH, 2**31) for ack in acked)


def beyond_the_window(evidence: Evidence, key: Key, frame: int) -> bool:
    """It is far beyond what the receiver allows, or is in place and comes behind one that is: forged or corrupt."""
    one = evidence.segments[frame]
    return out_of_reach(one, evidence) or any(out_of_reach(other, evidence) for other in earlier(evidence, one))


RULES = {
    "mirror-duplicate": Rule(mirror_duplicate),
    "other-tenant": Rule(other_tenant),
    "decoded-otherwise": Rule(decoded_otherwise),
    "passed-before": Rule(passed_before, {"out_of_order": -1, "retransmission": 1}),
    "sent-later": Rule(sent_later, {"out_of_order": -1, "retransmission": 1}),
    "acked-without-payload": Rule(acked_without_payload, {"spurious_retransmission": 1}),
    "named-by-dsack": Rule(named_by_dsack, {"spurious_retransmission": 1}),
    "before-the-capture": Rule(before_the_capture, {"retransmission": -1, "spurious_retransmission": -1}),
    "window-closed": Rule(window_closed, {"keep_alive": -1}),
    "beyond-the-window": Rule(beyond_the_window, {"out_of_order": -1, "lost_segment": -1}),
}
