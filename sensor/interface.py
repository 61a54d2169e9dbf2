"""A network interface as a source, through libpcap."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import pcapy

from sensor.errors import InterfaceError
from sensor.fanout import Fanout, let_nothing_in
from sensor.flowtable import META_SIZE, FlowTable
from sensor.sources import Batches, Drops, Progress, set_filter
from sensor.tap import READ_TIMEOUT_MS, Patience, Tap, leave_out_sent, no_such_interface, not_allowed, switched_off

LIVE_BATCH = 4096
PCAP_ERROR_NO_SUCH_DEVICE, PCAP_ERROR_PERM_DENIED, PCAP_ERROR_IFACE_NOT_UP = -5, -8, -9


class LiveSource:
    """A network interface, of any link type, with a filter if there is one.

    Raises InterfaceError, PrivilegeError or UsageError (filter) from ``open``.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._packets_left = tap.packets
        self._patience = Patience(tap)
        self._batches = Batches()
        self._passed = self._dropped = 0
        self._handle: Any = None
        self._delivered = 0

    def open(self, table: FlowTable) -> None:
        """Activate the handle with its filter set."""
        self._handle = activate(self._tap)
        if self._tap.direction == "in":
            ignore_outgoing(self._handle)
        # libpcap may wait for ever on a silent wire (TPACKET_V3), so the waiting is done here.
        self._handle.setnonblock(1)
        if self._tap.fanout:
            self._share(self._tap.fanout)
        set_filter(self._handle, self._tap.bpf)
        self._patience.watch(self._handle.getfd())
        table.set_link_type(int(self._handle.datalink()))

    def poll(self, table: FlowTable) -> Progress:
        """Count one batch, waiting for it a moment."""
        if self._batches.left:
            return self._batches.feed(table)
        if self._packets_left == 0:
            return Progress.END
        data, meta = self._next_batch()
        if not meta:
            self._patience.wait()
            data, meta = self._next_batch()
        if not meta:
            return Progress.IDLE
        count = len(meta) // META_SIZE
        self._delivered += count
        if self._packets_left is not None:
            self._packets_left -= count
        self._batches.put(data, meta)
        return self._batches.feed(table)

    def drops(self) -> Drops:
        """What libpcap says of the kernel's buffer, in numbers of 32 bits."""
        with contextlib.suppress(pcapy.PcapError):  # the interface is gone: what was known last stands
            passed, dropped, _ = self._handle.stats()  # `passed` holds the dropped: packet(7), PACKET_STATISTICS
            self._passed += (passed - self._passed) & 0xFFFFFFFF
            self._dropped += (dropped - self._dropped) & 0xFFFFFFFF
        unread = max(0, self._passed - self._dropped - self._delivered)
        return Drops(self._dropped, unread + self._batches.left)

    def close(self) -> None:
        """Close the handle."""
        if self._handle:
            self._handle.close()
        self._handle = None

    def _share(self, fanout: Fanout) -> None:
        """Join the group. What came before that, the others of the group have got too: it is thrown away."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, fileno=os.dup(self._handle.getfd())) as packet_socket:
            try:
                let_nothing_in(packet_socket)
                time.sleep(2 * READ_TIMEOUT_MS / 1000)  # until the kernel has handed over the block it was filling
                while meta := self._next_batch()[1]:
                    self._delivered += len(meta) // META_SIZE
                fanout.join(packet_socket)
            except OSError as error:
                raise InterfaceError(
                    f"{self._tap.interface}: several workers cannot share it: {error.strerror}; try --workers 1"
                ) from None

    def _next_batch(self) -> tuple[bytes, bytes]:
        most = LIVE_BATCH if self._packets_left is None else min(LIVE_BATCH, self._packets_left)
        try:
            data, meta = self._handle.next_batch(most)
        except pcapy.PcapError as error:
            self._patience.fail(str(error))
            return b"", b""
        return data, meta


def activate(tap: Tap) -> Any:
    """An activated libpcap handle."""
    interface = tap.interface
    handle = pcapy.create(interface)
    handle.set_snaplen(tap.snaplen)
    handle.set_promisc(int(tap.promiscuous))
    handle.set_timeout(READ_TIMEOUT_MS)
    handle.set_buffer_size(tap.buffer_size)
    status = handle.activate()
    if status >= 0:
        return handle
    if status == PCAP_ERROR_PERM_DENIED:
        raise not_allowed(interface)
    if status == PCAP_ERROR_NO_SUCH_DEVICE or interface not in os.listdir("/sys/class/net"):
        raise no_such_interface(interface)
    if status == PCAP_ERROR_IFACE_NOT_UP:
        raise switched_off(interface)
    raise InterfaceError(f"{interface}: libpcap cannot capture on it (status {status})")


def ignore_outgoing(handle: Any) -> None:
    """Leave out what this host sends on the interface: it did not come from the mirror.

    Done by the socket, so that the kernel does not count it either. (A BPF filter with ``inbound`` would lose packets:
    libpcap 1.9 evaluates the first block of a ring in user space, where packet types are not known.)
    """
    handle.setdirection(pcapy.PCAP_D_IN)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, fileno=os.dup(handle.getfd())) as packet_socket:
        leave_out_sent(packet_socket)
