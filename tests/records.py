"""Records made by hand, and what analysis and flow lines say of them."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import numpy as np

from sensor import native
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.observer import Observer
from sensor.analysis.report import Reporter
from sensor.config import PRIVATE_NETWORKS
from sensor.flows import flow_lines
from sensor.flowtable import FATES
from sensor.identity.registry import Registry
from sensor.native import BIN, RECORD, NumpyArray
from sensor.protocols import TCP
from sensor.snapshot import Counters, Snapshot
from sensor.window import Column, Report, Table

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
BOTH_SEEN = native.SEEN["c2s"] | native.SEEN["s2c"]


def record(
    client: str = "10.0.0.1", server: str = "10.0.0.2", *, client_port: int = 40000, server_port: int = 80,
    protocol: int = TCP, vlan: tuple[int, ...] = (), vni: int | None = None, seen: int = BOTH_SEEN,
    flags: int = native.HAS_PORTS, **fields: Any,
) -> NumpyArray:  # fmt: skip
    """One record: TCP, seen in both directions, unless the arguments say otherwise."""
    one = np.zeros(1, RECORD)
    addresses = [ip_address(address) for address in (client, server)]
    for side, address in zip(("client", "server"), addresses, strict=True):
        one[f"{side}_ip"][0, : len(address.packed)] = list(address.packed)
    one["ip_version"] = addresses[0].version
    one["client_port"], one["server_port"], one["protocol"] = client_port, server_port, protocol
    one["vlan"][0, : len(vlan)], one["vlan_count"] = vlan, len(vlan)
    one["vni"] = vni or 0
    one["flags"] = flags | seen | (native.HAS_VNI if vni is not None else 0)
    one["start_ns"], one["end_ns"] = START, START + SECOND
    one["handshake_server_ns"] = one["handshake_client_ns"] = native.ABSENT
    for name, value in fields.items():
        one[name] = value
    return one


def overflow(**fields: Any) -> NumpyArray:
    """The record of what had no place in the table."""
    return record("0.0.0.0", "0.0.0.0", protocol=0, flags=native.OVERFLOW, seen=0, ip_version=0, **fields)


def number_ends(records: NumpyArray, client: NumpyArray, server: NumpyArray) -> None:
    """Give both ends of each record the IPv4 and the MAC address of the VM that has this number (24 bits)."""
    for side, vm in (("client", client), ("server", server)):
        for place, shift in ((1, 16), (2, 8), (3, 0)):
            records[f"{side}_ip"][:, place] = vm >> shift & 255
            records[f"{side}_mac"][:, place + 2] = vm >> shift & 255
        records[f"{side}_ip"][:, 0], records[f"{side}_mac"][:, 0] = 10, 2


def bins(*rows: tuple[int, str, int, int]) -> NumpyArray:
    """Histogram bins of (record, histogram, bucket, count)."""
    result = np.zeros(len(rows), BIN)
    for i, (index, histogram, bucket, count) in enumerate(rows):
        result[i]["record"], result[i]["histogram"] = index, native.HISTOGRAMS.index(histogram)
        result[i]["bucket"], result[i]["count"] = bucket, count
    return result


def bucket_of(ns: float) -> int:
    """The bucket that holds a duration."""
    edges = [native.lib.vms_bucket_low_ns(bucket) for bucket in range(native.BUCKETS + 1)]
    return int(np.searchsorted(edges, ns, side="right")) - 1


def counters(**fates: int) -> Counters:
    """Counters of a window in which packets ended so."""
    notes = {name: 0 for name in native.COUNTERS.names or () if name not in ("received", "ip_bytes", "fate")}
    return Counters(sum(fates.values()), 0, {name: fates.get(name, 0) for name in FATES}, notes)


def report_of(
    *records: NumpyArray, bins: NumpyArray | None = None, seconds: float = 10, counted: Counters | None = None,
    observed: bool = False,
) -> Report:  # fmt: skip
    """What a sensor named `tap` reports of a window with these records; `observed`: with all detectors."""
    snapshot = Snapshot(
        START, START + round(seconds * SECOND), np.concatenate(records) if records else np.zeros(0, RECORD),
        np.zeros(0, BIN) if bins is None else bins, counted or counters(),
    )  # fmt: skip
    observer = Observer(DEFAULTS) if observed else None
    return Reporter("tap", "mirror0", Registry(PRIVATE_NETWORKS), observer).report(snapshot)


def rows(table: Table) -> list[dict[str, Any]]:
    """Points as dicts of tags and fields; None where nothing was measured."""
    columns: dict[str, list[Any]] = {**table.tags, **{name: values(column) for name, column in table.fields.items()}}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def values(column: Column) -> list[Any]:
    """The cells of a column; None where it is null, either way of saying so."""
    valid = [True] * len(column.values) if column.valid is None else column.valid.tolist()
    plain = column.values.tolist()
    return [None if not here or value != value else value for value, here in zip(plain, valid, strict=True)]


def pair(report: Report, src: str, dst: str, **tags: str) -> dict[str, Any]:
    """The one row of `vm_traffic` from `src` to `dst`."""
    wanted = {"src_vm": src, "dst_vm": dst, **tags}
    (row,) = [row for row in rows(report.table("vm_traffic")) if wanted.items() <= row.items()]
    return row


def flow_of(one: NumpyArray) -> dict[str, Any]:
    """The flow record of a finished flow, after its journey through JSON."""
    (line,) = flow_lines(one, Registry(PRIVATE_NETWORKS))
    parsed: dict[str, Any] = json.loads(line)
    return parsed
