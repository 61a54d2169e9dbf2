"""Several capture sockets share one interface: PACKET_FANOUT, packet(7), and which of them gets a packet.

The kernel's own hash sends the two directions of a flow inside of a tunnel to different sockets: VXLAN and Geneve
choose their outer source port by the inner flow, each direction by its own. Here a small classic BPF program decides by
the outermost pair of IP addresses alone, put together so that their order does not matter. Both directions of a flow,
bare or in a tunnel, its fragments, and the copies that a mirror delivers in another VLAN come to the same socket.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import dataclass

SOL_PACKET, PACKET_FANOUT, PACKET_FANOUT_DATA, PACKET_FANOUT_CBPF = 263, 18, 22, 6  # linux/if_packet.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h

MOST = 0xFFFFFFFF
"""Octets: the whole packet, whatever its length."""

_AD_PROTOCOL = -0x1000  # SKF_AD_OFF + SKF_AD_PROTOCOL: the frame's EtherType, linux/filter.h
_NET = -0x100000  # SKF_NET_OFF: from the network header on
_VLAN, _QINQ, _IPV4, _IPV6 = 0x8100, 0x88A8, 0x0800, 0x86DD
_TAGS = 2
"""VLAN tags that are looked through, besides the one that the kernel takes off."""

_LD, _LDH, _LDM, _ST, _TAX = 0x20, 0x28, 0x60, 0x02, 0x07
_ADDX, _XORX, _MUL, _RSH, _AND, _JEQ, _JA, _RET, _RETA = 0x0C, 0xAC, 0x24, 0x74, 0x54, 0x15, 0x05, 0x06, 0x16

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Fanout:
    """A group of sockets; all that open the same interface with the same number share its packets."""

    number: int

    @classmethod
    def of_this_process(cls) -> Fanout:
        """The kernel tells groups of the same number on other interfaces apart, and of other namespaces."""
        return cls(os.getpid() & 0xFFFF)

    def join(self, packet_socket: socket.socket, octets: int = MOST) -> None:
        """Become one of the group, and let in so many octets of each packet. OSError when the kernel does not let it.

        From the first call on the group sends packets here, and until the second they are lost: nothing is between.
        """
        choice, entrance = _Program(program()), _Program([(_RET, 0, 0, octets)])
        packet_socket.setsockopt(SOL_PACKET, PACKET_FANOUT, self.number | PACKET_FANOUT_CBPF << 16)
        packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, entrance.octets)
        packet_socket.setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, choice.octets)


def let_nothing_in(packet_socket: socket.socket) -> None:
    """Until it has joined its group, a socket would get packets that another one gets too."""
    let_in(packet_socket, 0)


def let_in(packet_socket: socket.socket, octets: int) -> None:
    """So many octets of each packet from now on; 0: no packet."""
    entrance = _Program([(_RET, 0, 0, octets)])
    packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, entrance.octets)


def program() -> list[Instruction]:
    """Returns a number that depends on the pair of addresses; the kernel takes it modulo the number of sockets."""
    mix = _mixed()
    code = mix
    for tags in range(_TAGS, -1, -1):  # from the back: each block jumps over those behind it
        at = _NET + 4 * tags
        to_mix = len(code) - len(mix)
        ipv6 = [*_ipv6(at), (_JA, 0, 0, to_mix)]
        ipv4 = [*_ipv4(at), (_JA, 0, 0, to_mix + len(ipv6))]
        protocol = _AD_PROTOCOL if tags == 0 else at - 2
        tagged = 1 + len(ipv4) + len(ipv6) if tags < _TAGS else 0  # to the next block, or to the answer for all else
        code = [
            (_LD if tags == 0 else _LDH, 0, 0, protocol & 0xFFFFFFFF),
            (_JEQ, 4, 0, _IPV4),
            (_JEQ, 3 + len(ipv4), 0, _IPV6),
            (_JEQ, 1 + tagged, 0, _VLAN),
            (_JEQ, tagged, 0, _QINQ),
            (_RET, 0, 0, 0),  # not IP: the first socket's
            *ipv4,
            *ipv6,
            *code,
        ]
    return code


def _ipv4(at: int) -> list[Instruction]:
    """Sum and difference of the two addresses: neither depends on their order, and together they tell pairs apart."""
    source, destination = (_LD, 0, 0, (at + 12) & 0xFFFFFFFF), (_LD, 0, 0, (at + 16) & 0xFFFFFFFF)
    return [
        source, (_TAX, 0, 0, 0), destination, (_ADDX, 0, 0, 0), (_MUL, 0, 0, 0x9E3779B1), (_ST, 0, 0, 1),
        source, (_TAX, 0, 0, 0), destination, (_XORX, 0, 0, 0), (_TAX, 0, 0, 0), (_LDM, 0, 0, 1), (_XORX, 0, 0, 0),
    ]  # fmt: skip


def _ipv6(at: int) -> list[Instruction]:
    """All words of both addresses."""
    words = [(_LD, 0, 0, (at + place) & 0xFFFFFFFF) for place in range(8, 40, 4)]
    return [words[0], *(step for word in words[1:] for step in ((_TAX, 0, 0, 0), word, (_XORX, 0, 0, 0)))]


def _mixed() -> list[Instruction]:
    """Every bit of the hash has its part in the lowest."""
    fold = [(_ST, 0, 0, 0), (_RSH, 0, 0, 16), (_TAX, 0, 0, 0), (_LDM, 0, 0, 0), (_XORX, 0, 0, 0)]
    return [*fold, (_MUL, 0, 0, 0x45D9F3B), *fold, (_AND, 0, 0, 0x7FFFFFFF), (_RETA, 0, 0, 0)]


class _Program:
    """``struct sock_fprog``: how many instructions, and where they are, which is here."""

    def __init__(self, code: list[Instruction]) -> None:
        self._code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
        self.octets = struct.pack("HP", len(code), ctypes.addressof(self._code))
