"""Several capture sockets share one interface: PACKET_FANOUT, packet(7). ``steering`` tells which gets a packet."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from sensor.bpf import Program, give
from sensor.steering import program

SOL_PACKET, PACKET_FANOUT, PACKET_FANOUT_DATA, PACKET_FANOUT_CBPF = 263, 18, 22, 6  # linux/if_packet.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h

MOST = 0xFFFFFFFF
"""Octets: the whole packet, whatever its length."""


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
        choice, entrance = Program(program()), Program([give(octets)])
        packet_socket.setsockopt(SOL_PACKET, PACKET_FANOUT, self.number | PACKET_FANOUT_CBPF << 16)
        packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, entrance.octets)
        packet_socket.setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, choice.octets)


def let_nothing_in(packet_socket: socket.socket) -> None:
    """Until it has joined its group, a socket would get packets that another one gets too."""
    let_in(packet_socket, 0)


def let_in(packet_socket: socket.socket, octets: int) -> None:
    """So many octets of each packet from now on; 0: no packet."""
    entrance = Program([give(octets)])
    packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, entrance.octets)
