"""A network interface as it is to be captured on, and what its sources have in common: the wait, and the end."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass

from sensor.config import LIVE_SNAPLEN
from sensor.errors import InterfaceError, PrivilegeError
from sensor.fanout import SOL_PACKET, Fanout
from sensor.nicclock import NicClock

PACKET_IGNORE_OUTGOING = 23  # linux/if_packet.h

READ_TIMEOUT_MS = 100
"""So long the kernel keeps packets at most, before it hands them over."""
QUIET_MS = 250
"""So often a source of a silent wire comes round: to close windows by the clock, and to see whether it is over."""
DRAIN_SECONDS = 3 * READ_TIMEOUT_MS / 1000
"""How long a socket whose interface has gone is still read: the kernel hands over its last block a little later."""


@dataclass(frozen=True)
class Tap:
    """What a source is told.

    ``wake`` is a file descriptor that ends a wait when it becomes readable. ``fanout`` is the group with which it
    shares the interface's packets. ``packets``: so many and no more. ``clock``: the NIC's, whose stamps are taken while
    it is in step; ``must_be_stamped``: it is an error if it is not at the start.
    """

    interface: str
    snaplen: int = LIVE_SNAPLEN
    buffer_size: int = 64 * 2**20
    promiscuous: bool = True
    bpf: str | None = None
    direction: str = "in"
    packets: int | None = None
    wake: int | None = None
    fanout: Fanout | None = None
    clock: NicClock | None = None
    must_be_stamped: bool = False


class Patience:
    """Waits for packets, and raises why there will be none once everything has been read."""

    def __init__(self, tap: Tap) -> None:
        self._interface = tap.interface
        self._poller = select.poll()
        if tap.wake is not None:
            self._poller.register(tap.wake, select.POLLIN)
        self._failure: InterfaceError | None = None
        self._drained = 0.0

    def watch(self, descriptor: int) -> None:
        """The socket that packets come from."""
        self._poller.register(descriptor, select.POLLIN)

    def wait(self) -> bool:
        """Until there is something to read, or a moment has passed; True when the socket reports an error."""
        if self._failure is None:
            return any(events & (select.POLLERR | select.POLLHUP) for _, events in self._poller.poll(QUIET_MS))
        if time.monotonic() >= self._drained:
            raise self._failure
        time.sleep(READ_TIMEOUT_MS / 1000)  # a poll would return at once, with the error
        return False

    def fail(self, why: str) -> None:
        """The interface delivers no more; what the kernel has of it is read."""
        if self._failure is None:
            self._failure = InterfaceError(f"{self._interface}: capture stopped: {why}; is the interface still up?")
            self._failure.since_ns = wall_clock_ns()
            self._drained = time.monotonic() + DRAIN_SECONDS


def wall_clock_ns() -> int:
    """The time that live packets are stamped with."""
    return time.time_ns()


def leave_out_sent(packet_socket: socket.socket) -> None:
    """Let nothing in that this host sends. Linux before 4.20 cannot: then it is counted by the kernel, at least."""
    with contextlib.suppress(OSError):
        packet_socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)


def not_allowed(interface: str) -> PrivilegeError:
    """Opening it takes a capability."""
    return PrivilegeError(
        f"{interface}: capturing needs CAP_NET_RAW; run as root, or grant it to the interpreter: "
        "setcap cap_net_raw+ep $(readlink -f $(command -v python3))"
    )


def no_such_interface(interface: str) -> InterfaceError:
    """It does not exist."""
    return InterfaceError(f"{interface}: no such interface; `vmsensor interfaces` lists them")


def switched_off(interface: str) -> InterfaceError:
    """It is down."""
    return InterfaceError(f"{interface}: the interface is down; run: ip link set {interface} up")
