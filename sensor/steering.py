"""Which socket of a group gets a packet: a classic BPF program that the kernel runs for each.

The kernel's own hash sends the two directions of a flow inside of a tunnel to different sockets: VXLAN and Geneve
choose their outer source port by the inner flow, each direction by its own; and a mirror that is itself a tunnel, as
ERSPAN from two switches, gives each direction other outer addresses as well. So the program decides by the innermost
pair of IP addresses alone, put together so that their order does not matter. What ``native/tunnel.c`` would enter, it
enters too, up to three tunnels deep. Both directions of a flow, bare or in a tunnel, its fragments, and its copies,
bare, in another VLAN or in a tunnel, come to the same socket.
"""

from __future__ import annotations

from collections.abc import Iterator

from sensor.bpf import (
    ADD_X,
    PROTOCOL,
    RETURN_A,
    TAX,
    TXA,
    XOR_X,
    Instruction,
    Jump,
    Step,
    add,
    assemble,
    both,
    give,
    half,
    if_any,
    if_is,
    keep,
    keep_x,
    left,
    multiply,
    octet,
    recall,
    recall_x,
    right,
    word,
    x_is,
)  # fmt: skip

TUNNELS = 3
TAGS = 2
"""VLAN tags that are looked through, besides the one that the kernel takes off the outermost frame."""

_VLAN, _QINQ, _IPV4, _IPV6, _BRIDGED, _ERSPAN, _ERSPAN_III = 0x8100, 0x88A8, 0x0800, 0x86DD, 0x6558, 0x88BE, 0x22EB
_IP_IN_IP, _UDP, _IPV6_IN_IP, _GRE = 4, 17, 41, 47
_VXLAN_PORT, _VXLAN_PORT_LINUX, _GENEVE_PORT = 4789, 8472, 6081

_A, _IP, _NEXT, _FLAGS = range(4)
"""What is remembered: A for a moment, where the IP header begins, what follows it, GRE's flags."""


def program() -> list[Instruction]:
    """Returns a number that depends on the pair of addresses; the kernel takes it modulo the number of sockets."""
    steps: list[Step] = [x_is(0), PROTOCOL, *_behind_tags("0"), *_ip_or("not ip", "0"), "not ip", give(0)]
    for level in range(TUNNELS):
        steps += _enter(str(level), str(level + 1))
    return assemble([*steps, *_pairs(), *_mixed()])


def _behind_tags(level: str) -> Iterator[Step]:
    """A is an EtherType, X where what it names begins: on to what is behind the VLAN tags."""
    for tag in range(TAGS):
        yield from (if_is(_VLAN, f"tag {level}.{tag}"), if_is(_QINQ, f"tag {level}.{tag}"), Jump(f"no tag {level}"))
        yield from (f"tag {level}.{tag}", half(2), *_forward(4))
    yield f"no tag {level}"


def _ip_or(otherwise: str, level: str) -> Iterator[Step]:
    """A is an EtherType: to the IP header of that level."""
    yield from (if_is(_IPV4, f"ipv4 {level}"), if_is(_IPV6, f"ipv6 {level}"), Jump(otherwise))


def _forward(octets: int) -> Iterator[Step]:
    """X so much further; A stays."""
    yield from (keep(_A), TXA, add(octets), TAX, recall(_A))


def _enter(level: str, inner: str) -> Iterator[Step]:
    """From an IP header at X to the one inside, if it has a tunnel in it; to its pair if not.

    A later fragment has no header of a tunnel: it goes by its own pair.
    """
    back = f"pair of {level}"
    yield from (f"ipv4 {level}", keep_x(_IP), half(6), if_any(0x1FFF, back), octet(9), keep(_NEXT))
    yield from (octet(0), both(0x0F), left(2), ADD_X, TAX, recall(_NEXT), Jump(f"inside {level}"))
    yield from (f"ipv6 {level}", keep_x(_IP), octet(6), *_forward(40))
    yield f"inside {level}"
    yield from (if_is(_UDP, f"udp {level}"), if_is(_GRE, f"gre {level}"))
    yield from (if_is(_IP_IN_IP, f"ipv4 {inner}"), if_is(_IPV6_IN_IP, f"ipv6 {inner}"), Jump(back))
    yield from _udp(level, back)
    yield from _gre(level, back)
    yield from (f"bare {level}", octet(0), right(4), if_is(4, f"ipv4 {inner}"), if_is(6, f"ipv6 {inner}"), Jump(back))
    yield from (f"typed {level}", if_is(_BRIDGED, f"frame {level}"), *_ip_or(back, inner))
    yield from (f"frame {level}", half(12), *_forward(14), *_behind_tags(f"in {level}"), *_ip_or(back, inner))
    yield from (back, recall_x(_IP), octet(0), right(4), if_is(4, "pair of ipv4"), Jump("pair of ipv6"))


def _udp(level: str, back: str) -> Iterator[Step]:
    """RFC 7348, RFC 8926."""
    yield from (f"udp {level}", half(2), if_is(_VXLAN_PORT, f"vxlan {level}"))
    yield from (if_is(_VXLAN_PORT_LINUX, f"vxlan {level}"), if_is(_GENEVE_PORT, f"geneve {level}"), Jump(back))
    yield from (f"vxlan {level}", octet(8), if_any(0x08, f"vni {level}"), Jump(back))
    yield from (f"vni {level}", *_forward(16), Jump(f"frame {level}"))
    yield from (f"geneve {level}", half(10), keep(_NEXT), octet(8), if_any(0xC0, back))
    yield from (both(0x3F), left(2), add(16), ADD_X, TAX, recall(_NEXT), Jump(f"typed {level}"))


def _gre(level: str, back: str) -> Iterator[Step]:
    """RFC 2784, RFC 2890 and ERSPAN: four octets, as many for each of checksum, key and sequence number, and more."""
    yield from (f"gre {level}", half(0), if_any(0x4007, back), keep(_FLAGS), half(2), keep(_NEXT))
    for shift in (13, 11, 10):  # brings the flag to where it is 4
        yield from (recall(_FLAGS), right(shift), both(4), ADD_X, TAX)
    yield from (TXA, add(4), TAX, recall(_NEXT))
    yield from (if_is(_ERSPAN, f"erspan {level}"), if_is(_ERSPAN_III, f"erspan iii {level}"), Jump(f"typed {level}"))
    yield from (f"erspan {level}", recall(_FLAGS), right(9), both(8), ADD_X, TAX, Jump(f"frame {level}"))
    yield from (f"erspan iii {level}", half(10), right(10), both(0x1F), keep(_NEXT))
    yield from (octet(11), both(1), left(3), add(12), ADD_X, TAX)
    yield from (recall(_NEXT), if_is(2, f"bare {level}"), Jump(f"frame {level}"))


def _pairs() -> Iterator[Step]:
    """A becomes a number that does not depend on the order of the two addresses, and tells pairs apart.

    Of IPv4, sum and difference; of IPv6, all words of both. From the last level on, nothing is entered.
    """
    source, destination = word(12), word(16)
    yield from (f"ipv4 {TUNNELS}", "pair of ipv4")
    yield from (source, keep(_A), destination, keep(_NEXT), recall_x(_A), ADD_X, multiply(0x9E3779B1), keep(_FLAGS))
    yield from (recall(_NEXT), XOR_X, TAX, recall(_FLAGS), XOR_X, Jump("mixed"))
    yield from (f"ipv6 {TUNNELS}", "pair of ipv6", keep_x(_IP), word(8), keep(_A))
    for place in range(12, 40, 4):
        yield from (word(place), recall_x(_A), XOR_X, keep(_A), recall_x(_IP))
    yield recall(_A)


def _mixed() -> Iterator[Step]:
    """Every bit of the number has its part in the lowest."""
    fold = (keep(_A), right(16), TAX, recall(_A), XOR_X)
    yield from ("mixed", *fold, multiply(0x45D9F3B), *fold, both(0x7FFFFFFF), RETURN_A)
