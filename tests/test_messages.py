"""What workers say to the supervisor: whole, without trust, and never at the cost of the capture."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from sensor import messages
from sensor.errors import FAILURES, InterfaceError
from sensor.messages import Failed, Garbled, Ready, Told, receive, send
from sensor.native import BIN, NOTICE, PRESENCE, RECORD
from sensor.snapshot import Counters, Snapshot
from sensor.worker import Done, Finished
from sensor.workerprocess import WAITING_MESSAGES, Sender

SECOND = 10**9


def window(number: int = 0, flows: int = 3, notices: int = 2) -> Snapshot:
    """A window with something in every array."""
    records = np.zeros(flows, RECORD)
    records["flow_id"] = np.arange(flows)
    bins = np.ones(5, BIN)
    counters = Counters(7, 700, {"flow": 7}, {"fragments": 1}, 3, None, 4)
    start = number * SECOND
    return Snapshot(
        start, start + SECOND, records, bins, counters, 2, True, np.ones(notices, NOTICE), np.ones(1, PRESENCE)
    )


def exchanged(message: Told) -> Told:
    """What comes out at the other end."""
    there, here = multiprocessing.Pipe(duplex=False)
    with there, here:
        sending = threading.Thread(target=send, args=(here, message))  # it is more than a pipe holds
        sending.start()
        try:
            return receive(there)
        finally:
            sending.join()


def test_nobody_waits_long_for_the_rest_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stops in the middle of what it says holds up nobody for longer than is said."""
    monkeypatch.setattr(messages, "REST_SECONDS", 1)
    there, here = multiprocessing.Pipe(duplex=False)
    with there, here:
        send(here, Ready())
        octets = os.read(there.fileno(), 10_000)
    for cut in (1, 5, len(octets) - 1):
        ours, theirs = messages.pipe()
        with ours, theirs:
            os.write(theirs.fileno(), octets[:cut])
            begun = time.monotonic()
            with pytest.raises(BlockingIOError):
                receive(ours)
            assert 0.9 < time.monotonic() - begun < 5


@pytest.mark.parametrize("flows", [0, 3, 20_000])
def test_a_window_comes_as_it_was(flows: int) -> None:
    """Every array and counter, empty ones too; records can be changed, as the merger does."""
    sent = window(flows=flows, notices=flows)
    come = exchanged(sent)
    assert isinstance(come, Snapshot)
    for name in ("records", "bins", "notices", "presence"):
        assert np.array_equal(getattr(come, name), getattr(sent, name)), name
    assert (come.counters, come.revision, come.partial) == (sent.counters, 2, True)
    come.records["flow_id"] |= np.uint64(1)


def test_everything_else_comes_as_it_was() -> None:
    """The start, flows, the sums, every failure, the end."""
    assert exchanged(None) is None
    assert exchanged(Ready()) == Ready()
    assert exchanged(Done(Counters(5))) == Done(Counters(5))
    finished = exchanged(Finished(np.ones(2, RECORD)))
    assert isinstance(finished, Finished)
    assert finished.records.tobytes() == np.ones(2, RECORD).tobytes()
    for kind in FAILURES:
        failed = exchanged(Failed(kind("eth1: gone")))
        assert isinstance(failed, Failed)
        assert (type(failed.error), str(failed.error)) == (kind, "eth1: gone")


class Evil:
    """Runs a program where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch /tmp/vmsensor-evil",)


@pytest.mark.parametrize(
    "frame",
    [
        pickle.dumps(Evil()), pickle.dumps([Evil()]), pickle.dumps(multiprocessing.Pipe), pickle.dumps(np.load),
        pickle.dumps({"a": 1}), pickle.dumps(np.ones(3)), pickle.dumps(threading.Thread), b"", b"nonsense",
        b"\x80\x05.", pickle.dumps(window())[:-40],
    ],
)  # fmt: skip
def test_what_no_worker_says_is_refused(frame: bytes) -> None:
    """Nothing else is unpickled than messages, whatever a worker that somebody has taken over sends."""
    there, here = multiprocessing.Pipe(duplex=False)
    with there, here:
        here.send_bytes(pickle.dumps([]))
        here.send_bytes(frame)
        with pytest.raises(Garbled):
            receive(there)


@pytest.mark.parametrize("sizes", [pickle.dumps(["x"]), pickle.dumps([-1]), pickle.dumps([2**70]), b"."])
def test_sizes_that_cannot_be_are_refused(sizes: bytes) -> None:
    """Of arrays that come apart."""
    there, here = multiprocessing.Pipe(duplex=False)
    with there, here:
        here.send_bytes(sizes)
        here.send_bytes(pickle.dumps(None))
        with pytest.raises(Garbled):
            receive(there)


def told(reading: Connection) -> list[Told]:
    """All that comes, until the end."""
    come: list[Told] = []
    while not come or come[-1] is not None:
        come.append(messages.receive(reading))
    return come


def test_a_busy_supervisor_never_holds_up_the_capture() -> None:
    """What has no room is counted by the next window that has; once the capture is over, all waits its turn."""
    there, here = multiprocessing.Pipe(duplex=False)
    many = 5 * WAITING_MESSAGES
    with there, here:
        sender = Sender(here)
        for number in range(many):  # nobody reads
            sender.emit(window(number))
            sender.emit(Finished(np.ones(10, RECORD)))
        reading: list[Told] = []
        reader = threading.Thread(target=lambda: reading.extend(told(there)))
        reader.start()
        sender.wait()
        sender.emit(Finished(np.ones(10, RECORD)))
        sender.emit(window(many))
        sender.emit(Done(Counters(1)))
        sender.finish(None)
        reader.join(10)
    windows = [one for one in reading if isinstance(one, Snapshot)]
    flows = sum(len(one.records) for one in reading if isinstance(one, Finished))
    assert 0 < len(windows) < many
    assert len(windows) + sum(one.counters.notes["windows_lost"] for one in windows) == many + 1
    assert flows + sum(one.counters.notes["flow_records_lost"] for one in windows) == 10 * (many + 1)
    assert isinstance(reading[-2], Done)


def test_a_failure_is_the_last_word() -> None:
    """It goes behind what was said before it."""
    there, here = multiprocessing.Pipe(duplex=False)
    with there, here:
        sender = Sender(here)
        sender.emit(Ready())
        sender.finish(Failed(InterfaceError("eth1: gone")))
        assert isinstance(receive(there), Ready)
        assert isinstance(receive(there), Failed)
