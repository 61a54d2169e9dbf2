"""``--to influx``: every window goes to the store first, and from there to the server in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Mapping

from sensor.errors import DeliveryError, SensorError
from sensor.sinks.blocks import Block, Position, headers_of, segment_numbers
from sensor.sinks.delivery import Deliverer, refused, undelivered
from sensor.sinks.servers import InfluxSettings
from sensor.sinks.spool import SpoolSink
from sensor.window import Report

LONGEST_WAIT = 3600.0
"""Seconds; a server that asks for more (Retry-After) is asked again after so long."""

log = logging.getLogger(__name__)


class InfluxSink:
    """Keeps each window in the store and delivers from there, so that no server can hold the capture up.

    While the server fails, attempts follow each other at growing intervals with jitter, or when the server says.
    ``close`` makes a last one and waits ``grace`` seconds for it; what is left then stays in the store, and
    DeliveryError says so.
    """

    name = "influx"

    def __init__(
        self,
        spool: SpoolSink,
        settings: InfluxSettings,
        *,
        grace: float = 5.0,
        first_delay: float = 1.0,
        longest_delay: float = 60.0,
    ) -> None:
        self.spool = spool
        self._settings = settings
        self._grace = grace
        self._delays = (first_delay, longest_delay)
        self._deliverer = Deliverer(spool.directory, settings)
        self._waiting: deque[tuple[Position, int]] = deque()
        """Position and end of each window that the server has not taken yet."""
        self._delivered = Position(-1, 0)
        """The last window that the server has taken."""
        self._newest_end_ns = 0
        self._lost = 0
        self._failures = 0
        self._failure: SensorError | None = None
        self._count = threading.Lock()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmsensor-influx", daemon=True)

    @property
    def pending_windows(self) -> int:
        """Windows in the store that the server has not taken yet."""
        return len(self._waiting)

    def open(self) -> None:
        """Open the store and begin with what an earlier run left in it."""
        self.spool.removed = self._removed
        self.spool.open()
        delivered = self._deliverer.position
        for number in segment_numbers(self.spool.directory):
            if number >= delivered.segment:
                start = max(delivered, Position(number, 0))
                self._waiting.extend(
                    (block.position, block.end_ns) for block in headers_of(self.spool.directory, start)
                )
        self._work.set()
        self._thread.start()

    def write(self, report: Report) -> None:
        """Put the window into the store; delivery is not waited for."""
        lost = self.spool.lost_windows
        with self._count:
            self._newest_end_ns = max(self._newest_end_ns, report.end_ns)
        self.spool.write(report)
        if self.spool.lost_windows > lost:
            return
        with self._count:
            self._waiting.append((self.spool.last, report.end_ns))
            self._strike_off()  # the thread may have been faster
        self._work.set()

    def health(self) -> Mapping[str, int | float]:
        """Depth and lag of the spool, and what did not get through."""
        with self._count:
            oldest_ns = self._waiting[0][1] if self._waiting else self._newest_end_ns
            return {
                **self.spool.health(),
                "spool_windows": len(self._waiting),
                "spool_lag_s": max(self._newest_end_ns - oldest_ns, 0) / 1e9,
                "spool_lost_windows": self.spool.lost_windows + self._lost,
                "delivery_failures": self._failures,
                "rejected_points": self._deliverer.rejects.points,
            }

    def close(self) -> None:
        """Try once more to deliver everything, for a few seconds."""
        self._closing.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(self._grace)
        self._deliverer.abandon()
        self.spool.close()
        if self.pending_windows:
            reason = self._failure or f"{self._settings.url} does not take data fast enough"
            raise undelivered(self.pending_windows, reason, self.spool.directory)
        if self._lost:
            raise DeliveryError(f"{self._lost} windows were removed from {self.spool.directory} before"
                                f" {self._settings.url} had taken them; give it more --store-size")  # fmt: skip
        if self._deliverer.rejects.points:
            raise refused(self._deliverer.rejects.points, self.spool.directory)

    # ---- in the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            self._work.wait()
            self._work.clear()
            failures = 0
            while (failure := self._attempt()) is not None:
                failures += 1
                if self._closing.wait(self._delay(failures, failure)):
                    break
        self._attempt()
        self._deliverer.close()

    def _attempt(self) -> SensorError | None:
        """Deliver what there is; what went wrong when the server or the disk does not let it."""
        try:
            for block in self._deliverer.deliver(self.spool.end):
                self._succeeded(block)
            return None
        except SensorError as error:
            return self._failed(error)
        except Exception as error:
            # A defect must not end the thread unseen. Only its name is told: its text might hold the token.
            unexpected = f"{self._settings.url}: unexpected {type(error).__name__} while delivering"
            return self._failed(DeliveryError(unexpected))

    def _failed(self, error: SensorError) -> SensorError:
        if self._failure is None:
            log.warning("%s; windows are kept in %s until it works", error, self.spool.directory)
        self._failure = error
        self._failures += 1
        return error

    def _succeeded(self, block: Block) -> None:
        if self._failure is not None:
            log.warning("%s takes data again", self._settings.url)
            self._failure = None
        with self._count:
            self._delivered = block.position
            self._strike_off()

    def _strike_off(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._delivered:
            self._waiting.popleft()

    def _delay(self, failures: int, failure: SensorError) -> float:
        """Double each time; at random, so that many sensors do not come back to a server in the same instant."""
        first, longest = self._delays
        delay = min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)
        asked = failure.retry_after if isinstance(failure, DeliveryError) else 0.0
        return max(delay, min(asked, LONGEST_WAIT) * random.uniform(1.0, 1.1))

    # ---- in the thread that writes

    def _removed(self, segment: int, windows: list[Block]) -> None:
        """A segment had to go: those of its windows that wait are lost."""
        with self._count:
            while self._waiting and self._waiting[0][0].segment <= segment:
                self._waiting.popleft()
                self._lost += 1
