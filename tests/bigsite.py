"""Windows of a large site, made as records: thousands of VMs in tenants, the outside, and a scanner now and then."""

from __future__ import annotations

import numpy as np

from sensor import native
from sensor.flowtable import FATES
from sensor.native import BIN, RECORD, NumpyArray
from sensor.protocols import TCP
from sensor.snapshot import Counters, Snapshot
from tests.records import number_ends

SECOND = 1_000_000_000
DAY_START = 1_700_006_400 * SECOND
"""Midnight, UTC."""

TENANTS = 20
SERVICES = (80, 443, 5432, 3306, 6379, 9092)


class Site:
    """``vms`` VMs at 10.x.x.x, of which each uses the same ``peers`` servers of its tenant all day, from ``seed``."""

    def __init__(self, vms: int, peers: int = 3, seed: int = 17) -> None:
        self.vms = vms
        self._chance = np.random.default_rng(seed)
        hop = TENANTS * (1 + self._chance.integers(0, vms // TENANTS - 1, (vms, peers)))
        self._client = np.repeat(np.arange(vms), peers)
        self._server = ((np.arange(vms)[:, None] + hop) % vms).reshape(-1)
        self._port = np.array(SERVICES)[self._chance.integers(0, len(SERVICES), vms * peers)]

    def window(self, start_ns: int, scanned_ports: int = 0, scanned_vms: int = 1) -> Snapshot:
        """Most pairs talk; VM 0 also tries so many ports of so many others, in vain."""
        used = np.flatnonzero(self._chance.random(len(self._client)) < 0.8)
        parts = [self._talk(self._client[used], self._server[used], self._port[used])]
        if scanned_ports:
            victim = np.repeat(1 + np.arange(scanned_vms), scanned_ports)
            port = np.tile(1 + self._chance.permutation(32000)[:scanned_ports], scanned_vms)
            parts.append(_attempt(np.zeros(len(victim), np.int64), victim, port))
        records = np.concatenate(parts)
        records["start_ns"], records["end_ns"] = start_ns, start_ns + SECOND
        records["flow_id"] = np.arange(len(records))
        octets = int(records["c2s_bytes"].sum() + records["s2c_bytes"].sum())
        packets = int(records["c2s_packets"].sum() + records["s2c_packets"].sum())
        fates = {**dict.fromkeys(FATES, 0), "flow": packets}
        notes = {name: 0 for name in native.COUNTERS.names or () if name not in ("received", "ip_bytes", "fate")}
        counters = Counters(packets, octets, fates, notes)
        return Snapshot(start_ns, start_ns + 10 * SECOND, records, np.zeros(0, BIN), counters)

    def _talk(self, client: NumpyArray, server: NumpyArray, port: NumpyArray) -> NumpyArray:
        records = _records(client, server, port)
        count = len(records)
        for side in ("c2s", "s2c"):
            records[f"{side}_packets"] = records[f"{side}_data_packets"] = self._chance.integers(2, 40, count)
            records[f"{side}_bytes"] = 600 * records[f"{side}_packets"]
            records[f"{side}_payload_bytes"] = 560 * records[f"{side}_packets"]
        records["flags"] |= native.ANSWERED
        records["tcp_state"] = native.STATES.index("established")
        records["response_count"], records["response_sum_ns"] = 3, 3_000_000
        return records


def _records(client: NumpyArray, server: NumpyArray, port: NumpyArray) -> NumpyArray:
    records = np.zeros(len(client), RECORD)
    number_ends(records, client, server)
    records["vni"], records["protocol"], records["ip_version"] = 5000 + client % TENANTS, TCP, 4
    records["client_port"], records["server_port"] = 40000, port
    records["flags"] = native.HAS_PORTS | native.HAS_VNI | native.NEW | native.SEEN["c2s"] | native.SEEN["s2c"]
    records["role_source"] = native.ROLES.index("syn")
    records["handshake_server_ns"] = records["handshake_client_ns"] = native.ABSENT
    return records


def _attempt(client: NumpyArray, server: NumpyArray, port: NumpyArray) -> NumpyArray:
    """A SYN and the RST that answers it."""
    records = _records(client, server, port)
    records["c2s_packets"], records["c2s_bytes"] = 1, 60
    records["s2c_packets"], records["s2c_bytes"] = 1, 40
    records["flags"] |= native.REFUSED
    records["tcp_state"] = native.STATES.index("reset")
    return records
