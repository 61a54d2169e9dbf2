"""Wires it all: a worker's messages go through analysis to the sinks; everything is stopped in reverse order."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sensor import logs
from sensor.config import Settings
from sensor.errors import SensorError, UsageError
from sensor.flowtable import FlowTable, TableOptions
from sensor.health import Figures, Health
from sensor.sinks import Sink
from sensor.snapshot import Counters, Snapshot
from sensor.stopping import Stop
from sensor.worker import Done, Finished, Message, Worker

if TYPE_CHECKING:
    from sensor.analysis.findings import Detector
    from sensor.mind import Mind
    from sensor.shares import Share, Shares
    from sensor.sinks.flowlines import FlowWriter

log = logging.getLogger(__name__)


def table_options(settings: Settings, share: Share | None = None) -> TableOptions:
    """How the flow table behaves under these settings; ``share``: of the packets that several tables are fed."""
    tables = settings.workers if settings.live else 1  # of a file, each may need as many flows as one table would
    return TableOptions(
        window_ns=settings.window,
        max_flows=-(-settings.max_flows // tables),
        snaplen=settings.snaplen,
        idle_timeout_ns=settings.idle_timeout,
        tcp_idle_timeout_ns=settings.tcp_idle_timeout,
        active_timeout_ns=settings.active_timeout,
        duplicate_horizon_ns=settings.duplicate_horizon,
        vlan_in_key=settings.vlan_in_key,
        keep_finished=settings.flows is not None,
        is_unhurried=not settings.live,
        secret=share.secret if share else None,
        share=share.number if share else 0,
        shares=share.of if share else 1,
    )


def make_table(settings: Settings, share: Share | None = None) -> FlowTable:
    """The flow table; UsageError when the memory for its index is not there."""
    try:
        return FlowTable(table_options(settings, share))
    except MemoryError:
        raise UsageError(f"--max-flows {settings.max_flows}: not enough memory for so many; choose fewer") from None


def make_sinks(settings: Settings) -> list[Sink]:
    """The sinks that were asked for; nothing is opened yet."""
    wanted = [(kind, target) for kind, target in settings.sinks if not _by_the_way(kind, target, settings)]
    return [_make_sink(kind, target, settings) for kind, target in wanted]


def _by_the_way(kind: str, target: str, settings: Settings) -> bool:
    """True for what another sink does already: InfluxDB is written by way of a store, and a store has one writer."""
    same_store = kind == "store" and Path(target or settings.store) == settings.store
    return kind == "none" or (same_store and ("influx", "") in settings.sinks)


def _make_sink(kind: str, target: str, settings: Settings) -> Sink:
    """One sink. Modules are loaded when needed: a run without InfluxDB starts without its client."""
    if kind == "json":
        from sensor.sinks.jsonlines import JsonLinesSink

        return JsonLinesSink(target)
    if kind == "table":
        from sensor.sinks.table import TableSink

        return TableSink(lambda: kept_where(settings))
    from sensor.sinks.spool import SpoolLimits, SpoolSink

    limits = SpoolLimits(settings.store_size, settings.store_age, settings.store_sync)
    spool = SpoolSink(target or settings.store, limits, live=settings.live)
    if kind == "store" or settings.influx is None:
        return spool
    from sensor.sinks.influxsink import InfluxSink

    return InfluxSink(spool, settings.influx)


def kept_where(settings: Settings) -> Iterator[str]:
    """Where the results are, a line each."""
    for kind, target in settings.sinks:
        if kind == "store":
            directory = target or settings.store
            yield f"Windows are kept in {directory}; look again with: vmsensor show {shlex.quote(str(directory))}"
        elif kind == "influx" and settings.influx:
            yield f"Windows go to {settings.influx.url}, bucket {settings.influx.bucket}, by way of {settings.store}"
        elif kind == "json" and target != "-":
            yield f"Points are in {target}"
    if settings.flows not in (None, "-"):
        yield f"Flow records are in {settings.flows}"


def _is_looked_at(settings: Settings, detectors: Sequence[Detector], is_read: bool) -> bool:
    """Whether anybody wants more of a window than the totals."""
    kinds = {kind for kind, _ in settings.sinks} - {"none"}
    files = (settings.flows, settings.memory, settings.inventory, settings.policy, settings.bad_networks)
    return bool(kinds or detectors or is_read or any(files))


def _mind(
    settings: Settings, interface: str, detectors: Sequence[Detector], is_read: bool, health: Health
) -> Mind | None:
    """What makes reports; None where nobody would see them, since it takes time to load."""
    if not _is_looked_at(settings, detectors, is_read):
        return None
    from sensor.mind import Mind

    return Mind(settings, interface, detectors, health)


def _flow_writer(settings: Settings, mind: Mind | None) -> FlowWriter | None:
    if settings.flows is None or mind is None:
        return None
    from sensor.sinks.flowlines import FlowWriter

    return FlowWriter(settings.flows, mind.registry)


class Pipeline:
    """The Python half of the house: snapshot -> identity -> analysis -> sinks, and finished flows to their file.

    A sink that fails is set aside and the others go on; its failure is raised at the end. Use as a context manager.
    ``sinks`` and ``detectors`` are the caller's own, besides those that the settings ask for; ``figures`` are more of
    what measurement ``sensor`` says of the sensor.
    """

    def __init__(
        self,
        settings: Settings,
        interface: str,
        wrap: Callable[[Sink], Sink] = lambda sink: sink,
        sinks: Sequence[Sink] = (),
        detectors: Sequence[Detector] = (),
        figures: Sequence[Callable[[], Figures]] = (),
    ) -> None:
        self.totals = Counters()
        health = Health()
        self._mind = _mind(settings, interface, detectors, bool(sinks), health)
        self._sinks = [wrap(sink) for sink in (*make_sinks(settings), *sinks)]
        for watched in (*figures, *(sink.health for sink in self._sinks)):
            health.watch(watched)
        self._flows = _flow_writer(settings, self._mind)
        self._failures: list[SensorError] = []
        self._unkept: SensorError | None = None
        self._is_live = settings.live
        self._stack = ExitStack()

    def __enter__(self) -> Pipeline:
        """Open every sink; when one cannot be opened, close those that are open."""
        with ExitStack() as stack:
            if self._flows:
                self._flows.open()
                stack.callback(self._flows.close)
            if self._mind:
                self._mind.check()
            stack.callback(self._keep_in_mind)
            for sink in self._sinks:
                sink.open()
                stack.callback(self._close, sink)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sinks, the last one first."""
        self._stack.close()

    def take(self, message: Message) -> None:
        """Handle one message of a worker."""
        if isinstance(message, Snapshot):
            self._take_window(message)
        elif isinstance(message, Finished):
            self._take_flows(message)
        elif isinstance(message, Done):
            self.totals = message.counters

    def reread(self) -> None:
        """Take inventory, policy, lists and thresholds anew with the next window. From any thread."""
        if self._mind:
            self._mind.reread()

    def raise_failure(self) -> None:
        """Raise what went wrong in a sink first; say the rest."""
        failures = [*self._failures, *([self._unkept] if self._unkept else [])]
        for failure in failures[1:]:
            logs.failure(str(failure))
        if failures:
            raise failures[0]

    def _take_window(self, snapshot: Snapshot) -> None:
        if self._mind is None:
            return
        report = self._mind.report(snapshot)
        if self._mind.is_due(snapshot.end_ns):
            self._keep_in_mind()
        for sink in list(self._sinks):
            try:
                sink.write(report)
            except SensorError as failure:
                self._set_aside(sink, failure)

    def _take_flows(self, message: Finished) -> None:
        if self._flows is None:
            return
        try:
            self._flows.write(message.records)
        except SensorError as failure:
            self._fail(failure, "flow records end here, all else goes on")
            self._flows = None

    def _keep_in_mind(self) -> None:
        """The last time is what counts in the end: a disk may have been full meanwhile."""
        self._unkept = None
        try:
            if self._mind:
                self._mind.save()
        except SensorError as failure:
            self._unkept = failure
            self._say(failure, "it is tried again, all else goes on")

    def _set_aside(self, sink: Sink, failure: SensorError) -> None:
        self._fail(failure, "this output ends here, all else goes on")
        self._sinks.remove(sink)

    def _fail(self, failure: SensorError, what_now: str) -> None:
        """Keep it for the end."""
        self._say(failure, what_now)
        if str(failure) not in map(str, self._failures):
            self._failures.append(failure)

    def _say(self, failure: SensorError, what_now: str) -> None:
        """Now, where the end may be months away."""
        if self._is_live:
            log.warning("%s; %s", failure, what_now)

    def _close(self, sink: Sink) -> None:
        try:
            sink.close()
        except SensorError as failure:
            if failure not in self._failures:
                self._failures.append(failure)


def read_files(
    settings: Settings,
    paths: list[str],
    progress: Callable[[int], None] | None,
    stop: Stop,
    sinks: Sequence[Sink] = (),
    detectors: Sequence[Detector] = (),
) -> None:
    """``vmsensor read``: capture files through one worker or several; ``sinks`` and ``detectors`` as in Pipeline.

    Raises the first failure of a sink, else the damage of a file, when everything else has been reported.
    """
    from sensor.captures import first_timestamp

    ordered = sorted(paths, key=first_timestamp) if len(paths) > 1 else paths
    is_looked_at = _is_looked_at(settings, detectors, bool(sinks))
    with contextlib.closing(_reading(settings, ordered, progress, stop, is_looked_at)) as reading:
        name = ordered[0] if len(ordered) == 1 else f"{len(ordered)} files"
        with Pipeline(settings, name, sinks=sinks, detectors=detectors) as pipeline:
            reading.run(pipeline.take)
    logs.result(totals_line(pipeline.totals))
    pipeline.raise_failure()
    if reading.damage:
        raise reading.damage


def _reading(
    settings: Settings, paths: list[str], progress: Callable[[int], None] | None, stop: Stop, is_looked_at: bool
) -> Alone | Shares:
    if settings.workers == 1:
        return Alone(settings, paths, progress, stop, is_looked_at)
    from sensor.shares import Shares

    return Shares(settings, paths, progress, stop, is_looked_at)


class Alone:
    """The files, read in this process; ``is_looked_at`` as Worker has it."""

    def __init__(
        self,
        settings: Settings,
        paths: list[str],
        progress: Callable[[int], None] | None,
        stop: Stop,
        is_looked_at: bool = True,
    ) -> None:
        from sensor.captures import FileSource

        self._stop = stop
        self._is_looked_at = is_looked_at
        self._source = FileSource(paths, settings.filter, progress)
        stop.then(self._source.interrupt)
        self._table = make_table(settings)
        self._source.open(self._table)

    @property
    def damage(self) -> SensorError | None:
        """What is wrong with a file that could not be read to its end."""
        return self._source.damage

    def run(self, take: Callable[[Message], None]) -> None:
        """Hand on what the worker tells."""
        Worker(self._source, self._table, take, self._stop, is_looked_at=self._is_looked_at).run()

    def close(self) -> None:
        """Close the file that is open."""
        self._source.close()


def totals_line(counters: Counters) -> str:
    """Where every packet went, in one line that adds up."""
    fates = [f"{counters.fates.get('flow', 0)} in flows", f"{counters.fates.get('overflow', 0)} overflow"]
    fates += [f"{n} {name}" for name, n in counters.fates.items() if n and name not in ("flow", "overflow")]
    lost = f"dropped by kernel {_known(counters.dropped_kernel)}, by NIC {_known(counters.dropped_nic)}"
    unread = f", unread {counters.unread}" if counters.unread else ""
    return f"received {counters.received} = {' + '.join(fates)}; {lost}{unread}"


def _known(count: int | None) -> str:
    return "-" if count is None else str(count)
