"""The Python half over one large window: 5,000 VMs and 200,000 flows, named, grouped and turned into points.

``python -m tests.bench.enrich`` prints CPU seconds, the median of several runs of one process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from sensor import native
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.observer import Observer
from sensor.analysis.report import Reporter
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.inventory import Inventory
from sensor.identity.inventoryfile import entries_from
from sensor.identity.registry import Registry
from sensor.native import BIN, RECORD
from sensor.protocols import TCP
from sensor.sinks.lineprotocol import encode
from sensor.watch import Fixed
from sensor.window import Counters, Snapshot
from tests.records import number_ends

VMS, FLOWS, TENANTS, SERVICES = 5_000, 200_000, 20, 6
PEERS = 12
"""Servers that a VM talks to."""
RUNS = 5
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
GOAL_SECONDS = 0.5


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
    counters = Counters(FLOWS, 0, dict.fromkeys(native.FATES, 0), {})
    notes = {name: 0 for name in native.COUNTERS.names or () if name not in ("received", "ip_bytes", "fate")}
    return Snapshot(START, START + 10 * SECOND, records, bins, Counters(counters.received, 0, counters.fates, notes))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one run."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    """Print what each part of the way takes."""
    snapshot, source = window(), Fixed(inventory())
    plain = Reporter("bench", "mirror0", Registry(PRIVATE_NETWORKS, source))
    watched = Reporter("bench", "mirror0", Registry(PRIVATE_NETWORKS, source), Observer(DEFAULTS))
    report = watched.report(snapshot)
    rows: dict[str, int] = {table.measurement: table.rows for table in report.tables}
    print(f"{FLOWS:,} flows of {VMS:,} VMs: " + ", ".join(f"{count:,} {name}" for name, count in rows.items()))
    parts: dict[str, Callable[[], object]] = {
        "named, grouped, points": lambda: plain.report(snapshot),
        "and all detectors": lambda: watched.report(snapshot),
        "line protocol of these": lambda: encode(report),
    }
    for name, work in parts.items():
        took = statistics.median(cpu_seconds(work) for _ in range(RUNS))
        goal = (
            f"   goal {GOAL_SECONDS} s: {'met' if took < GOAL_SECONDS else 'missed'}"
            if name.startswith("named")
            else ""
        )
        print(f"{name:28}{took:8.3f} s CPU{goal}")


if __name__ == "__main__":
    main()
