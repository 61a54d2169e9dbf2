"""Capture files and streams as a source, through libpcap: pcap and pcapng; a file may be gzipped."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pcapy

from sensor.errors import DamagedInputError, InputError
from sensor.flowtable import META_SIZE, FileState, FlowTable, MappedFile, meta_of
from sensor.sources import Batches, Drops, Progress, set_filter

FILE_BATCH = 8192
"""Packets a call. Batches of 64 to 256 KiB are to be avoided: malloc gives such blocks back to the kernel each time."""

MOST_A_POLL = FILE_BATCH
"""Packets that one poll counts, at most, whatever the file."""

STREAM_BATCH = 64
"""Packets a call where they may come slowly: a call returns when it has them all."""

STDIN = "-"


class FileSource:
    """Capture files, one after the other; ``-`` is standard input.

    Raises InputError when a file cannot be opened. A file that is cut or damaged is counted up to the damage; the
    failure is kept in ``damage`` and the next file goes on. Without ``is_mapped`` all are read through libpcap.
    """

    def __init__(
        self,
        paths: list[str],
        bpf: str | None = None,
        progress: Callable[[int], None] | None = None,
        is_mapped: bool = True,
    ) -> None:
        self.damage: DamagedInputError | None = None
        self._paths = list(paths)
        self._bpf = bpf
        self._progress = progress or (lambda _octets: None)
        self._is_mapped = is_mapped
        self._file: _Capture | None = None

    def open(self, table: FlowTable) -> None:
        """Claim the first file, once every file can be opened."""
        self.check()
        self._next_file(table)

    def check(self) -> None:
        """Check that every file can be opened, before any of them is counted."""
        for path in self._paths:
            if not is_stream(path):
                _Capture(path, self._bpf).close()

    def poll(self, table: FlowTable) -> Progress:
        """Count one batch."""
        if self._file is None:
            return Progress.END
        progress = self._file.poll(table, self._progress)
        if progress is not Progress.END:
            return progress
        self.damage = self.damage or self._file.damage
        self._next_file(table)
        return Progress.READ

    def drops(self) -> Drops:
        """A file does not say."""
        return Drops()

    def interrupt(self) -> None:
        """End a stream here; from another thread, while a poll waits for it."""
        if self._file:
            self._file.interrupt()

    def close(self) -> None:
        """Close the file that is open."""
        if self._file:
            self._file.close()
        self._file = None

    def _next_file(self, table: FlowTable) -> None:
        self.close()
        if self._paths:
            self._file = _Capture(self._paths.pop(0), self._bpf)
            if self._is_mapped:
                self._file.map()
            table.set_link_type(self._file.link_type)


def first_timestamp(path: str) -> float:
    """When a capture begins, in seconds since the epoch; infinity when it cannot be told."""
    if is_stream(path):
        return float("inf")
    with contextlib.suppress(InputError):
        file = _Capture(path, None)
        try:
            if meta := file.next_batch(1)[1]:
                first = meta_of(meta)[0]
                return float(first.sec) + float(first.fraction) / 1e6
        finally:
            file.close()
    return float("inf")


def is_stream(path: str) -> bool:
    """True for what can be read once only."""
    if path == STDIN:
        return True
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False


class _Capture:
    """One capture. ``damage`` is set once its end turns out not to be a sound one."""

    def __init__(self, path: str, bpf: str | None) -> None:
        self.damage: DamagedInputError | None = None
        self._path = path
        self._bpf = bpf
        self._stream = is_stream(path)
        self._counted = 0
        self._batches = Batches()
        self._mapped: MappedFile | None = None
        self._feeder: _Feeder | None = None
        self._handle = self._open()
        self.link_type = int(self._handle.datalink())

    def map(self) -> None:
        """Read it without libpcap from now on, as far as it is what a mapped file can be. A filter is libpcap's."""
        if self._feeder or self._bpf:
            return
        with contextlib.suppress(OSError, ValueError), open(self._path, "rb") as file:
            self._mapped = MappedFile(file.fileno())

    def poll(self, table: FlowTable, progress: Callable[[int], None]) -> Progress:
        """Count some packets; END at the end."""
        if self._mapped:
            return self._poll_mapped(self._mapped, table, progress)
        if self._batches.left:
            return self._batches.feed(table)
        data, meta = self.next_batch()
        progress(len(data) + len(meta))
        if not meta:
            return Progress.END
        self._batches.put(data, meta)
        return self._batches.feed(table)

    def _poll_mapped(self, mapped: MappedFile, table: FlowTable, progress: Callable[[int], None]) -> Progress:
        before = mapped.place
        state = table.ingest_file(mapped)
        progress(mapped.place - before)
        if state is FileState.ODD:  # libpcap knows what to make of it
            self._counted = mapped.packets
            mapped.close()
            self._mapped = None
            self._skip()
            return Progress.READ
        return _OF_STATE[state]

    def next_batch(self, most: int | None = None) -> tuple[bytes, bytes]:
        """Packets and their meta; empty at the end."""
        if self.damage:
            return b"", b""
        try:
            data, meta = self._handle.next_batch(most or (STREAM_BATCH if self._stream else FILE_BATCH))
        except pcapy.PcapError as error:
            self._damaged(str(error))
            data, meta = self._before_the_damage()
        self._counted += len(meta) // META_SIZE
        if not meta and self._feeder and not self.damage and (damage := self._feeder.damage()):
            self._damaged(damage)
        return data, meta

    def interrupt(self) -> None:
        if self._stream and self._feeder:
            self._feeder.stop()

    def close(self) -> None:
        self._handle.close()
        if self._mapped:
            self._mapped.close()
            self._mapped = None
        if self._feeder:
            self._feeder.close()

    def _damaged(self, how: str) -> None:
        counted = "everything before that was counted"
        if self._stream:
            counted = f"fewer than {STREAM_BATCH} packets before that were not counted; a file would have them all"
        self.damage = DamagedInputError(f"{self._path}: {how}; {counted}")

    def _open(self) -> Any:
        name = self._name_for_libpcap()
        try:
            handle = pcapy.open_offline(name)
        except pcapy.PcapError as error:
            if self._feeder:
                self._feeder.close()
            raise InputError(f"{self._path}: not a capture file: {error}") from None
        set_filter(handle, self._bpf)
        return handle

    def _name_for_libpcap(self) -> str:
        """The file itself, or where a process passes it on: a stream, a gzipped file, a name that is not UTF-8."""
        if self._path == STDIN:
            return self._fed(["cat"], sys.stdin)
        try:
            # Without a buffer: the feeder inherits the place in the file as the system knows it.
            with open(self._path, "rb", buffering=0) as file:
                zipped = not self._stream and file.read(2) == b"\x1f\x8b"
                if not (self._stream or zipped) and _is_utf8(self._path):
                    return self._path
                if not self._stream:
                    file.seek(0)
                return self._fed(["gzip", "--decompress", "--stdout"] if zipped else ["cat"], file)
        except OSError as error:
            raise InputError(f"{self._path}: cannot read it: {error.strerror}") from None

    def _fed(self, command: list[str], file: IO[Any] | None) -> str:
        if file is None:
            raise InputError(f"{self._path}: standard input is closed")
        self._feeder = _Feeder(self._path, command, file)
        return self._feeder.file_name

    def _before_the_damage(self) -> tuple[bytes, bytes]:
        """The sound packets of the batch that failed, which next_batch does not hand out.

        The file is read again up to the damage, the last stretch one packet a call: at most one batch, once a file.
        """
        if self._stream:
            return b"", b""
        self.close()
        self._handle = self._open()
        self._skip()
        packets = []
        with contextlib.suppress(pcapy.PcapError):
            while (packet := self._handle.next_batch(1))[1]:
                packets.append(packet)
        return _join(packets)

    def _skip(self) -> None:
        """Pass over what was counted."""
        skipped = 0
        while skipped < self._counted and (
            meta := self._handle.next_batch(min(FILE_BATCH, self._counted - skipped))[1]
        ):
            skipped += len(meta) // META_SIZE


_OF_STATE = {FileState.MORE: Progress.READ, FileState.HELD: Progress.HELD, FileState.END: Progress.END}


def _is_utf8(path: str) -> bool:
    """pcapy-ng can open the name."""
    with contextlib.suppress(UnicodeEncodeError):
        return bool(path.encode())
    return False


def _join(packets: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """One batch made of batches of one packet."""
    joined, offset = bytearray(b"".join(meta for _, meta in packets)), 0
    for packet, (data, _) in zip(meta_of(joined), packets, strict=True):
        packet.offset = offset
        offset += len(data)
    return b"".join(data for data, _ in packets), bytes(joined)


class _Feeder:
    """A process that passes a stream on, or unpacks a file, into a pipe that libpcap reads.

    A process, since pcapy-ng holds the GIL while it opens a file, so that a thread could not feed it; in a session of
    its own, so that Ctrl-C does not reach it; and one that can be stopped, which ends a stream that goes on and on.
    """

    def __init__(self, path: str, command: list[str], file: IO[Any]) -> None:
        try:
            self._process = subprocess.Popen(
                command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except FileNotFoundError:
            raise InputError(f"{path}: cannot be read without {command[0]}, which is not here; install it") from None
        assert self._process.stdout is not None
        self._output = self._process.stdout
        # The wait for the first octets is done here, where another thread can end it.
        select.select([self._output], [], [])

    @property
    def file_name(self) -> str:
        """Where the plain capture can be read, once."""
        return str(Path("/dev/fd", str(self._output.fileno())))

    def damage(self) -> str | None:
        """What the process says is wrong with the file, once all of it has been read."""
        _, said = self._process.communicate()
        return said.decode(errors="replace").strip() if self._process.returncode > 0 else None

    def stop(self) -> None:
        """Let the reader come to the end of what has been passed on."""
        self._process.terminate()

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.communicate()
