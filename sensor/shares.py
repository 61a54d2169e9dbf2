"""Several processes read the same capture files, each its share of the flows; what they tell is put together.

Each reads all files, one after the other, and counts the packets between its pairs of addresses (``native/share.c``).
As each sees the time of every packet, all have the same windows in the same order: of each, the parts of all workers
make the window that one would have told.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import multiprocessing
import os
import queue
import secrets
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from sensor import messages
from sensor.captures import MOST_A_POLL, FileSource, is_stream
from sensor.config import Settings
from sensor.errors import DamagedInputError, InputError, SensorError, UsageError, WorkerError
from sensor.flowtable import FlowTable, common_size
from sensor.messages import Failed, Garbled, Told
from sensor.runner import make_table
from sensor.snapshot import Counters, Snapshot, added
from sensor.stopping import NUMBERS, Stop
from sensor.worker import Done, Finished, Message, Worker

WAITING_MESSAGES = 4
"""Windows and batches of flow records that wait in a worker for the parent to read them."""

LOOK_SECONDS = 0.1
"""So often the progress is looked at while nothing is told."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_F_SETPIPE_SZ = 1031  # linux/fcntl.h


@dataclass(frozen=True)
class Share:
    """Which of several workers it is, and the key of the hashes of all."""

    number: int
    of: int
    secret: bytes


class Shares:
    """The files, read by several processes. The same as ``runner.Alone``, which is one.

    Raises UsageError for what can be read once only, InputError for what cannot be opened, before anything is started;
    WorkerError when a process dies. ``damage`` as FileSource's.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Sequence[str],
        progress: Callable[[int], None] | None,
        stop: Stop,
        is_looked_at: bool = True,
    ) -> None:
        for path in filter(is_stream, paths):
            raise UsageError(f"{path}: a stream can be read by one process only; choose --workers 1, or save it first")
        FileSource(list(paths), settings.filter).check()
        self.damage: SensorError | None = None
        self._name = paths[0] if len(paths) == 1 else f"{len(paths)} files"
        self._progress = progress or (lambda _octets: None)
        self._advanced = 0
        self._counted: list[Counters] = []
        if is_looked_at:
            import sensor.merge  # noqa: F401 - and numpy: once, before there are several processes that need it
        self._common = Common(settings.workers)
        self._workers: list[_Running] = []
        secret = secrets.token_bytes(16)
        try:
            for number in range(settings.workers):
                share = Share(number, settings.workers, secret)
                self._workers.append(_Running(settings, list(paths), share, self._common, is_looked_at))
        except OSError as error:
            self.close()
            raise WorkerError(f"--workers {settings.workers}: cannot start so many: {error.strerror}") from None
        stop.then(self._common.end)

    def run(self, take: Callable[[Message], None]) -> None:
        """Hand on what one worker would: windows, finished flows, the sums of the whole run."""
        while parts := [part for worker in self._workers if (part := self._next_window(worker, take))]:
            bounds = {(part.start_ns, part.revision) for part in parts}
            if len(parts) < len(self._workers) or len(bounds) > 1:
                raise InputError(f"{self._name}: not the same for all workers; was it written to while it was read?")
            from sensor.merge import of_shares  # here, because numpy takes time to load

            take(of_shares(parts))
        take(Done(added(self._counted)))

    def close(self) -> None:
        """End every process that runs."""
        for worker in self._workers:
            worker.close()

    def _next_window(self, worker: _Running, take: Callable[[Message], None]) -> Snapshot | None:
        """A worker's part of its next window, None when it has ended; flows that finished before are handed on."""
        for message in self._told(worker):
            if isinstance(message, Snapshot):
                return message
            if isinstance(message, Finished):
                from sensor.merge import numbered_records

                take(Finished(numbered_records(message.records, worker.number)))
            elif isinstance(message, Done):
                self._counted.append(message.counters)
        return None

    def _told(self, worker: _Running) -> Iterator[Told]:
        """What it says, until it says that it has ended."""
        while not worker.has_ended:
            message = self._receive(worker)
            worker.has_ended = message is None or isinstance(message, Failed)
            if isinstance(message, Failed):
                if not isinstance(message.error, DamagedInputError):
                    raise message.error
                self.damage = self.damage or message.error  # all meet the same
            yield message

    def _receive(self, worker: _Running) -> Told:
        """Its next message. All are listened to meanwhile, because workers wait for each other."""
        while not worker.told:
            self._advance()
            running = {one.messages: one for one in self._workers if not one.is_told}
            for ready in wait(list(running), LOOK_SECONDS):
                self._listen(next(one for one in running.values() if one.messages is ready))
        return worker.told.popleft()

    def _listen(self, worker: _Running) -> None:
        try:
            worker.hear(messages.receive(worker.messages))
        except (EOFError, OSError, Garbled):
            how = worker.death()
        else:
            return
        raise WorkerError(
            f"{self._name}: worker {worker.number + 1} of {len(self._workers)} died {how}; windows that were told "
            "before are whole, all others are missing: read it again, with fewer --workers if memory is short"
        )

    def _advance(self) -> None:
        octets = self._common.octets
        self._progress(octets - self._advanced)
        self._advanced = octets


class Common:
    """What the processes have in common: what share.c writes, and the packet at which all stop when they are asked to.

    A worker says how far its next step may come, and is told where to end, in one: so none is beyond the end.
    """

    def __init__(self, workers: int) -> None:
        self.memory = mmap.mmap(-1, common_size(workers))
        self._lock = multiprocessing.get_context("fork").Lock()
        memory = memoryview(mmap.mmap(-1, 8 * (workers + 2))).cast("Q")
        self._reach, self._rest = memory[:workers], memory[workers:]

    @property
    def octets(self) -> int:
        """How much of the files the first worker has read."""
        return self._rest[0]

    def advance(self, octets: int) -> None:
        """It has read so many more."""
        self._rest[0] += octets

    def end(self) -> None:
        """All stop at the same packet, none of which any of them is beyond."""
        with self._lock:
            self._rest[1] = max(self._rest[1], max(self._reach) + 1)

    def has_ended(self, worker: int, table: FlowTable) -> bool:
        """To be asked before each step, of ``MOST_A_POLL`` packets at most."""
        with self._lock:
            self._reach[worker] = table.passed + MOST_A_POLL
            end = self._rest[1]
        if end:
            table.end_at(end)
        return bool(end) and table.passed >= end


class _Running:
    """A worker's process, and the pipe on which it tells."""

    def __init__(self, settings: Settings, paths: list[str], share: Share, common: Common, is_looked_at: bool) -> None:
        self.number = share.number
        self.told: deque[Told] = deque()
        """What waits for its turn: of no more packets than a worker may be ahead of another (share.c)."""
        self.is_told = False
        """Its last word has been heard,"""
        self.has_ended = False
        """and handed on."""
        self.messages, theirs = multiprocessing.Pipe(duplex=False)
        with contextlib.suppress(OSError):  # more than the system lets one user have
            fcntl.fcntl(theirs.fileno(), _F_SETPIPE_SZ, messages.PIPE_OCTETS)
        with theirs:
            self._process: BaseProcess = multiprocessing.get_context("fork").Process(
                target=worker_main,
                args=(settings, paths, share, theirs, common, is_looked_at, os.getpid()),
                daemon=True,
            )
            self._process.start()

    def hear(self, message: Told) -> None:
        """Keep it until it is its turn."""
        self.told.append(message)
        self.is_told = message is None or isinstance(message, Failed)

    def death(self) -> str:
        """How it ended, which it has, or is made to."""
        self.messages.close()
        self._process.join(1)
        code = self._process.exitcode
        return f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}"

    def close(self) -> None:
        """End it, wherever it is."""
        if not self.is_told:
            self._process.kill()
        self._process.join()
        self.messages.close()


# ---- what runs in a worker


def worker_main(
    settings: Settings, paths: list[str], share: Share, up: Connection, common: Common, is_looked_at: bool, parent: int
) -> None:
    """Read all files, count a share, tell."""
    _belong_to(parent)
    sender = _Sender(up)
    progress = common.advance if share.number == 0 else None
    source = FileSource(paths, settings.filter, progress)
    with contextlib.closing(source):
        try:
            table = make_table(settings, share)
            source.open(table)
            table.share_with(common.memory)
            ends = partial(common.has_ended, share.number, table)
            Worker(source, table, sender.put, ends, over=table.leave, is_looked_at=is_looked_at).run()
            sender.finish(Failed(source.damage) if source.damage else None)
        except SensorError as error:
            sender.finish(Failed(error))


def _belong_to(parent: int) -> None:
    """Signals are the parent's to hear, who stops all together; but nobody outlives it."""
    signal.set_wakeup_fd(-1)
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class _Sender:
    """Tells in a thread, so that a worker can go on while the parent is busy; not far, as what waits takes memory."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.Queue[Told] = queue.Queue(WAITING_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def put(self, message: Told) -> None:
        """Wait until there is room."""
        self._queue.put(message)

    def finish(self, last: Failed | None) -> None:
        """The last message; wait until all are told."""
        self._queue.put(last)
        self._thread.join()

    def _run(self) -> None:
        message: Told = Done(Counters())
        while message is not None and not isinstance(message, Failed):
            message = self._queue.get()
            try:
                messages.send(self._connection, message)
            except OSError:
                os._exit(1)  # nobody reads any more
