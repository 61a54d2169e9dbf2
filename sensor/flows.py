"""The flow record: a finished flow as one JSON object, with the fields and meanings that other programs rely on."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

from sensor import native
from sensor.identity.endpoints import address
from sensor.identity.parties import SCOPES, Parties, resolve
from sensor.identity.registry import EXTERNAL, Registry
from sensor.metrics import DIRECTION, Metric
from sensor.native import NumpyArray
from sensor.protocols import ICMP, ICMP6, TCP, UDP, WITH_PORTS, protocol_name

# Types that have a counterpart, by protocol: the other types are one-way, and Community ID then keeps their order.
_ICMP_PAIRED = {
    ICMP: {0, 8, 9, 10, 13, 14, 15, 16, 17, 18},
    ICMP6: {128, 129, 130, 131, 133, 134, 135, 136, 139, 140, 144, 145},
}


def flow_lines(records: NumpyArray, registry: Registry) -> Iterator[str]:
    """One JSON line for each finished flow (records of dtype ``RECORD``)."""
    parties = resolve(records, registry)
    for i, record in enumerate(records):
        yield json.dumps(flow_object(record, parties, i), separators=(",", ":")) + "\n"


def flow_object(record: Any, parties: Parties, i: int) -> dict[str, Any]:
    """The flow record of record number ``i``."""
    flow = _identity(record)
    flow.update(_names(parties, i))
    both = all(record["flags"] & bit for bit in native.SEEN.values())
    for direction in ("c2s", "s2c"):
        seen = bool(record["flags"] & native.SEEN[direction])
        for metric in DIRECTION:
            flow[f"{direction}_{metric.name}"] = _direction_value(record, direction, metric, seen, both)
    flow.update(_times(record))
    return flow


def _identity(record: Any) -> dict[str, Any]:
    version, outer = int(record["ip_version"]), int(record["outer_ip_version"])
    has_ports = bool(record["flags"] & native.HAS_PORTS) and record["protocol"] in WITH_PORTS
    return {
        "start_ns": int(record["start_ns"]),
        "end_ns": int(record["end_ns"]),
        "protocol": protocol_name(int(record["protocol"])),
        "client_ip": address(record["client_ip"], version),
        "client_port": int(record["client_port"]) if has_ports else None,
        "server_ip": address(record["server_ip"], version),
        "server_port": int(record["server_port"]) if has_ports else None,
        "role_source": native.ROLES[record["role_source"]],
        "client_mac": _mac(record["client_mac"]),
        "server_mac": _mac(record["server_mac"]),
        "vlan": record["vlan"][: record["vlan_count"]].tolist(),
        "vni": int(record["vni"]) if record["flags"] & native.HAS_VNI else None,
        "tunnel": native.TUNNELS[record["tunnel"]] if record["tunnel"] else None,
        "outer_src": address(record["outer_src"], outer) if outer else None,
        "outer_dst": address(record["outer_dst"], outer) if outer else None,
        "tcp_state": native.STATES[record["tcp_state"]] if record["protocol"] == TCP else None,
        "end_reason": native.ENDS[record["end_reason"]],
        "community_id": community_id(record),
    }


def _names(parties: Parties, i: int) -> dict[str, str | None]:
    client, server = parties.client[i], parties.server[i]
    tenants = (parties.tenants[client], parties.tenants[server])
    return {
        "client_vm": parties.names[client],
        "server_vm": parties.names[server],
        "client_tenant": None if tenants[0] == EXTERNAL else tenants[0],
        "server_tenant": None if tenants[1] == EXTERNAL else tenants[1],
        "scope": SCOPES[parties.scope[i]],
    }


def _mac(octets: NumpyArray) -> str | None:
    return ":".join(f"{octet:02x}" for octet in octets) if octets.any() else None


def microseconds(ns: float) -> float:
    """Nanoseconds as microseconds that keep the nanosecond."""
    return round(float(ns) / 1000, 3)


def _direction_value(record: Any, direction: str, metric: Metric, seen: bool, both: bool) -> int | float | None:
    protocol = int(record["protocol"])
    if metric.needs == "samples":
        return _measured(record, direction, metric.name, protocol == TCP and seen)
    measurable = {
        "any": True,
        "payload": protocol in (TCP, UDP),
        "tcp_sent": protocol == TCP and seen,
        "tcp_both": protocol == TCP and both,
    }[metric.needs]
    if not measurable:
        return None
    if metric.name == "unsure":
        return bool(record["flags"] & native.UNSURE[direction])
    return int(record[f"{direction}_{metric.record}"])


def _measured(record: Any, direction: str, name: str, tcp: bool) -> float | None:
    if name == "loss_ratio":
        return _loss_ratio(record, direction) if tcp else None
    kind, statistic, _ = name.split("_")
    return _statistic(record, (f"{direction}_{kind}",), statistic)


def _loss_ratio(record: Any, direction: str) -> float | None:
    def of(field: str) -> int:
        return int(record[f"{direction}_{field}"])

    sent = of("data_packets") + of("upstream_losses")
    lost = max(of("retransmissions") - of("spurious"), 0) + of("upstream_losses")
    return lost / sent if sent else None


def _statistic(record: Any, kinds: tuple[str, ...], statistic: str) -> float | None:
    """``min``, ``avg`` or ``max`` in us of all the samples of some kinds (``c2s_rtt``); None when there is none."""
    sampled = [kind for kind in kinds if record[f"{kind}_count"]]
    if not sampled:
        return None
    if statistic == "avg":
        total, count = (sum(int(record[f"{kind}_{part}"]) for kind in sampled) for part in ("sum_ns", "count"))
        return microseconds(total / count)
    return microseconds((min if statistic == "min" else max)(int(record[f"{kind}_{statistic}_ns"]) for kind in sampled))


def _times(record: Any) -> dict[str, int | float | None]:
    protocol, count = int(record["protocol"]), int(record["response_count"])
    times: dict[str, int | float | None] = {
        f"handshake_{side}_us": None if ns == native.ABSENT else microseconds(ns)
        for side, ns in ((side, int(record[f"handshake_{side}_ns"])) for side in ("server", "client"))
    }
    both = all(record["flags"] & bit for bit in native.SEEN.values())
    times["response_time_count"] = count if protocol in (TCP, UDP) and both else None
    times["response_time_avg_us"] = microseconds(int(record["response_sum_ns"]) / count) if count else None
    times["response_time_max_us"] = microseconds(int(record["response_max_ns"])) if count else None
    for statistic in ("min", "avg", "max"):
        times[f"transit_{statistic}_us"] = _statistic(record, ("c2s_transit", "s2c_transit"), statistic)
    return times


def community_id(record: Any, seed: int = 0) -> str:
    """Community ID v1 of a flow (https://github.com/corelight/community-id-spec)."""
    size = 4 if record["ip_version"] == 4 else 16
    protocol = int(record["protocol"])
    ends = [
        (record[f"{side}_ip"].tobytes()[:size], int(record[f"{side}_port"])) for side in ("client", "server")
    ]  # fmt: skip
    has_ports = bool(record["flags"] & native.HAS_PORTS)
    one_way = has_ports and protocol in _ICMP_PAIRED and ends[0][1] not in _ICMP_PAIRED[protocol]
    if not one_way:
        ends.sort()
    text = struct.pack("!H", seed) + ends[0][0] + ends[1][0] + struct.pack("!BB", protocol, 0)
    if has_ports:
        text += struct.pack("!HH", ends[0][1], ends[1][1])
    return "1:" + base64.b64encode(hashlib.sha1(text, usedforsecurity=False).digest()).decode()
