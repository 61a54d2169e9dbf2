"""What workers send to the supervisor, read without trust in them.

A worker decodes other people's packets; should one of them ever make it do what it wants, it must not get further. So
what comes up the pipe is unpickled into these classes and numpy's arrays alone.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sensor import errors
from sensor.errors import SensorError
from sensor.window import Counters, Snapshot
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


def send(connection: Connection, message: Told) -> None:
    """OSError when nobody reads any more."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


class Garbled(Exception):
    """What came is nothing that a worker sends."""


def receive(connection: Connection) -> Told:
    """The next message; EOFError or OSError when there will be none, Garbled for what no worker sends."""
    octets = connection.recv_bytes()
    try:
        told = _Unpickler(io.BytesIO(octets)).load()
    except Exception as error:  # octets that somebody has chosen can make it raise anything
        raise Garbled(str(error)) from None
    if told is not None and not isinstance(told, (Snapshot, Finished, Done, Ready, Failed)):
        raise Garbled(f"a {type(told).__name__} is no message")
    return told


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _OURS:
            return _OURS[module, name]
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is in no message")
