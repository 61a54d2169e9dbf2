"""The Python half over one large window: 5,000 VMs and 200,000 flows, from the snapshot to octets on the socket.

CPU seconds of this process: the median of several runs. What takes the octets is another process.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from sensor import native
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.observer import Observer
from sensor.analysis.report import Reporter
from sensor.config import PRIVATE_NETWORKS
from sensor.flowtable import FATES
from sensor.garbage import collect_seldom
from sensor.identity.inventory import Inventory
from sensor.identity.inventoryfile import entries_from
from sensor.identity.registry import Registry
from sensor.native import BIN, RECORD
from sensor.protocols import TCP
from sensor.sinks.batches import Batches
from sensor.sinks.influx import V1Writer
from sensor.sinks.lineprotocol import encode
from sensor.sinks.rejects import Rejects
from sensor.sinks.servers import InfluxSettings
from sensor.snapshot import Counters, Snapshot
from sensor.watch import Fixed
from sensor.window import Report
from tests.fakes import Handler
from tests.records import number_ends

VMS, FLOWS, TENANTS, SERVICES = 5_000, 200_000, 20, 6
PEERS = 12
"""Servers that a VM talks to."""
RUNS = 5
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
ON_THE_SOCKET = "snapshot to octets on the socket"
SIZES = ("flows of the window", "virtual machines", "points of it", "octets of line protocol")
WAY = (
    "snapshot named, grouped, made points",
    "the same, and all detectors",
    "line protocol of these",
    "gzip of that, all in one",
    ON_THE_SOCKET,
    f"{ON_THE_SOCKET}, gzipped",
)


def octets(number: int) -> str:
    """An address of 10.0.0.0/8."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def inventory() -> Inventory:
    """Every VM of every tenant, by address and VNI."""
    entries = []
    for vm in range(VMS):
        values = {
            "vm": f"vm-{vm}",
            "tenant": f"tenant-{vm % TENANTS}",
            "address": octets(vm),
            "vni": 5000 + vm % TENANTS,
        }
        entries += entries_from({name: str(value) for name, value in values.items()}, "bench")
    return Inventory(tuple(entries))


def window() -> Snapshot:
    """Flows within tenants, a few services each, with RTTs and responses."""
    chance = np.random.default_rng(5)
    records = np.zeros(FLOWS, RECORD)
    client = chance.integers(0, VMS, FLOWS)
    server = (client + TENANTS * (1 + chance.integers(0, PEERS, FLOWS))) % VMS
    number_ends(records, client, server)
    records["vni"], records["protocol"], records["ip_version"] = 5000 + client % TENANTS, TCP, 4
    records["client_port"] = chance.integers(32768, 60999, FLOWS)
    records["server_port"] = np.array([80, 443, 5432, 3306, 6379, 9092])[(server + client) % SERVICES]
    both = native.SEEN["c2s"] | native.SEEN["s2c"]
    records["flags"] = native.HAS_PORTS | native.HAS_VNI | native.NEW | native.ANSWERED | both
    records["tcp_state"] = native.STATES.index("established")
    records["role_source"] = native.ROLES.index("syn")
    records["start_ns"], records["end_ns"] = START, START + SECOND
    records["flow_id"] = np.arange(FLOWS)
    for name in ("packets", "data_packets", "rtt_count"):
        records[f"c2s_{name}"] = records[f"s2c_{name}"] = chance.integers(1, 20, FLOWS)
    for name in ("bytes", "payload_bytes", "rtt_sum_ns", "rtt_min_ns"):
        records[f"c2s_{name}"] = records[f"s2c_{name}"] = chance.integers(1000, 90_000, FLOWS)
    records["handshake_server_ns"] = records["handshake_client_ns"] = 100_000
    records["response_count"], records["response_sum_ns"] = 3, 3_000_000
    bins = np.zeros(2 * FLOWS, BIN)
    bins["record"], bins["histogram"] = np.tile(np.arange(FLOWS), 2), np.repeat(np.arange(2), FLOWS)
    bins["bucket"], bins["count"] = chance.integers(150, 400, 2 * FLOWS), 4
    counters = Counters(FLOWS, 0, dict.fromkeys(FATES, 0), {})
    notes = {name: 0 for name in native.COUNTERS.names or () if name not in ("received", "ip_bytes", "fate")}
    return Snapshot(START, START + 10 * SECOND, records, bins, Counters(counters.received, 0, counters.fates, notes))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one run."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


class Swallow(Handler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"  # one connection for all requests

    def do_POST(self) -> None:
        """Read it to the end."""
        self.body()
        self.answer(204)


@contextmanager
def swallowing() -> Iterator[str]:
    """The URL of a server, in a process of its own, that takes lines and drops them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Swallow) as server:
        server.daemon_threads = True
        process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            process.terminate()
            process.join()


def sending(url: str, directory: Path, compress: bool) -> Callable[[Report], None]:
    """To encode a report and write it as to an InfluxDB 1.x, in its many requests."""
    settings = InfluxSettings(url, "bench", gzip=compress)
    batches = Batches(V1Writer(settings), Rejects(directory, settings.destination))
    return lambda report: batches.send(encode(report))


def names(part: str) -> list[tuple[str, ...]]:
    """Its rows."""
    return [(what,) for what in (*SIZES, *WAY)]


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each part of the way takes, and all of it."""
    collect_seldom()
    snapshot, source = window(), Fixed(inventory())
    registry = Registry(PRIVATE_NETWORKS, source)
    plain = Reporter("bench", "mirror0", registry)
    watched = Reporter("bench", "mirror0", registry, Observer(DEFAULTS))
    report = watched.report(snapshot)
    lines = encode(report)
    sizes = (FLOWS, VMS, sum(table.rows for table in report.tables), len(lines))
    with tempfile.TemporaryDirectory() as name, swallowing() as url:
        write, write_gzipped = (sending(url, Path(name), compress) for compress in (False, True))
        way: tuple[Callable[[], object], ...] = (
            lambda: plain.report(snapshot),
            lambda: watched.report(snapshot),
            lambda: encode(report),
            lambda: gzip.compress(lines),
            lambda: write(watched.report(snapshot)),
            lambda: write_gzipped(watched.report(snapshot)),
        )
        runs = 1 if options.quick else RUNS
        took = [statistics.median(cpu_seconds(work) for _ in range(runs)) for work in way]
    return [
        *({"what": what, "value": value, "unit": None} for what, value in zip(SIZES, sizes, strict=True)),
        *({"what": what, "value": round(one, 4), "unit": "s CPU"} for what, one in zip(WAY, took, strict=True)),
    ]
