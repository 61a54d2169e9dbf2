"""``vmsensor capture``: workers that capture, and this process, the supervisor, that does the rest.

The supervisor starts a keeper, which keeps the privileges and starts the workers, and gives up its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

from sensor import logs
from sensor.account import can_import, supervisor_account
from sensor.analysis.findings import Detector
from sensor.analysis.gaps import GapWatch
from sensor.config import Settings
from sensor.errors import SensorError
from sensor.garbage import keep_what_is_loaded
from sensor.health import Figures
from sensor.keeper import Keeper, Task
from sensor.nicwatch import NicWatch
from sensor.notify import Notifier
from sensor.preload import load_all
from sensor.privileges import give_up, user_named
from sensor.runner import Pipeline, totals_line
from sensor.sinks import Sink
from sensor.sinks.prometheus import PrometheusSink
from sensor.sinks.queue import QueuedSink
from sensor.stopping import stop_on_signals
from sensor.workers import Workers, duties_of

log = logging.getLogger(__name__)


def capture(settings: Settings, interface: str, sinks: Sequence[Sink] = (), detectors: Sequence[Detector] = ()) -> None:
    """Capture until a signal, the duration or the packet count ends it; the last window is written.

    ``sinks`` and ``detectors`` are the caller's own, as of ``Pipeline``. The calling process gives up its privileges,
    for good.
    """
    user_named(settings.user)  # say now that there is no such user
    account = supervisor_account(settings)
    gaps = GapWatch(interface)
    with ExitStack() as stack:
        notifier = stack.enter_context(Notifier())
        keeper = stack.enter_context(Keeper(Task(settings, interface, duties_of(settings))))
        if not can_import(account):
            load_all()
        give_up(account)  # before the first thread, which would keep its own
        stop = stack.enter_context(stop_on_signals())
        keeper.await_ready()
        nic = stack.enter_context(closing(NicWatch(interface, settings.link_speed)))
        workers = stack.enter_context(Workers(settings, interface, keeper, stop, (gaps, nic), notifier))
        workers.await_ready()
        figures: list[Callable[[], Figures]] = [workers.health, nic.figures]
        outputs = [*sinks, *_health_endpoint(settings)]
        with Pipeline(settings, interface, QueuedSink, outputs, [gaps, nic, *detectors], figures) as pipeline:
            stop.then(workers.stop)
            stop.or_reread(_rereading(pipeline))
            keep_what_is_loaded()
            notifier.ready()
            log.info("%s: capturing; workers: %d", interface, settings.workers)
            failure = _take_all(workers, pipeline)
            notifier.stopping()
    logs.result(totals_line(workers.totals()))
    if failure:
        raise failure
    pipeline.raise_failure()


def _health_endpoint(settings: Settings) -> Iterator[Sink]:
    if settings.health_port is not None:
        yield PrometheusSink(settings.health_port, settings.window)


def _rereading(pipeline: Pipeline) -> Callable[[], None]:
    def reread() -> None:
        log.warning("SIGHUP: inventory, policy, lists and [limits] are read again with the next window")
        pipeline.reread()

    return reread


def _take_all(workers: Workers, pipeline: Pipeline) -> SensorError | None:
    """Hand every message to the pipeline; what ended the capture too early, if something did."""
    try:
        for message in workers.messages():
            pipeline.take(message)
    except SensorError as failure:
        return failure
    return workers.outage
