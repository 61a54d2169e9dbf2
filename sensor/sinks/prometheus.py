"""Measurement ``sensor`` for Prometheus, and whether the capture is well, over HTTP on this host."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from sensor.errors import OutputError, UsageError
from sensor.metrics import SENSOR, Metric
from sensor.window import Column, Report, Table, present

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from prometheus_client import Metric as Family

ADDRESS = "127.0.0.1"
"""Only this host is answered: who is elsewhere asks by way of a proxy that knows who may."""

WINDOWS_LATE = 3
"""Without a window for so many windows' time a capture is not ready: its interface is gone, or it hangs."""

STATES = frozenset({
    "flows", "one_sided_flows", "series", "series_folded", "spool_bytes", "spool_windows", "spool_lag_s", "workers",
})  # fmt: skip
"""Numbers that are as of a window and add up to nothing: gauges. So are ratios; what else is counted is a counter."""

Point = Mapping[str, int | float | str | None]


def is_gauge(metric: Metric) -> bool:
    """True for a number that may fall."""
    return metric.name in STATES or metric.reduce == "ratio"


def exported_name(metric: Metric) -> str:
    """Its name in Prometheus, without the ``_total`` that a counter has: ours, with the unit written out."""
    return "vmsensor_" + (metric.name[:-2] + "_seconds" if metric.name.endswith("_s") else metric.name)


class Accounts:
    """Counters since the start and the newest of all else, of one sensor; a custom collector of prometheus_client."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tags: dict[str, str] = {}
        self._sums: dict[str, int | float] = {}
        self._newest: dict[str, int | float | str] = {}
        self._windows = 0
        self._end_ns = 0

    def take(self, report: Report) -> None:
        """One window. What is null in it is absent here, unless it is a counter that has counted before."""
        tags, point = _the_point(report.table("sensor"))
        with self._lock:
            self._tags, self._newest = tags, {}
            self._windows += 1
            self._end_ns = max(self._end_ns, report.end_ns)
            for metric in SENSOR:
                value = point[metric.name]
                if value is None:
                    continue
                if isinstance(value, str) or is_gauge(metric):
                    self._newest[metric.name] = value
                else:
                    self._sums[metric.name] = self._sums.get(metric.name, 0) + value

    def collect(self) -> Iterator[Family]:
        """What Prometheus is told, with the tags of the point as labels."""
        with self._lock:
            tags, sums, newest = self._tags, dict(self._sums), dict(self._newest)
            windows, end_ns = self._windows, self._end_ns
        yield from _families(tags, sums, newest)
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        labels, values = list(tags), list(tags.values())
        counted = CounterMetricFamily("vmsensor_windows", "Windows that were reported.", labels=labels)
        counted.add_metric(values, windows)
        yield counted
        if windows:
            last = GaugeMetricFamily("vmsensor_last_window_end_seconds", "When the newest ended.", labels=labels)
            last.add_metric(values, end_ns / 1e9)
            yield last


def _families(
    tags: Mapping[str, str], sums: Mapping[str, int | float], newest: Mapping[str, int | float | str]
) -> Iterator[Family]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    labels, values = list(tags), list(tags.values())
    for metric in SENSOR:
        name, value = exported_name(metric), newest.get(metric.name)
        if metric.name in sums:
            counter = CounterMetricFamily(name, metric.help, labels=labels)
            counter.add_metric(values, sums[metric.name])
            yield counter
        elif isinstance(value, str):
            info = InfoMetricFamily(name, metric.help, labels=labels)
            info.add_metric(values, {"name": value})
            yield info
        elif value is not None:
            gauge = GaugeMetricFamily(name, metric.help, labels=labels)
            gauge.add_metric(values, value)
            yield gauge


def _the_point(table: Table) -> tuple[dict[str, str], Point]:
    return {name: labels[0] for name, labels in table.tags.items()}, {
        name: _cell(column) for name, column in table.fields.items()
    }


def _cell(column: Column) -> int | float | str | None:
    if not present(column)[0]:
        return None
    value = column.values[0]
    number: int | float | str = value if isinstance(value, str) else value.item()
    return number


class PrometheusSink:
    """Answers ``/metrics``, ``/livez`` and ``/readyz`` at a port of this host, in threads of its own."""

    name = "Prometheus"

    def __init__(self, port: int, window_ns: int) -> None:
        self._port = port
        self._patience = WINDOWS_LATE * window_ns / 1e9
        self._accounts = Accounts()
        self._heard = time.monotonic()
        self._server: WSGIServer | None = None

    @property
    def port(self) -> int:
        """Where it answers; of use when 0 was asked for, which is any that is free."""
        return self._server.server_port if self._server else self._port

    def open(self) -> None:
        """Listen. UsageError without the library, OutputError when the port is taken."""
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            raise UsageError("--health-port needs prometheus-client: pip install 'vmsensor[prometheus]'") from None

        registry = CollectorRegistry()
        registry.register(self._accounts)
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = make_server(ADDRESS, self._port, self._answer, _Server, _Handler)
        except OSError as error:
            text = f"--health-port {self._port}: {error.strerror}; choose another port"
            raise OutputError(text) from None
        self._heard = time.monotonic()
        Thread(target=self._server.serve_forever, name="vmsensor-health", daemon=True).start()

    def write(self, report: Report) -> None:
        """Count one window."""
        self._accounts.take(report)
        self._heard = time.monotonic()

    def health(self) -> Mapping[str, int | float]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """Stop answering."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            page: Iterable[bytes] = self._metrics(environ, start_response)
            return page
        status, text = self._state(path)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    def _state(self, path: str) -> tuple[str, str]:
        if path == "/livez":
            return "200 OK", "alive"
        if path != "/readyz":
            return "404 Not Found", "there are /metrics, /livez and /readyz"
        silent = time.monotonic() - self._heard
        if silent <= self._patience:
            return "200 OK", "ready"
        return "503 Service Unavailable", f"not ready: no window for {silent:.0f} s; its log says why"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # one that reads slowly does not hold up the end


class _Handler(WSGIRequestHandler):
    timeout = 10  # of a connection that says nothing

    def address_string(self) -> str:
        return self.client_address[0]

    def log_message(self, *_: Any) -> None:
        """Who asks is of no interest."""
