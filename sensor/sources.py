"""Where packets come from: a capture file or a live interface, both through pcapy-ng.

A source fills the flow table itself (``poll``), a batch at a time, so that no packet ever becomes a Python object.
Other sources plug in at the same place.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pcapy

from sensor.errors import DamagedInputError, InputError, InterfaceError, PrivilegeError, UsageError
from sensor.native import META, FlowTable

FILE_BATCH = 8192
"""Packets a call. Batches of 64 to 256 KiB are to be avoided: malloc gives such blocks back to the kernel each time."""

LIVE_BATCH = 4096
MICROSECOND_NS = 1000
READ_TIMEOUT_MS = 100
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h; the socket module does not have them
PCAP_ERROR_NO_SUCH_DEVICE, PCAP_ERROR_PERM_DENIED, PCAP_ERROR_IFACE_NOT_UP = -5, -8, -9


class Progress(Enum):
    """What a poll came to."""

    READ = auto()
    """Packets were counted."""
    HELD = auto()
    """A packet waits: finished flows must be taken, or the window must be rolled, before it can be counted."""
    IDLE = auto()
    """No packet arrived within the timeout."""
    END = auto()
    """There will be no more packets."""


class Drops(NamedTuple):
    """Packets that did not reach the table; None where the source cannot know.

    ``unread`` ones are still in the kernel's buffer: at the end of a run, they are lost too.
    """

    kernel: int | None = None
    nic: int | None = None
    unread: int | None = None


class Source(Protocol):
    """What a worker asks of a source."""

    def open(self, table: FlowTable) -> None:
        """Claim the handle and tell the table the link type."""

    def poll(self, table: FlowTable) -> Progress:
        """Count what is there, waiting a moment if nothing is."""

    def drops(self) -> Drops:
        """Packets that were lost on the way so far."""

    def close(self) -> None:
        """Give the handle back."""


class _Batches:
    """Feeds batches of next_batch to the table and keeps what the table has not taken yet."""

    def __init__(self) -> None:
        self._data = b""
        self._meta = b""
        self._next = 0

    def put(self, data: bytes, meta: bytes) -> None:
        self._data, self._meta, self._next = data, meta, 0

    @property
    def left(self) -> int:
        return len(self._meta) // META.itemsize - self._next

    def feed(self, table: FlowTable) -> Progress:
        self._next = table.ingest(self._data, self._meta, self._next, MICROSECOND_NS)
        return Progress.HELD if self.left else Progress.READ


class FileSource:
    """Capture files (pcap, pcapng, either of them gzipped; ``-`` is standard input), one after the other.

    Raises InputError when a file cannot be opened. A file that is cut or damaged is counted up to the damage; the
    failure is kept in ``damage`` and the next file goes on.
    """

    def __init__(self, paths: list[str], bpf: str | None = None, progress: Callable[[int], None] | None = None) -> None:
        self.damage: DamagedInputError | None = None
        self._paths = list(paths)
        self._bpf = bpf
        self._progress = progress or (lambda _octets: None)
        self._batches = _Batches()
        self._file: _OpenFile | None = None

    def open(self, table: FlowTable) -> None:
        """Check that every file can be opened, before any of them is counted."""
        for path in self._paths:
            if path != "-":
                _OpenFile(path, self._bpf).close()
        self._next_file(table)

    def poll(self, table: FlowTable) -> Progress:
        """Count one batch."""
        if self._batches.left:
            return self._batches.feed(table)
        if self._file is None:
            return Progress.END
        data, meta = self._file.next_batch()
        self._progress(len(data) + len(meta))
        if meta:
            self._batches.put(data, meta)
            return self._batches.feed(table)
        self.damage = self.damage or self._file.damage
        self._next_file(table)
        return Progress.READ

    def drops(self) -> Drops:
        """A file does not say."""
        return Drops()

    def close(self) -> None:
        """Close the file that is open."""
        if self._file:
            self._file.close()
        self._file = None

    def _next_file(self, table: FlowTable) -> None:
        self.close()
        if self._paths:
            self._file = _OpenFile(self._paths.pop(0), self._bpf)
            table.set_link_type(self._file.link_type)


class _OpenFile:
    """One capture file. ``damage`` is set once its end turns out not to be a sound one."""

    def __init__(self, path: str, bpf: str | None) -> None:
        self.damage: DamagedInputError | None = None
        self._path = path
        self._bpf = bpf
        self._counted = 0
        self._unzip: _Unzip | None = None
        self._handle = self._open()
        self.link_type = int(self._handle.datalink())

    def next_batch(self) -> tuple[bytes, bytes]:
        """Packets and their meta; empty at the end."""
        if self.damage:
            return b"", b""
        try:
            data, meta = self._handle.next_batch(FILE_BATCH)
        except pcapy.PcapError as error:
            self._damaged(str(error))
            data, meta = self._before_the_damage()
        self._counted += len(meta) // META.itemsize
        if not meta and self._unzip and not self.damage and (damage := self._unzip.damage()):
            self._damaged(damage)
        return data, meta

    def close(self) -> None:
        self._handle.close()
        if self._unzip:
            self._unzip.close()

    def _damaged(self, how: str) -> None:
        counted = "everything before that was counted"
        if self._path == "-":
            counted = f"up to {FILE_BATCH} packets before that were not counted; read it from a file to have them all"
        self.damage = DamagedInputError(f"{self._path}: {how}; {counted}")

    def _open(self) -> Any:
        try:
            handle = pcapy.open_offline(self._name_for_libpcap())
        except pcapy.PcapError as error:
            raise InputError(f"{self._path}: not a capture file: {error}") from None
        set_filter(handle, self._bpf)
        return handle

    def _name_for_libpcap(self) -> str:
        if self._path == "-":
            return "-"
        try:
            with open(self._path, "rb") as file:
                zipped = file.read(2) == b"\x1f\x8b"
        except OSError as error:
            raise InputError(f"{self._path}: cannot read it: {error.strerror}") from None
        if not zipped:
            return self._path
        self._unzip = _Unzip(self._path)
        return self._unzip.file_name

    def _before_the_damage(self) -> tuple[bytes, bytes]:
        """The sound packets of the batch that failed, which next_batch does not hand out.

        The file is read again up to the damage, the last stretch one packet a call: at most one batch, once a file.
        """
        if self._path == "-":
            return b"", b""
        self.close()
        self._handle = self._open()
        skipped = 0
        while skipped < self._counted:
            _, meta = self._handle.next_batch(min(FILE_BATCH, self._counted - skipped))
            skipped += len(meta) // META.itemsize
        packets = []
        with contextlib.suppress(pcapy.PcapError):
            while (packet := self._handle.next_batch(1))[1]:
                packets.append(packet)
        return _join(packets)


def _join(packets: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """One batch made of batches of one packet."""
    meta = np.frombuffer(b"".join(m for _, m in packets), META).copy()
    sizes = [len(data) for data, _ in packets]
    meta["offset"] = np.concatenate(([0], np.cumsum(sizes)[:-1])) if sizes else 0
    return b"".join(data for data, _ in packets), meta.tobytes()


class _Unzip:
    """Decompresses a file into a pipe, because libpcap reads only plain captures.

    In a process of its own: pcapy-ng holds the GIL while it opens a file, so a thread could not feed it.
    """

    def __init__(self, path: str) -> None:
        try:
            self._process = subprocess.Popen(
                ["gzip", "--decompress", "--stdout", "--", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError:
            raise InputError(f"{path}: is gzipped, and there is no gzip to unpack it; install gzip") from None
        assert self._process.stdout is not None
        self._output = self._process.stdout

    @property
    def file_name(self) -> str:
        """Where the plain capture can be read, once."""
        return f"/dev/fd/{self._output.fileno()}"

    def damage(self) -> str | None:
        """What gzip says is wrong with the file, once all of it has been read."""
        _, said = self._process.communicate()
        return said.decode(errors="replace").strip() if self._process.returncode else None

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.communicate()


class LiveSource:
    """A network interface.

    Raises InterfaceError, PrivilegeError or UsageError (filter) from ``open``. ``wake`` is a file descriptor that
    ends the wait of a poll when it becomes readable.
    """

    def __init__(
        self,
        interface: str,
        snaplen: int = 256,
        buffer_size: int = 64 * 2**20,
        promiscuous: bool = True,
        bpf: str | None = None,
        direction: str = "in",
        packets: int | None = None,
        wake: int | None = None,
    ) -> None:
        self._interface = interface
        self._snaplen = snaplen
        self._buffer_size = buffer_size
        self._promiscuous = promiscuous
        self._bpf = bpf
        self._direction = direction
        self._packets_left = packets
        self._wake = wake
        self._batches = _Batches()
        self._nic_before = 0
        self._kernel_drops = Drops()
        self._poller = select.poll()
        self._handle: Any = None
        self._delivered = 0

    def open(self, table: FlowTable) -> None:
        """Activate the handle with its filter set, and note the NIC's drop counters."""
        self._handle = activate(self._interface, self._snaplen, self._buffer_size, self._promiscuous)
        if self._direction == "in":
            ignore_outgoing(self._handle)
        set_filter(self._handle, self._bpf)
        # libpcap may wait for ever on a silent wire (TPACKET_V3), so the waiting is done here.
        self._handle.setnonblock(1)
        self._poller.register(self._handle.getfd(), select.POLLIN)
        if self._wake is not None:
            self._poller.register(self._wake, select.POLLIN)
        table.set_link_type(int(self._handle.datalink()))
        self._nic_before = nic_drops(self._interface) or 0

    def poll(self, table: FlowTable) -> Progress:
        """Count one batch, waiting for it no longer than the read timeout."""
        if self._batches.left:
            return self._batches.feed(table)
        if self._packets_left == 0:
            return Progress.END
        data, meta = self._next_batch()
        if not meta:
            self._poller.poll(READ_TIMEOUT_MS)
            data, meta = self._next_batch()
        if not meta:
            return Progress.IDLE
        count = len(meta) // META.itemsize
        self._delivered += count
        if self._packets_left is not None:
            self._packets_left -= count
        self._batches.put(data, meta)
        return self._batches.feed(table)

    def drops(self) -> Drops:
        """What libpcap says of the kernel's buffer, and the interface's own counters."""
        nic = nic_drops(self._interface)
        with contextlib.suppress(pcapy.PcapError):  # the interface is gone: what was known last stands
            passed, dropped, _ = self._handle.stats()  # `passed` holds the dropped: packet(7), PACKET_STATISTICS
            self._kernel_drops = Drops(dropped, None, max(0, passed - dropped - self._delivered))
        return self._kernel_drops._replace(nic=None if nic is None else max(0, nic - self._nic_before))

    def close(self) -> None:
        """Close the handle."""
        if self._handle:
            self._handle.close()
        self._handle = None

    def _next_batch(self) -> tuple[bytes, bytes]:
        most = LIVE_BATCH if self._packets_left is None else min(LIVE_BATCH, self._packets_left)
        try:
            data, meta = self._handle.next_batch(most)
        except pcapy.PcapError as error:
            raise InterfaceError(f"{self._interface}: capture stopped: {error}; is the interface still up?") from None
        return data, meta


def activate(interface: str, snaplen: int, buffer_size: int, promiscuous: bool) -> Any:
    """An activated libpcap handle."""
    handle = pcapy.create(interface)
    handle.set_snaplen(snaplen)
    handle.set_promisc(int(promiscuous))
    handle.set_timeout(READ_TIMEOUT_MS)
    handle.set_buffer_size(buffer_size)
    status = handle.activate()
    if status >= 0:
        return handle
    if status == PCAP_ERROR_PERM_DENIED:
        raise PrivilegeError(
            f"{interface}: capturing needs CAP_NET_RAW; run as root, or grant it to the interpreter: "
            "setcap cap_net_raw+ep $(readlink -f $(command -v python3))"
        )
    if status == PCAP_ERROR_NO_SUCH_DEVICE or interface not in os.listdir("/sys/class/net"):
        raise InterfaceError(f"{interface}: no such interface; `vmsensor interfaces` lists them")
    if status == PCAP_ERROR_IFACE_NOT_UP:
        raise InterfaceError(f"{interface}: the interface is down; run: ip link set {interface} up")
    raise InterfaceError(f"{interface}: libpcap cannot capture on it (status {status})")


def ignore_outgoing(handle: Any) -> None:
    """Leave out what this host sends on the interface: it did not come from the mirror.

    Done by the socket, so that the kernel does not count it either. (A BPF filter with ``inbound`` would lose packets:
    libpcap 1.9 evaluates the first block of a ring in user space, where packet types are not known.)
    """
    handle.setdirection(pcapy.PCAP_D_IN)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, fileno=os.dup(handle.getfd())) as packet_socket,
        contextlib.suppress(OSError),  # Linux before 4.20: the direction above does it, but the kernel counts them
    ):
        packet_socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)


def set_filter(handle: Any, bpf: str | None) -> None:
    """Set a BPF filter; UsageError with libpcap's message when it is not valid."""
    if not bpf:
        return
    try:
        handle.setfilter(bpf)
    except pcapy.PcapError as error:
        raise UsageError(f"--filter {bpf!r}: {error}") from None


def nic_drops(interface: str) -> int | None:
    """Packets that the interface received and lost before the capture socket; None when it has no counters."""
    counters = Path("/sys/class/net", interface, "statistics")
    try:
        return sum(int((counters / name).read_text()) for name in ("rx_dropped", "rx_missed_errors", "rx_fifo_errors"))
    except (OSError, ValueError):
        return None


def first_timestamp(path: str) -> float:
    """When a capture begins, in seconds since the epoch; infinity when it cannot be told."""
    if path == "-":
        return float("inf")
    try:
        file = _OpenFile(path, None)
    except InputError:
        return float("inf")
    try:
        meta = np.frombuffer(file._handle.next_batch(1)[1], META)
        return float(meta["sec"][0]) + float(meta["fraction"][0]) / 1e6 if len(meta) else float("inf")
    except pcapy.PcapError:
        return float("inf")
    finally:
        file.close()


def wall_clock_ns() -> int:
    """The time that live packets are stamped with."""
    return time.time_ns()
