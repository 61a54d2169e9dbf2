"""The capture processes of one interface: started, listened to, and started again when they die.

A worker that dies is replaced, at growing intervals; the others go on, and the gap is said. When the interface goes
away or down, the capture waits until it is back.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection, wait

from sensor import messages
from sensor.analysis.gaps import GapWatch
from sensor.capturenic import merging_features
from sensor.config import Settings
from sensor.errors import InterfaceError, SensorError
from sensor.fanout import Fanout
from sensor.keeper import WORKER_EXIT_SECONDS, Keeper, KeeperGone
from sensor.merge import Merger, numbered_records
from sensor.messages import Failed, Garbled, Ready
from sensor.nicwatch import NicWatch
from sensor.notify import Notifier
from sensor.snapshot import Counters, Snapshot, added
from sensor.stopping import Stop
from sensor.tap import wall_clock_ns
from sensor.worker import Done, Finished, Message, deadline
from sensor.workerprocess import Duty

WAKE_SECONDS = 0.5
"""So often the supervisor looks whether a window is overdue or a worker is due to be started again."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
INTERFACE_DELAY = 1.0
"""So often an interface that is gone or down is looked for."""

HUNG_SECONDS = 30.0
"""A worker tells a window each time that one ends, also of a silent wire. One that is so late with it stands still."""

LONGEST_TURN = 5.0
"""A supervisor that takes longer to come round has been stopped, or the whole machine has."""

STOP_SECONDS = 10.0
"""A worker that was asked to stop, and has told nothing for so long, stands still."""

STEADY_SECONDS = 60.0
"""A worker that has run for so long is no longer one that keeps dying."""

log = logging.getLogger(__name__)


def duties_of(settings: Settings) -> list[Duty]:
    """What each worker of a capture is to do."""
    count = settings.workers
    fanout = Fanout.of_this_process() if count > 1 else None
    cpus = settings.cpus or (None,)
    return [Duty(n, count, fanout, cpus[n % len(cpus)]) for n in range(count)]


class _Running:
    """A capture process, and the supervisor's ends of the two pipes to it."""

    def __init__(self, keeper: Keeper, worker: int) -> None:
        self._keeper = keeper
        self._worker = worker
        self._has_ended = False
        self._status: int | None = None
        self.messages, theirs_up = messages.pipe()
        theirs_down, self._control = multiprocessing.Pipe(duplex=False)
        with theirs_up, theirs_down:
            keeper.start(worker, theirs_up, theirs_down)

    def stop(self) -> None:
        """Ask it to finish; harmless when it has."""
        with contextlib.suppress(OSError):
            self._control.close()

    def end(self, patience: float = WORKER_EXIT_SECONDS) -> int | None:
        """Make sure that it has ended; how it did, negative by which signal; None when nobody can know any more."""
        if not self._has_ended:
            self._has_ended = True
            self.stop()
            self.messages.close()
            with contextlib.suppress(KeeperGone):
                self._status = self._keeper.end(self._worker, patience)
        return self._status


class _Seat:
    """A worker's place, which outlives the process in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: _Running | None = None
        self.began = self.due = self.heard = 0.0
        self.told_ns = 0
        """Up to when it has told what it captured; 0 while it has captured nothing."""
        self.deaths = 0
        self.counted: list[Counters] = []
        """What its windows said, since the process that is in it began."""
        self.done: list[Counters] = []
        """Of processes that have ended."""

    def close_account(self) -> None:
        """The process has ended without telling its sums: what its windows said stands for them."""
        self.done[:] = [added([*self.done, *self.counted])] if self.done or self.counted else []
        self.counted.clear()


class Workers:
    """The capture processes of one interface. Use as a context manager; it ends them."""

    def __init__(
        self,
        settings: Settings,
        interface: str,
        keeper: Keeper,
        stop: Stop,
        watches: tuple[GapWatch, NicWatch],
        notifier: Notifier,
    ) -> None:
        self._settings = settings
        self._interface = interface
        self._keeper = keeper
        self._stop = stop
        self._gaps, self._nic = watches
        self._notifier = notifier
        self.outage: SensorError | None = None
        """Why nothing is captured now."""
        self._since_ns = 0
        self._losses = 0
        self._dark_ns = 0
        """Since when nothing is captured because no worker lives; 0 while one does."""
        self._turn = time.monotonic()
        """When the supervisor last looked for workers that stand still."""
        self._stopped = 0.0
        """When workers were first asked to stop."""
        self._over = deadline(None)
        self._is_alone = False
        """The keeper is gone: what runs may finish, and nothing is started any more."""
        self._seats = [_Seat(number) for number in range(settings.workers)]
        self._merger = Merger(settings.workers)
        self._nic_told = 0
        self._number: int | None = None
        self._merging: list[str] = []
        """Features that merge packets and cannot be switched off."""
        self._deaths = 0
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        with ExitStack() as stack:
            for seat in self._seats:
                stack.callback(self._end, seat)
                self._begin(seat)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def await_ready(self) -> None:
        """Raise what kept a worker from opening the interface."""
        for seat in self._seats:
            assert seat.process is not None
            latest = time.monotonic() + HUNG_SECONDS
            while not seat.process.messages.poll(WAKE_SECONDS):
                if self._stop() or time.monotonic() > latest:
                    raise self._stands_still(seat)
            try:
                message = messages.receive(seat.process.messages)
            except (EOFError, OSError, Garbled):
                raise self._died(seat) from None
            if isinstance(message, Failed):
                raise message.error
            seat.heard, seat.told_ns = time.monotonic(), wall_clock_ns()
        self._number, self._merging = self._nic.number, merging_features(self._interface)
        if self._settings.duration:
            # Workers stop by themselves; those that were started later have to be told.
            self._over = deadline(self._settings.duration / 1e9 + WAKE_SECONDS)

    def messages(self) -> Iterator[Message]:
        """What the workers hand on, windows put together, until all are done."""
        while True:
            by_pipe = {seat.process.messages: seat for seat in self._seats if seat.process is not None}
            if not by_pipe and (self._is_ending() or not any(seat.due for seat in self._seats)):
                break
            watched: list[Connection | socket.socket] = [*by_pipe, *([] if self._is_alone else [self._keeper.socket])]
            for ready in wait(watched, self._patience()):
                if isinstance(ready, Connection):
                    yield from self._complete(self._receive(by_pipe[ready]))
                else:
                    self._lose_keeper()
            yield from self._complete(self._hung())
            yield from self._complete(self._merger.overdue())
            self._watch_link()
            self._notifier.alive()
            if self._is_ending():
                self._stopped = self._stopped or time.monotonic()
                self.stop()  # again: one that was being started when all were told has not heard it
            self._begin_again()
        if self._dark_ns:
            self._say_gap(self._dark_ns, wall_clock_ns(), "the capture process died")
        yield from self._complete(self._merger.rest())

    def totals(self) -> Counters:
        """Of all workers; of one that died, what its windows said."""
        counters = added([one for seat in self._seats for one in (*seat.done, *seat.counted)] or [Counters()])
        return replace(counters, dropped_nic=self._nic.dropped)

    def health(self) -> dict[str, int]:
        """How many run, and how many have died."""
        running = sum(seat.process is not None for seat in self._seats)
        return {"workers": running, "worker_deaths": self._deaths, "interface_losses": self._losses}

    def stop(self) -> None:
        """Ask every worker to finish."""
        for seat in self._seats:
            if seat.process is not None:
                seat.process.stop()

    def _complete(self, told: Iterator[Message]) -> Iterator[Message]:
        """Add to a window what no worker knows: what the interface lost before any of them could see it."""
        for message in told:
            if isinstance(message, Snapshot) and self.outage is None and not self._is_alone:
                self._keep_ready()
            if isinstance(message, Snapshot) and (dropped := self._nic.dropped) is not None:
                counters = replace(message.counters, dropped_nic=dropped - self._nic_told)
                self._nic_told = dropped
                message = replace(message, counters=counters)
            yield message

    def _receive(self, seat: _Seat) -> Iterator[Message]:
        assert seat.process is not None
        try:
            message = messages.receive(seat.process.messages)
            seat.heard = time.monotonic()
        except Garbled as garbled:
            log.warning("%s: worker %d says what no worker says: %s", self._interface, seat.number + 1, garbled)
            yield from self._bury(seat)
            return
        except BlockingIOError:
            self._stands_still(seat)
            yield from self._bury(seat)
            return
        except (EOFError, OSError):
            yield from self._bury(seat)
            return
        if isinstance(message, Failed):
            if not isinstance(message.error, InterfaceError):
                raise message.error
            yield from self._lose(seat, message.error)
        elif isinstance(message, Snapshot):
            seat.counted.append(message.counters)
            seat.counted[:] = [added(seat.counted)]
            seat.told_ns = message.end_ns
            yield from self._merger.take(seat.number, message)
        elif isinstance(message, Finished):
            yield Finished(numbered_records(message.records, seat.number))
        elif isinstance(message, Done):
            seat.done.append(message.counters)
            seat.counted.clear()
        elif isinstance(message, Ready):
            self._merger.began(seat.number)
            self._is_back(seat)
        elif message is None:
            self._end(seat)
            yield from self._merger.ended(seat.number)

    def _is_ending(self) -> bool:
        """Nobody is to be started any more."""
        return self._stop() or self._over() or self._is_alone

    def _lose_keeper(self) -> None:
        """Nobody can start a worker again: end with what there is."""
        self._is_alone = True
        self.outage = self._keeper.gone()
        self.stop()

    # ---- an interface that is gone, or down

    def _watch_link(self) -> None:
        """An interface that is up and has no carrier delivers nothing, and says nothing of it."""
        self._nic.sample()
        before, since = self._merger.dark_ns, self._nic.dark_ns if self.outage is None else None
        self._merger.dark_ns = since
        if since is not None and before is None:
            log.warning("%s: the link is down: no carrier; nothing is captured until it is back", self._interface)
            self._notifier.status("waiting: no carrier")
        elif since is None and before is not None:
            self._say_gap(before, wall_clock_ns(), "the link was down: no carrier")
            if self.outage is None:
                log.warning("%s: the link is up again", self._interface)
                self._notifier.status("capturing")

    def _lose(self, seat: _Seat, error: InterfaceError) -> Iterator[Message]:
        """Wait for the interface; what the worker had read has been told."""
        seat.told_ns = 0
        self._end(seat)
        seat.close_account()
        since_ns = error.since_ns or wall_clock_ns()
        if self.outage is not None:
            self._since_ns = min(self._since_ns, since_ns)  # who tells first need not have seen it first
        else:
            self.outage, self._since_ns = error, since_ns
            self._losses += 1
            log.warning("%s; waiting until it is back", error)
            self._notifier.status(f"waiting: {error}")
        yield from self._merger.ended(seat.number)
        seat.due = time.monotonic() + INTERFACE_DELAY

    def _is_back(self, seat: _Seat) -> None:
        seat.told_ns = now_ns = wall_clock_ns()
        if self.outage is None:
            log.warning("%s: worker %d captures again", self._interface, seat.number + 1)
            if self._dark_ns:
                self._say_gap(self._dark_ns, now_ns, "the capture process died")
                self._dark_ns = 0
            return
        since_ns, self._dark_ns = min(self._since_ns, self._dark_ns or self._since_ns), 0
        self._say_gap(since_ns, now_ns, str(self.outage).partition(": ")[2])
        log.warning("%s: captures again", self._interface)
        self._notifier.status("capturing")
        self.outage = None
        self._number = self._nic.number
        self._keep_ready()

    def _keep_ready(self) -> None:
        """Somebody may have switched on again what merges packets, as another run does that puts the NIC back."""
        if not self._settings.nic_setup or self._nic.number != self._number:
            return  # another interface, which no worker has opened yet
        merging = merging_features(self._interface)
        if merging and merging != self._merging:
            log.warning("%s: %s was on, which merges packets; switching it off", self._interface, ", ".join(merging))
            self._keeper.prepare()
            merging = merging_features(self._interface)
        self._merging = merging

    def _say_gap(self, since_ns: int, now_ns: int, why: str) -> None:
        self._gaps.add(since_ns, now_ns, why)
        self._merger.misses(since_ns, now_ns)

    # ---- one that dies

    def _hung(self) -> Iterator[Message]:
        """Those that stand still are killed, and so are as dead as others that were."""
        now = time.monotonic()
        if now - self._turn > LONGEST_TURN:  # who was stopped itself knows nothing of the others
            self._stopped = self._stopped and now
            for seat in self._seats:
                seat.heard = now
        self._turn = now
        for seat in self._seats:
            if seat.process is None:
                continue
            patience, since = HUNG_SECONDS + self._settings.window / 1e9, max(seat.heard, seat.began)
            if self._stopped:
                patience, since = STOP_SECONDS, max(since, self._stopped)
            if now - since > patience and not seat.process.messages.poll():
                self._stands_still(seat)
                yield from self._bury(seat)

    def _stands_still(self, seat: _Seat) -> InterfaceError:
        log.warning("%s: worker %d stands still, and is killed", self._interface, seat.number + 1)
        if seat.process is not None:
            seat.process.end(patience=0.0)
        return self._died(seat)

    def _bury(self, seat: _Seat) -> Iterator[Message]:
        """It ended without a word: killed, or out of memory. What it had of the open window is lost."""
        steady = time.monotonic() - seat.began > STEADY_SECONDS
        seat.deaths = 1 if steady else seat.deaths + 1
        self._deaths += 1
        died = self._died(seat)
        if seat.process is not None:
            self._end(seat)
        seat.close_account()
        self._miss(seat, died)
        yield from self._merger.ended(seat.number)
        if self._is_ending():
            log.warning("%s; what it had not told is lost", died)
            return
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (seat.deaths - 1))
        seat.due = time.monotonic() + delay
        log.warning("%s; what it had of its open window is lost, and it is started again in %g s", died, delay)

    def _miss(self, seat: _Seat, died: InterfaceError) -> None:
        """What it had captured and not told is missing. From now on the others get its packets, if there are any."""
        since_ns, seat.told_ns = seat.told_ns, 0
        if self.outage is not None or not since_ns:
            return
        now_ns = wall_clock_ns()
        self._merger.misses(since_ns, now_ns)
        if not any(other.process for other in self._seats):
            self._dark_ns = self._dark_ns or since_ns
            return
        what = f"a part of the packets, one worker's of {len(self._seats)}, is missing"
        self._gaps.add(since_ns, now_ns, str(died).partition(": ")[2], what)

    def _died(self, seat: _Seat) -> InterfaceError:
        code = seat.process.end() if seat.process is not None else None
        how = f" by {signal.Signals(-code).name}" if code is not None and code < 0 else f" with status {code}"
        which = f" {seat.number + 1}" if len(self._seats) > 1 else ""
        return InterfaceError(f"{self._interface}: the capture process{which} died{how}")

    def _patience(self) -> float:
        """Seconds until there is something to do that nobody tells."""
        now = time.monotonic()
        return min([WAKE_SECONDS, *(max(seat.due - now, 0.0) for seat in self._seats if seat.due)])

    def _begin_again(self) -> None:
        for seat in self._seats:
            if seat.due and time.monotonic() >= seat.due and not self._is_ending():
                self._begin(seat)

    def _begin(self, seat: _Seat) -> None:
        seat.due, seat.began = 0.0, time.monotonic()
        seat.process = _Running(self._keeper, seat.number)

    def _end(self, seat: _Seat) -> None:
        if seat.process is not None:
            seat.process.end()
        seat.process = None
