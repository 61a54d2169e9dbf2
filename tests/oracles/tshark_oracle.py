"""What tshark says: its dissection as a table of fields, read layer by layer down to the innermost IP packet.

tshark prints every occurrence of a field in a frame as one list. ``frame.protocols`` names the layers in order, so
the n-th ``ip`` layer owns the n-th entry of ``ip.src``, and so on. The walk ends at the transport, thus before the
packet that an ICMP error quotes.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.oracles.capture_file import Unreadable
from tests.oracles.flows import (
    EXTENSION_HEADERS,
    ICMP,
    ICMP6,
    TCP,
    WITH_PORTS,
    Fragment,
    Packet,
    Verdict,
    virtual_subnet,
)

ANALYSIS = (
    "retransmission", "spurious_retransmission", "out_of_order", "lost_segment", "ack_lost_segment", "keep_alive",
    "zero_window",
)  # fmt: skip
"""What tshark may say about a TCP segment; a fast or a spurious retransmission is a retransmission as well."""

FIELDS = (
    "frame.protocols", "vlan.id", "ieee8021ad.id", "erspan.vlan", "vxlan.vni", "geneve.vni",
    "gre.proto", "gre.flags.key", "gre.key",
    "ip.src", "ip.dst", "ip.proto", "ip.len", "ip.id", "ip.frag_offset", "ip.flags.mf", "ah.next_header",
    "ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.plen", "ipv6.opt.jumbo", "ipv6.hopopts.nxt", "ipv6.dstopts.nxt",
    "ipv6.routing.nxt", "ipv6.fraghdr.nxt", "ipv6.fraghdr.offset", "ipv6.fraghdr.more", "ipv6.fraghdr.ident",
    "tcp.srcport", "tcp.dstport", "tcp.stream", "tcp.flags", "tcp.analysis.initial_rtt", "udp.srcport", "udp.dstport",
    "sctp.srcport", "sctp.dstport", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code",
    *(f"tcp.analysis.{flag}" for flag in ANALYSIS),
)  # fmt: skip

PREFERENCES = (
    "ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE",
    "tcp.reassemble_out_of_order:FALSE", "tcp.relative_sequence_numbers:FALSE",
)  # fmt: skip

LINK_LAYERS = frozenset({
    "eth", "ethertype", "llc", "mpls", "pwethheuristic", "pwethcw", "pppoes", "ppp", "chdlc", "vntag", "sll", "null",
    "raw",
})  # fmt: skip
"""Layers that only lead to the next one: the link types and headers that the sensor says it decodes."""

TRANSPARENT_ETHERNET, ERSPAN = 0x6558, (0x88BE, 0x22EB)
SYN, ACK = 0x02, 0x10
SECONDS = 120


@dataclass(frozen=True)
class Handshake:
    """A TCP stream with one SYN and one SYN-ACK, and the time from that SYN to the ACK that completes it."""

    packet: Packet
    seconds: float


@dataclass(frozen=True)
class Reading:
    """Everything tshark says about one capture. Nothing after the damage is in the reading of a damaged one."""

    verdicts: list[Verdict]
    handshakes: list[Handshake]
    analysis: list[frozenset[str]]
    damaged: bool


@dataclass
class Header:
    """An IP header on the way down, with what the layers after it add."""

    src: str
    dst: str
    protocol: int
    octets: int
    vlans: tuple[int, ...]
    vni: int | None
    fragment: Fragment | None = None
    ports: tuple[int, int] | None = None

    @property
    def later_fragment(self) -> bool:
        """Whether the payload is the middle of something."""
        return self.fragment is not None and not self.fragment.first

    @property
    def complete(self) -> bool:
        """Whether everything that its flow is keyed by is there."""
        keyed = self.protocol in (*WITH_PORTS, ICMP, ICMP6)
        cut = self.protocol in EXTENSION_HEADERS[6 if ":" in self.src else 4] or (keyed and self.ports is None)
        return self.later_fragment or not cut

    def packet(self) -> Packet:
        """The packet without what carries it."""
        return Packet(self.protocol, self.src, self.dst, self.ports, self.octets, self.vlans, self.vni, self.fragment)


class Frame:
    """One line of tshark's table, consumed layer by layer."""

    def __init__(self, values: list[str]) -> None:
        """``values`` are in the order of FIELDS, each a comma-separated list."""
        self.fields = {name: value.split(",") if value else [] for name, value in zip(FIELDS, values, strict=True)}
        self.layers = (self.fields["frame.protocols"] or [""])[0].split(":")
        self.taken: Counter[str] = Counter()
        self.headers: list[Header] = []
        self.vlans: list[int] = []
        self.vni: int | None = None

    def take(self, name: str) -> int:
        """The next occurrence of a numeric field; IndexError when the packet ends before it."""
        return int(self.text(name), 0)

    def text(self, name: str) -> str:
        """The next occurrence of a field."""
        position = self.taken[name]
        self.taken[name] += 1
        return self.fields[name][position]

    def verdict(self) -> Verdict:
        """The innermost IP packet that is complete: a tunnel with a stump inside counts as itself."""
        try:
            for layer in self.layers:
                if layer not in LINK_LAYERS and not HANDLERS[layer](self):
                    break
        except (KeyError, IndexError):
            pass  # a layer of no interest, or one that the capture cuts
        while self.headers and not self.headers[-1].complete:
            self.headers.pop()
        if not self.headers:
            return None
        *outer, innermost = (header.packet() for header in self.headers)
        return replace(innermost, carriers=tuple(packet for packet in outer if packet.fragment))


def tag(frame: Frame) -> bool:
    """An 802.1Q tag."""
    frame.vlans.append(frame.take("vlan.id"))
    return True


def provider_tag(frame: Frame) -> bool:
    """An 802.1ad tag in front of another one."""
    frame.vlans.append(frame.take("ieee8021ad.id"))
    return True


def erspan(frame: Frame) -> bool:
    """ERSPAN: the VLAN of its header (types II and III) is the frame's where the frame itself has no tag."""
    tagged = "vlan" in frame.layers[frame.layers.index("erspan") :]
    if not tagged and frame.fields["erspan.vlan"]:
        frame.vlans.append(frame.take("erspan.vlan"))
    return True


def vxlan(frame: Frame) -> bool:
    """RFC 7348."""
    frame.vni = frame.take("vxlan.vni")
    return True


def geneve(frame: Frame) -> bool:
    """RFC 8926."""
    frame.vni = frame.take("geneve.vni")
    return True


def gre(frame: Frame) -> bool:
    """RFC 2784 and 2890; with an Ethernet frame inside and a key it is NVGRE (RFC 7637), but for ERSPAN."""
    inside, keyed = frame.take("gre.proto"), frame.take("gre.flags.key")
    key = frame.take("gre.key") if keyed else None
    if key is not None and inside not in ERSPAN:
        frame.vni = virtual_subnet(key) if inside == TRANSPARENT_ETHERNET else key
    return True


def ipv4(frame: Frame) -> bool:
    """Bytes are the total length; where that is 0, tshark prints what segmentation offload makes of it."""
    src, dst = frame.text("ip.src"), frame.text("ip.dst")
    protocol, octets = frame.take("ip.proto"), frame.take("ip.len")
    identification, offset, more = frame.take("ip.id"), frame.take("ip.frag_offset"), frame.take("ip.flags.mf")
    fragment = Fragment(identification, offset == 0) if offset or more else None
    frame.headers.append(Header(src, dst, protocol, octets, tuple(frame.vlans), frame.vni, fragment))
    return True


def ipv6(frame: Frame) -> bool:
    """Bytes are the fixed header and the payload length, the jumbo one (RFC 2675) where there is one."""
    src, dst, protocol = frame.text("ipv6.src"), frame.text("ipv6.dst"), frame.take("ipv6.nxt")
    payload = frame.take("ipv6.plen") or (frame.take("ipv6.opt.jumbo") if frame.fields["ipv6.opt.jumbo"] else 0)
    frame.headers.append(Header(src, dst, protocol, 40 + payload, tuple(frame.vlans), frame.vni))
    return True


def extension(name: str) -> Callable[[Frame], bool]:
    """A header that only names the next one."""

    def handler(frame: Frame) -> bool:
        frame.headers[-1].protocol = frame.take(name)
        return True

    return handler


def fragment_header(frame: Frame) -> bool:
    """The IPv6 fragment header; an atomic fragment (RFC 6946) is no fragment."""
    header = frame.headers[-1]
    header.protocol, offset = frame.take("ipv6.fraghdr.nxt"), frame.take("ipv6.fraghdr.offset")
    more, identification = frame.take("ipv6.fraghdr.more"), frame.take("ipv6.fraghdr.ident")
    header.fragment = Fragment(identification, offset == 0) if offset or more else None
    return not header.later_fragment


def transport(first: str, second: str, goes_on: bool = False) -> Callable[[Frame], bool]:
    """The two numbers that key a flow."""

    def handler(frame: Frame) -> bool:
        frame.headers[-1].ports = frame.take(first), frame.take(second)
        return goes_on

    return handler


HANDLERS: dict[str, Callable[[Frame], bool]] = {
    "vlan": tag, "ieee8021ad": provider_tag, "vxlan": vxlan, "geneve": geneve, "gre": gre, "erspan": erspan,
    "ip": ipv4, "ipv6": ipv6, "ah": extension("ah.next_header"), "ipv6.hopopts": extension("ipv6.hopopts.nxt"),
    "ipv6.dstopts": extension("ipv6.dstopts.nxt"), "ipv6.routing": extension("ipv6.routing.nxt"),
    "ipv6.fraghdr": fragment_header,
    "tcp": transport("tcp.srcport", "tcp.dstport"), "sctp": transport("sctp.srcport", "sctp.dstport"),
    "udp": transport("udp.srcport", "udp.dstport", goes_on=True),
    "icmp": transport("icmp.type", "icmp.code"), "icmpv6": transport("icmpv6.type", "icmpv6.code"),
}  # fmt: skip
"""Takes a layer's fields and says whether the walk goes on."""


def run(tshark: str, capture: Path) -> tuple[list[str], bool]:
    """tshark's lines, one a frame, and whether it found the capture damaged behind them."""
    command = [tshark, "-n", "-r", str(capture), "-d", "udp.port==8472,vxlan", "-T", "fields"]
    command += ["-E", "occurrence=a", "-E", "aggregator=,", "-E", "separator=/t"]
    command += [part for preference in PREFERENCES for part in ("-o", preference)]
    command += [part for name in FIELDS for part in ("-e", name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode and not done.stdout:
        raise Unreadable(done.stderr.strip())
    return done.stdout.splitlines(), done.returncode != 0


def handshakes(frames: list[Frame], verdicts: list[Verdict]) -> list[Handshake]:
    """The initial round trip times of the streams whose handshake leaves no doubt which segments to take."""
    streams: dict[str, list[tuple[Packet, Frame]]] = {}
    for packet, frame in zip(verdicts, frames, strict=True):
        if packet and packet.protocol == TCP and frame.fields["tcp.flags"]:
            streams.setdefault(frame.fields["tcp.stream"][0], []).append((packet, frame))
    return [found for stream in streams.values() for found in clean_handshake(stream)]


def clean_handshake(stream: list[tuple[Packet, Frame]]) -> list[Handshake]:
    """The handshake of a stream, if it is whole and nothing of it was resent or mirrored twice."""
    kinds = [int(frame.fields["tcp.flags"][0], 0) & (SYN | ACK) for _, frame in stream]
    measured = [value for _, frame in stream for value in frame.fields["tcp.analysis.initial_rtt"]]
    if kinds[:2] != [SYN, SYN | ACK] or kinds.count(SYN) + kinds.count(SYN | ACK) != 2 or not measured:
        return []
    return [Handshake(stream[0][0], float(measured[0]))]


def read(tshark: str, capture: Path) -> Reading:
    """What tshark says about a capture; Unreadable where it cannot open it."""
    lines, damaged = run(tshark, capture)
    frames = [Frame(line.split("\t")) for line in lines]
    verdicts = [frame.verdict() for frame in frames]
    analysis = [frozenset(flag for flag in ANALYSIS if frame.fields[f"tcp.analysis.{flag}"]) for frame in frames]
    return Reading(verdicts, handshakes(frames, verdicts), analysis, damaged)
