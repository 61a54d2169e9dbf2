"""A network interface as a source, by the ring of a packet socket (TPACKET_V3): no copy, and nanoseconds."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import socket
import struct
import time
from pathlib import Path

from sensor.errors import InterfaceError
from sensor.fanout import SOL_PACKET, let_in, let_nothing_in
from sensor.flowtable import FlowTable, Ring, RingState
from sensor.nicclock import RAW_HARDWARE, NicClock
from sensor.sources import Drops, Progress
from sensor.tap import READ_TIMEOUT_MS, Patience, Tap, leave_out_sent, no_such_interface, not_allowed, switched_off

PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_RESERVE = 1, 5, 6, 10, 12
PACKET_TIMESTAMP, BY_HOST, BY_NIC = 17, 0, RAW_HARDWARE
TPACKET_V3, PACKET_MR_PROMISC, ETH_P_ALL = 2, 1, 3  # linux/if_packet.h, linux/if_ether.h
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h
LINK_TYPE_ETHERNET = 1

TAG = 4
"""Octets of a VLAN tag, for which there has to be room in front of a frame."""

LARGEST_BLOCK, SMALLEST_BLOCK, BLOCKS = 2**19, 2**16, 16
"""Octets of a block, and how many there should be at least: the kernel fills one while others are read.

However little is in it, a block is handed over at the read timeout, and not filled again before it was read. So their
number is for how long the ring bridges a worker that stands still: 64 MiB are 128 blocks, or 13 seconds. Smaller ones
would cost more of each packet.
"""

NAP_SECONDS, NAP_RING = 0.02, 64 * 2**20
"""Once a block has come, for more to come: to wake costs as much as to count half a block, since by then nothing of the
program is in the processor's caches. It is so long with a ring of so many octets, and shorter with less: what five
million packets a second fill meanwhile, more than can be counted, is a quarter of it.
"""

FRAME = 2048
"""Means little in TPACKET_V3, whose frames are as long as they are; a block is a multiple of it."""

MOST = 2**32 - 1

CLOCK_SECONDS = 1.0
"""So often the NIC's clock is compared. One that nothing keeps any more goes off by microseconds."""

log = logging.getLogger(__name__)


def is_ethernet(interface: str) -> bool:
    """Whether its frames begin with an Ethernet header."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/class/net", interface, "type").read_text()) in (ARPHRD_ETHER, ARPHRD_LOOPBACK)
    return False


class RingSource:
    """A network interface whose frames are Ethernet, without a filter.

    Raises InterfaceError or PrivilegeError from ``open``.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._packets_left = tap.packets
        self._stack = contextlib.ExitStack()
        self._patience = Patience(tap)
        self._passed = self._dropped = 0
        self._nap_ns = round(1e9 * NAP_SECONDS * min(1.0, tap.buffer_size / NAP_RING))
        self._wake = -1 if tap.wake is None else tap.wake
        self._state = RingState.MORE
        """What the last look came to."""
        self._clock: NicClock | None = None
        self._is_stamped = False
        self._clock_due = 0.0

    def open(self, table: FlowTable) -> None:
        """Make the socket and its ring; packets come once all is set."""
        if not is_ethernet(self._tap.interface) and self._tap.interface in os.listdir("/sys/class/net"):
            raise InterfaceError(f"{self._tap.interface}: its frames are not Ethernet; choose --source libpcap")
        with contextlib.ExitStack() as stack:
            try:
                self._socket = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                self._map_ring(stack)
                self._ask_for_stamps()
                self._bind()
            except PermissionError:
                raise not_allowed(self._tap.interface) from None
            except OSError as error:
                raise self._cannot(error) from None
            self._stack = stack.pop_all()
        self._patience.watch(self._socket.fileno())
        table.set_link_type(LINK_TYPE_ETHERNET)

    def poll(self, table: FlowTable) -> Progress:
        """Count some packets, waiting for them a moment."""
        if self._packets_left == 0:
            return Progress.END
        if self._state is RingState.IDLE and self._patience.wait() and (number := self._error()):
            self._patience.fail(os.strerror(number))
        if self._clock is not None and time.monotonic() >= self._clock_due:
            self._keep_in_step(self._clock)
        before, most = self._ring.packets, MOST if self._packets_left is None else self._packets_left
        # to wait for the next packet of those that flow, only to nap then, would be to wake twice
        nap_ns = self._nap_ns if self._state in (RingState.IDLE, RingState.FLOWING) else 0
        self._state = table.ingest_ring(self._ring, most, nap_ns, self._wake)
        counted = self._ring.packets - before
        if self._packets_left is not None:
            self._packets_left -= counted
        return Progress.READ if counted and self._state is RingState.IDLE else _OF_STATE[self._state]

    def drops(self) -> Drops:
        """What the socket says, which is what came since it was asked last."""
        with contextlib.suppress(OSError):  # the interface is gone: what was known last stands
            packets, drops, _ = struct.unpack("III", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
            self._passed += packets  # the dropped are in it: packet(7)
            self._dropped += drops
        return Drops(self._dropped, max(0, self._passed - self._dropped - self._ring.packets))

    def close(self) -> None:
        """Give ring and socket back."""
        self._stack.close()

    def _map_ring(self, stack: contextlib.ExitStack) -> None:
        size = max(
            SMALLEST_BLOCK, min(LARGEST_BLOCK, self._tap.buffer_size // BLOCKS // SMALLEST_BLOCK * SMALLEST_BLOCK)
        )
        count = max(self._tap.buffer_size // size, 2)
        request = struct.pack("7I", size, count, FRAME, size // FRAME * count, READ_TIMEOUT_MS, 0, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        self._socket.setsockopt(SOL_PACKET, PACKET_RESERVE, TAG)
        self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        memory = stack.enter_context(mmap.mmap(self._socket.fileno(), size * count))
        self._ring = Ring(memory, size)
        stack.callback(self._ring.close)

    def _ask_for_stamps(self) -> None:
        """The NIC's, if its clock is wanted and fit; InterfaceError if it has to be, and is not."""
        if self._tap.clock is None:
            return
        why = self._tap.clock.unfit()
        if why is None:
            self._clock = self._tap.clock
            self._stamp(BY_NIC)
        elif self._tap.must_be_stamped:
            raise InterfaceError(f"{why}; choose --timestamps host, or auto")
        else:
            log.info("packets are stamped by the host: %s", why)

    def _keep_in_step(self, clock: NicClock) -> None:
        """Have the host stamp packets while the NIC's clock is off."""
        self._clock_due = time.monotonic() + CLOCK_SECONDS
        why = clock.out_of_step()
        if self._is_stamped is (why is None):
            return
        if why is None:
            self._stamp(BY_NIC)
            log.warning("%s: packets are stamped by the NIC again", self._tap.interface)
        else:
            self._stamp(BY_HOST)
            log.warning("packets are stamped by the host from here on: %s", why)

    def _stamp(self, by: int) -> None:
        self._socket.setsockopt(SOL_PACKET, PACKET_TIMESTAMP, by)
        self._is_stamped = by == BY_NIC

    def _bind(self) -> None:
        """Until it has joined its group, a socket would get packets that another one gets too."""
        let_nothing_in(self._socket)
        if self._tap.direction == "in":
            leave_out_sent(self._socket)
        self._socket.bind((self._tap.interface, ETH_P_ALL))
        if self._error():
            raise switched_off(self._tap.interface)
        if self._tap.promiscuous:
            number = socket.if_nametoindex(self._tap.interface)
            request = struct.pack("iHH8s", number, PACKET_MR_PROMISC, 0, b"")
            self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        if self._tap.fanout:
            self._tap.fanout.join(self._socket, self._tap.snaplen)
        else:
            let_in(self._socket, self._tap.snaplen)

    def _cannot(self, error: OSError) -> InterfaceError:
        interface = self._tap.interface
        if error.errno in (errno.ENODEV, errno.ENXIO) or interface not in os.listdir("/sys/class/net"):
            return no_such_interface(interface)
        return InterfaceError(f"{interface}: its packets cannot be had: {error.strerror}; try --source libpcap")

    def _error(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


_OF_STATE = {
    RingState.MORE: Progress.READ,
    RingState.HELD: Progress.HELD,
    RingState.FLOWING: Progress.READ,
    RingState.IDLE: Progress.IDLE,
}
