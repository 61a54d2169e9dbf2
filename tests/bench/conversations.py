"""Who talks, how much and when: all packets of all conversations as columns.

A conversation opens (TCP handshake), takes turns (a request, then a bulk of segments with an acknowledgement behind
every second one) and closes. Some segments are lost behind the tap and seen twice, some are lost before it and seen
late, some are overtaken; acknowledgements hold still until the gap is filled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.bench.frames import ACK, FIN, PSH, SYN, Bools, Floats, Ints, Packets

OPENING, CLOSING, WHOLE = 3, 3, 8
SEGMENT, DATAGRAM = 1460, 1200
IMIX_OCTETS, IMIX_PARTS = (40, 576, 1500), (7, 4, 1)  # of IP packets
TCP_HEADERS, UDP_HEADERS = 40, 28
TORN_SHARE, UPLOAD_SHARE, QUERY_SHARE = 0.05, 0.3, 0.7
RESENT_SHARE, LOST_SHARE, OVERTAKEN_SHARE = 0.005, 0.003, 0.003
TURNS = 200
ACK_JITTER_US, SETTLE_US, OVERTAKEN_US = 50, 100, 60


@dataclass(frozen=True)
class Flows:
    """The shape of each conversation. Two-row arrays: what the client sends, then what the server sends."""

    udp: Bools
    packets: Ints
    opening: Ints  # packets of the handshake that the capture shows
    closing: Ints  # ... of the FIN exchange
    turn: Ints  # packets from one request to the next
    asker: Ints  # side that sends the requests; the other sends the bulk
    rtt: Ints  # tap -> receiver -> tap, µs
    pace: Ints  # µs between segments of a bulk, on average
    pauses: Ints  # µs, sum over the conversation
    isn: Ints


@dataclass(frozen=True)
class Slots:
    """What each packet of a conversation is for. Packets stand flow by flow, in the order of the conversation."""

    flow: Ints
    index: Ints  # place in the conversation
    place: Ints  # place in the turn
    left: Ints  # packets to the end, this one included
    first: Ints  # of each flow: where it begins
    request: Bools
    bulk: Bools
    final: Bools  # the last of a bulk
    answer: Bools  # pure acknowledgement of a bulk
    resent: Bools  # instead of an acknowledgement: the segment two places before, again
    lost: Bools  # seen only as the late resend
    overtaken: Bools
    closing: Bools


def draw_flows(rng: np.random.Generator, udp: Bools, packets: int, single: int, seconds: float) -> Flows:
    """Everything that conversations are made of. The last ``single`` ones are a lone SYN, the others share the rest."""
    count = len(udp)
    size = np.concatenate((draw_sizes(rng, udp[: count - single], packets - single), np.ones(single, np.int64)))
    whole = ~udp & (size >= WHOLE)
    torn = rng.random((2, count)) < TORN_SHARE
    bulk = 3 * np.maximum(1 + rng.lognormal(1, 1, count).astype(np.int64).clip(0, 80), size // (3 * TURNS))
    return Flows(
        udp=udp,
        packets=size,
        opening=np.where(udp | (whole & torn[0]), 0, np.minimum(size, OPENING)),
        closing=np.where(whole & ~torn[1], CLOSING, 0),
        turn=np.where(udp & (rng.random(count) < QUERY_SHARE), 2, bulk),
        asker=(rng.random(count) < UPLOAD_SHARE).astype(np.int64),
        rtt=(150 * rng.lognormal(0, 0.8, (2, count))).astype(np.int64).clip(20, 5000),
        pace=(8 * rng.lognormal(0, 0.8, count)).astype(np.int64).clip(2, 100),
        pauses=(1e6 * seconds * (0.15 * rng.lognormal(0, 1, count)).clip(0, 0.8)).astype(np.int64),
        isn=rng.integers(0, 1 << 32, (2, count)),
    )


def draw_sizes(rng: np.random.Generator, udp: Bools, packets: int) -> Ints:
    """Packets of each conversation: a least number, and a log-normal share of the rest."""
    if not len(udp):
        return np.zeros(0, np.int64)
    whole = min(WHOLE, packets // len(udp))
    least = np.where(udp, min(2, whole), whole)
    weight = rng.lognormal(0, 2, len(udp))
    spare = packets - int(least.sum())
    extra = (weight * (spare / weight.sum())).astype(np.int64)
    extra[: spare - int(extra.sum())] += 1
    return np.asarray(least + extra)


def draw_packets(rng: np.random.Generator, flows: Flows, seconds: float, imix: bool = False) -> Packets:
    """All packets of the conversations, flow by flow. With ``imix``, sizes are those of the Internet mix."""
    slots = lay_out(rng, flows)
    flow, resent = slots.flow, np.flatnonzero(slots.resent)
    side = senders(flows, slots)
    flags = draw_flags(flows, slots)
    payload = draw_mix(rng, flows, slots) if imix else draw_payloads(rng, flows, slots)
    payload[resent] = payload[resent - 2]
    time_us = draw_times(rng, flows, slots, side, seconds)
    advance = np.where(flows.udp[flow] | slots.resent, 0, payload + ((flags & (SYN | FIN)) > 0))
    seq = flows.isn[side, flow] + sequence(slots, side, advance)
    seq[resent] = seq[resent - 2]
    arrival = time_us.copy()
    arrival[resent - 2] = time_us[resent]
    ack = np.where(flags & ACK, acknowledge(flows, slots, side, advance, time_us, arrival), 0)
    ident = flow * 40503 + side * 20011 + slots.index + (slots.resent | slots.lost) * 0x8000
    return Packets(flow, side, time_us, payload, flags, ident & 0xFFFF, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF)


def lay_out(rng: np.random.Generator, flows: Flows) -> Slots:
    """Give every packet its purpose."""
    flow = np.repeat(np.arange(len(flows.packets), dtype=np.int64), flows.packets)
    first = np.cumsum(flows.packets) - flows.packets
    index = np.arange(len(flow)) - first[flow]
    left = flows.packets[flow] - index
    closing = left <= flows.closing[flow]
    body = (index >= flows.opening[flow]) & ~closing
    turn = flows.turn[flow]
    place = (index - flows.opening[flow]) % turn
    tcp = ~flows.udp[flow]
    request = body & (place == 0)
    answer = body & tcp & ~request & (place % 3 == 0)
    bulk = body & ~request & ~answer
    final = bulk & ((place == turn - 1) | (left == flows.closing[flow] + 1))
    luck = rng.random(len(flow))
    resent = answer & (luck < RESENT_SHARE)
    second = bulk & tcp & (place % 3 == 2)
    lost = second & (luck < LOST_SHARE)
    overtaken = second & ~final & (luck > 1 - OVERTAKEN_SHARE)
    answer &= ~resent
    return Slots(flow, index, place, left, first, request, bulk, final, answer, resent, lost, overtaken, closing)


def senders(flows: Flows, slots: Slots) -> Ints:
    """Opening and closing alternate, the client first; in between each side keeps to its part."""
    asker = flows.asker[slots.flow]
    side = np.where(slots.request | slots.answer, asker, slots.index & 1)
    side = np.where(slots.bulk | slots.resent, 1 - asker, side)
    return np.where(slots.closing, (slots.left & 1) ^ 1, side)


def draw_flags(flows: Flows, slots: Slots) -> Ints:
    """TCP control bits; none for UDP."""
    flags = np.full(len(slots.flow), ACK)
    flags[slots.request | slots.final] |= PSH
    flags[slots.closing & (slots.left > 1)] |= FIN
    opening = slots.index < flows.opening[slots.flow]
    flags[opening & (slots.index < 2)] |= SYN
    flags[opening & (slots.index == 0)] = SYN
    flags[flows.udp[slots.flow]] = 0
    return flags


def draw_payloads(rng: np.random.Generator, flows: Flows, slots: Slots) -> Ints:
    """Full segments, but for requests and the last of each bulk."""
    full = np.where(flows.udp[slots.flow], DATAGRAM, SEGMENT)
    payload = np.where(slots.bulk, full, 0)
    payload[slots.request] = rng.integers(40, 900, np.count_nonzero(slots.request))
    payload[slots.final] = rng.integers(1, DATAGRAM, np.count_nonzero(slots.final))
    return payload


def draw_mix(rng: np.random.Generator, flows: Flows, slots: Slots) -> Ints:
    """Whatever a packet is for, its size is one of three; but for those that open or close."""
    octets = rng.choice(IMIX_OCTETS, len(slots.flow), p=np.divide(IMIX_PARTS, sum(IMIX_PARTS)))
    payload = octets - np.where(flows.udp[slots.flow], UDP_HEADERS, TCP_HEADERS)
    payload[slots.closing | (slots.index < flows.opening[slots.flow])] = 0
    return payload


def draw_times(rng: np.random.Generator, flows: Flows, slots: Slots, side: Ints, seconds: float) -> Ints:
    """When the tap sees each packet: µs from the start of the capture."""
    flow = slots.flow
    round_trip = flows.rtt[1 - side, flow]  # back to this sender, through the tap
    gap = draw_gaps(rng, flows, slots, round_trip)
    behind = np.flatnonzero(slots.resent | slots.lost | slots.overtaken)
    delay = draw_delays(rng, flows, slots, behind)
    wait_for_recovery(slots, gap, behind, delay)
    at = np.cumsum(gap)
    at -= at[slots.first][flow]
    answers = np.flatnonzero(slots.answer)
    to_next = np.append(gap, 0)[answers + 1].clip(0, ACK_JITTER_US)
    at[answers] += round_trip[answers] + rng.random(len(answers)) * to_next
    at[behind] += delay
    lasts = np.maximum.reduceat(at, slots.first)
    start = rng.random(len(lasts)) * (1e6 * seconds - lasts).clip(0)
    return np.asarray((start[flow] + at).astype(np.int64))


def draw_gaps(rng: np.random.Generator, flows: Flows, slots: Slots, round_trip: Ints) -> Floats:
    """µs from the packet before to this one, without losses. An acknowledgement stands with its segment at first."""
    flow, count = slots.flow, len(slots.flow)
    starts = (slots.request & (slots.index > flows.opening[flow])) | (slots.closing & (slots.left == CLOSING))
    gap = 1 + rng.exponential(1, count) * flows.pace[flow]
    gap[slots.answer | slots.resent] = 0
    reacts = slots.closing | (slots.index < flows.opening[flow]) | slots.request | (slots.bulk & (slots.place == 1))
    gap[reacts] += round_trip[reacts] + SETTLE_US
    pausing = flow[starts]
    share = rng.exponential(1, len(pausing))
    gap[starts] += share / np.bincount(pausing, share)[pausing] * flows.pauses[pausing]
    return gap


def draw_delays(rng: np.random.Generator, flows: Flows, slots: Slots, behind: Ints) -> Floats:
    """A round trip and a little to notice a loss, or now and then a timeout; overtaking takes no time at all."""
    flow = slots.flow[behind]
    notice = np.where(rng.random(len(behind)) < 0.05, 200_000, rng.uniform(4000, 8000, len(behind)))
    return np.where(slots.overtaken[behind], OVERTAKEN_US, flows.rtt[:, flow].sum(axis=0) + notice)


def wait_for_recovery(slots: Slots, gap: Floats, behind: Ints, delay: Floats) -> None:
    """What follows the bulk starts later; behind a flow's last bulk that is another flow, whose first gap is void."""
    starts = np.flatnonzero(slots.request | slots.closing | (slots.index == 0))
    after = np.searchsorted(starts, behind, "right")
    inside = after < len(starts)
    np.add.at(gap, starts[after[inside]], delay[inside])


def sequence(slots: Slots, side: Ints, advance: Ints) -> Ints:
    """Octets that the same side has sent before this packet."""
    offset = np.zeros(len(side), np.int64)
    for sender in (0, 1):
        own = np.where(side == sender, advance, 0)
        before = np.cumsum(own) - own
        before -= before[slots.first][slots.flow]
        offset[side == sender] = before[side == sender]
    return offset


def acknowledge(flows: Flows, slots: Slots, side: Ints, advance: Ints, time_us: Ints, arrival: Ints) -> Ints:
    """The first octet that this packet's sender still misses when the tap sees the packet.

    A segment counts once it and all before it have arrived. One number stands for flow and time, so that a single
    binary search serves all packets.
    """
    flow, span = slots.flow, int(time_us.max()) + int(flows.rtt.max()) + 1
    ack = np.zeros(len(flow), np.int64)
    for sender in (0, 1):
        sent = np.flatnonzero((side == sender) & (advance > 0))
        of = flow[sent]
        complete = np.maximum.accumulate(of * span + arrival[sent] + flows.rtt[sender, of])
        octets = np.concatenate(([0], np.cumsum(advance[sent])))
        begins = octets[np.searchsorted(of, np.arange(len(flows.packets)))]
        asks = np.flatnonzero(side != sender)
        to = flow[asks]
        arrived = np.searchsorted(complete, to * span + time_us[asks], "right")
        ack[asks] = flows.isn[sender, to] + octets[arrived] - begins[to]
    return ack
