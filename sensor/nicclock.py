"""A NIC that stamps packets itself, at the moment at which they come from the wire, by a clock of its own (PHC).

Such stamps leave out how long a packet waited for an interrupt. But a NIC's clock goes as it likes, or in another time
scale (TAI, as PTP has it), unless something keeps it at the system's time, as ``phc2sys`` does; windows, and packets
that the NIC did not stamp, are of the system's time. So its stamps are taken only while both clocks agree.

Documentation/networking/timestamping.rst, Documentation/driver-api/ptp.rst; ``ethtool -T`` shows the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

IN_STEP_NS = 100_000
"""So far apart, two clocks agree: little beside an RTT of a data centre, and far more than ``phc2sys`` leaves."""

DEVICE = "/dev/ptp{}"

FILTER_NONE, FILTER_ALL = 0, 1  # hwtstamp_rx_filters, linux/net_tstamp.h

_RX_HARDWARE, RAW_HARDWARE = 1 << 2, 1 << 6  # SOF_TIMESTAMPING_*, linux/net_tstamp.h
_SIOCETHTOOL, _SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x8946, 0x89B0, 0x89B1  # linux/sockios.h
_ETHTOOL_GET_TS_INFO = 0x41  # linux/ethtool.h
_TS_INFO = struct.Struct("IIiI3II3I")  # struct ethtool_ts_info
_CONFIG = struct.Struct("iii")  # struct hwtstamp_config: flags, tx_type, rx_filter

_SAMPLES = 10
_OFFSETS_HEAD, _CLOCK_TIME = struct.Struct("I12x"), struct.Struct("qI4x")  # linux/ptp_clock.h
_OFFSETS_SIZE = _OFFSETS_HEAD.size + 51 * _CLOCK_TIME.size  # struct ptp_sys_offset, of at most 25 samples
_PTP_SYS_OFFSET = 1 << 30 | _OFFSETS_SIZE << 16 | ord("=") << 8 | 5


class Stamping(NamedTuple):
    """What ``ethtool -T`` says. ``clock``: the number of the NIC's clock, -1 without one."""

    takes: int
    clock: int
    filters: int

    @property
    def is_of_all(self) -> bool:
        """Whether every packet that is received can be stamped."""
        wanted = _RX_HARDWARE | RAW_HARDWARE
        return self.takes & wanted == wanted and self.clock >= 0 and bool(self.filters & 1 << FILTER_ALL)


def stamping_of(interface: str) -> Stamping:
    """OSError where the interface is gone, or its driver has nothing to say of it."""
    answer = _ask(interface, _SIOCETHTOOL, _TS_INFO.pack(_ETHTOOL_GET_TS_INFO, *[0] * 10))
    _, takes, clock, _, _, _, _, filters, *_ = _TS_INFO.unpack(answer)
    return Stamping(takes, clock, filters)


def receive_filter(interface: str) -> int:
    """Which of the received packets are stamped now, as FILTER_ALL. OSError where a driver does not tell."""
    return int(_CONFIG.unpack(_ask(interface, _SIOCGHWTSTAMP, bytes(_CONFIG.size)))[2])


def set_receive_filter(interface: str, which: int) -> None:
    """Have these stamped, and leave it as it is what of the sent ones are. OSError when it may not be."""
    flags, sent, _ = _CONFIG.unpack(_ask(interface, _SIOCGHWTSTAMP, bytes(_CONFIG.size)))
    _ask(interface, _SIOCSHWTSTAMP, _CONFIG.pack(flags, sent, which))


def _ask(interface: str, request: int, question: bytes) -> bytes:
    """An ioctl of an interface whose argument is a pointer: struct ifreq, netdevice(7)."""
    asked = ctypes.create_string_buffer(question, len(question))
    ifreq = struct.pack("16sP16x", interface.encode()[:15], ctypes.addressof(asked))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, ifreq)
    return asked.raw


class NicClock:
    """The clock by which an interface stamps packets.

    Making one takes the right to read the clock's device, which as a rule only root has, and nothing that is done with
    it afterwards takes any.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._device: int | None = None
        self._number, self._lack = -1, f"{interface} does not stamp every packet that it receives"
        try:
            stamping = stamping_of(interface)
        except OSError:
            return
        if stamping.is_of_all:
            self._number = stamping.clock
            self._open(DEVICE.format(stamping.clock))

    def _open(self, path: str) -> None:
        try:
            self._device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._lack = f"the clock of {self._interface}, {path}, cannot be read: {error.strerror}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that a process has to keep that is to ask it."""
        return () if self._device is None else (self._device,)

    def out_of_step(self) -> str | None:
        """Why the NIC's stamps, if it makes any, are not the system's time; None if they are."""
        if self._device is None:
            return self._lack
        try:
            offset = offset_ns(self._device)
        except OSError as error:
            return f"the clock of {self._interface} cannot be read: {error.strerror}"
        if abs(offset) <= IN_STEP_NS:
            return None
        how = f"{abs(offset) / 1e9:.6f} s {'ahead of' if offset > 0 else 'behind'} the system's"
        return f"the clock of {self._interface} is {how}; phc2sys keeps it in step"

    def unfit(self) -> str | None:
        """Why packets of this interface cannot be had with the NIC's stamps now; None if they can."""
        why = self.out_of_step()
        if why is not None:
            return why
        try:
            if stamping_of(self._interface).clock == self._number and receive_filter(self._interface) == FILTER_ALL:
                return None
        except OSError:
            pass  # it is gone, or another one by now
        return f"{self._interface} has its stamping switched off, or it is of other packets than all"


def offset_ns(device: int) -> int:
    """How far a clock is ahead of the system's, of the reading that took the least time. OSError as ioctl has it.

    Each of its readings stands between two of the system's clock.
    """
    answer = fcntl.ioctl(device, _PTP_SYS_OFFSET, _OFFSETS_HEAD.pack(_SAMPLES).ljust(_OFFSETS_SIZE, b"\0"))
    return _offset([s * 1_000_000_000 + ns for s, ns in _CLOCK_TIME.iter_unpack(answer[_OFFSETS_HEAD.size :])])


def _offset(times: Sequence[int]) -> int:
    readings = [times[i : i + 3] for i in range(0, 2 * _SAMPLES, 2)]
    before, there, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return there - (before + after) // 2
