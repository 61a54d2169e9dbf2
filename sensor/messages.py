"""What workers send to the supervisor, read without trust in them.

A worker decodes other people's packets; should one of them ever make it do what it wants, it must not get further. So
what comes up the pipe is unpickled into these classes and numpy's arrays alone.
"""

from __future__ import annotations

import io
import operator
import pickle
import socket
import struct
from dataclasses import dataclass
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection
from typing import Any

from sensor import errors
from sensor.errors import SensorError
from sensor.snapshot import Counters, Snapshot
from sensor.worker import Done, Finished, Message


@dataclass(frozen=True)
class Ready:
    """The worker has opened the interface."""


@dataclass(frozen=True)
class Failed:
    """The worker ends with this error."""

    error: SensorError


Told = Message | Ready | Failed | None
"""None: the worker has ended well."""

_OURS: dict[tuple[str, str], type] = {
    (kind.__module__, kind.__name__): kind
    for kind in (
        Ready, Failed, Snapshot, Counters, Finished, Done,
        *(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SensorError)),
    )
}  # fmt: skip
_NUMPY = {"ndarray", "dtype", "_reconstruct", "_frombuffer", "scalar"}


REST_SECONDS = 10
"""A worker that has begun to say something, and says no more for so long, stands still."""

PIPE_OCTETS = 2**20
"""Asked for, since a window has tens of megabytes; the system gives what it allows."""


def pipe() -> tuple[Connection, Connection]:
    """The supervisor's end and the worker's: sockets, so that to wait for the rest of a message has an end."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", REST_SECONDS, 0))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_OCTETS)
    return Connection(ours.detach(), writable=False), Connection(theirs.detach(), readable=False)


def send(connection: Connection, message: Told) -> None:
    """OSError when nobody reads any more.

    Arrays go as they lie in memory (PEP 574): to copy a million records would hold up the capture's thread as well.
    """
    arrays: list[pickle.PickleBuffer] = []
    frame = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    raw = [array.raw() for array in arrays]
    connection.send_bytes(pickle.dumps([len(array) for array in raw]))
    connection.send_bytes(frame)
    for array in raw:
        if len(array):
            connection.send_bytes(array)


class Garbled(Exception):
    """What came is nothing that a worker sends."""


def receive(connection: Connection) -> Told:
    """The next message; EOFError or OSError when there will be none, Garbled for what no worker sends.

    Of ``pipe``, BlockingIOError when the rest of it does not come.
    """
    sizes = _loaded(connection.recv_bytes())
    frame = connection.recv_bytes()
    arrays = [_array(connection, size) for size in sizes] if isinstance(sizes, list) else []
    told = _loaded(frame, arrays)
    if told is not None and not isinstance(told, (Snapshot, Finished, Done, Ready, Failed)):
        raise Garbled(f"a {type(told).__name__} is no message")
    return told


def _array(connection: Connection, size: object) -> bytearray:
    try:
        array: bytearray = bytearray(operator.index(size))  # type: ignore[arg-type]
        if array:
            connection.recv_bytes_into(array)
    except (TypeError, ValueError, OverflowError, MemoryError, BufferTooShort) as error:
        raise Garbled(f"no array has {size} octets: {error}") from None
    return array


def _loaded(octets: bytes, arrays: list[bytearray] | None = None) -> Any:
    try:
        return _Unpickler(io.BytesIO(octets), buffers=arrays).load()
    except Exception as error:  # octets that somebody has chosen can make it raise anything
        raise Garbled(str(error)) from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _OURS:
            return _OURS[module, name]
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is in no message")
