"""Who needs whom in a window: edges from a client VM to a service of a server VM, told from answered requests.

A dependency is told from what the two said to each other, as in Orion (Chen et al., OSDI 2008) and Sherlock (Bahl et
al., SIGCOMM 2007), which start from the same pairs of client and service. What was only asked for and not answered,
refused or scanned proves none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.quantiles import Floats, merged_quantiles
from sensor.analysis.trust import ratio
from sensor.grouping import Groups, group
from sensor.identity.parties import UNKNOWN, Parties
from sensor.keys import Keys, key_of, mix
from sensor.native import NumpyArray
from sensor.protocols import TCP, UDP, protocol_name
from sensor.services import EPHEMERAL_LOWEST, service_name
from sensor.snapshot import Snapshot

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

DYNAMIC = service_name(protocol_name(TCP), EPHEMERAL_LOWEST)
"""The service of all ports that are no service of their own."""

_PORTS = 65536
_ENDS = {word: number for number, word in enumerate(native.ENDS)}
_STATES = {word: number for number, word in enumerate(native.STATES)}
_ROLES = {word: number for number, word in enumerate(native.ROLES)}


Name = tuple[str, str, str, str, str, str]
"""Client VM, its tenant, server VM, its tenant, protocol, service."""


def keys_of(names: Sequence[Name]) -> Keys:
    """The keys that ``Edges.keys`` has for edges of these names."""
    words = [
        (key_of(client_tenant, client), key_of(server_tenant, server), key_of(*service))
        for client, client_tenant, server, server_tenant, *service in names
    ]
    return mix(*np.array(words, np.uint64).reshape(-1, 3).T)


@dataclass(frozen=True)
class Edges:
    """What clients did at services in one window; all arrays have an entry an edge.

    ``client`` and ``server`` are indices into the parties' names, ``service`` into ``services`` (protocol, service).
    ``proven``: a request was answered in this window. The others are here for what failed: it counts where the
    dependency is known from other windows. ``flows`` are those that were answered, ``connections`` those that were
    opened in this window. RTT is that from the tap to the server and back. A float is NaN where nothing was measured.
    """

    parties: Parties
    services: list[tuple[str, str]]
    client: Ints
    server: Ints
    service: Ints
    scope: Ints
    proven: Mask
    connections: Ints
    failed: Ints
    flows: Ints
    c2s_bytes: Ints
    s2c_bytes: Ints
    response_count: Ints
    response_avg_us: Floats
    response_p95_us: Floats
    rtt_avg_us: Floats
    handshake_us: Floats

    def __len__(self) -> int:
        return len(self.client)

    def keys(self) -> Keys:
        """A key of each edge, the same in every window."""
        who = self.parties.keys
        what = np.array([key_of(*service) for service in self.services], np.uint64)
        return mix(who[self.client], who[self.server], what[self.service])

    def named(self, which: Ints) -> list[Name]:
        """These edges by their names."""
        names, tenants = self.parties.names, self.parties.tenants
        ends = (self.client[which].tolist(), self.server[which].tolist(), self.service[which].tolist())
        return [
            (names[client], tenants[client], names[server], tenants[server], *self.services[service])
            for client, server, service in zip(*ends, strict=True)
        ]


@dataclass(frozen=True)
class _Told:
    """What each record tells of its dependency."""

    proven: Mask
    opened: Mask
    answered: Mask
    failed: Mask


def dependency_edges(snapshot: Snapshot, parties: Parties) -> Edges:
    """The edges of a window, and what failed in it."""
    told = _tell(snapshot, parties)
    used = np.flatnonzero(told.answered | told.failed)
    records = snapshot.records
    services, service = _services(records["protocol"][used], records["server_port"][used])
    client, server = parties.client[used].astype(np.int64), parties.server[used].astype(np.int64)
    groups = group((client * len(parties.names) + server) * max(len(services), 1) + service)
    first, total = groups.first, groups.sum

    def of(name: str) -> NumpyArray:
        # A field at a time: a record is long, and most of it is not looked at.
        result: NumpyArray = records[name][used]
        return result

    response_count, rtt_count = total(of("response_count")), total(of("c2s_rtt_count"))
    handshake_ns = of("handshake_server_ns")
    shaken = handshake_ns != native.ABSENT
    return Edges(
        parties,
        services,
        client=client[first],
        server=server[first],
        service=service[first],
        scope=parties.scope[used][first].astype(np.int64),
        proven=total(told.proven[used]) > 0,
        connections=total(told.opened[used]),
        failed=total(told.failed[used]),
        flows=total(told.answered[used]),
        c2s_bytes=total(of("c2s_bytes")),
        s2c_bytes=total(of("s2c_bytes")),
        response_count=response_count,
        response_avg_us=ratio(total(of("response_sum_ns")), response_count) / 1e3,
        response_p95_us=_response_p95(snapshot, used, groups),
        rtt_avg_us=ratio(total(of("c2s_rtt_sum_ns")), rtt_count) / 1e3,
        handshake_us=ratio(total(np.where(shaken, handshake_ns, 0)), total(shaken)) / 1e3,
    )


def _response_p95(snapshot: Snapshot, used: npt.NDArray[np.intp], groups: Groups) -> Floats:
    group_of_record = np.full(len(snapshot.records), -1, np.int64)
    group_of_record[used] = groups.of_row
    bins = snapshot.bins[snapshot.bins["histogram"] == native.HISTOGRAMS.index("response")]
    group_of_bin = group_of_record[bins["record"]]
    bins, group_of_bin = bins[group_of_bin >= 0], group_of_bin[group_of_bin >= 0]
    bucket, count = bins["bucket"].astype(np.int64), bins["count"].astype(np.int64)
    result: Floats = merged_quantiles(group_of_bin, bucket, count, len(groups), (0.95,))[:, 0] / 1e3
    return result


# ---- what a record tells


def _tell(snapshot: Snapshot, parties: Parties) -> _Told:
    records = snapshot.records
    flags = records["flags"]
    ours = (parties.client != parties.server) & (parties.scope != UNKNOWN) & (flags & native.OVERFLOW == 0)
    tcp, udp = ours & (records["protocol"] == TCP), ours & (records["protocol"] == UDP)
    tcp_told, udp_told = _tell_tcp(records, tcp), _tell_udp(records, udp)
    return _Told(
        tcp_told.proven | udp_told.proven,
        tcp_told.opened | udp_told.opened,
        tcp_told.answered | udp_told.answered,
        tcp_told.failed | udp_told.failed,
    )


def _tell_tcp(records: NumpyArray, tcp: Mask) -> _Told:
    """TCP, with what makes a scan differ from a client: a client goes on to say something.

    A half-open scan ends after the SYN-ACK, a connect scan closes at once, and a spoofed flood gets SYN-ACKs for SYNs
    that nobody has sent. None of them proves that anyone needs the service.
    """
    flags, state = records["flags"], records["tcp_state"]
    known_server = tcp & (records["role_source"] != _ROLES["first"]) & (flags & native.REFUSED == 0)
    seen_client, seen_server = _seen(flags)
    handshake = flags & native.ANSWERED != 0
    client_talks, server_talks = records["c2s_payload_bytes"] > 0, records["s2c_payload_bytes"] > 0
    # Where the mirror shows only the server, no ACK of the client ends the handshake; its data does.
    live = (state == _STATES["syn_received"]) & server_talks & ~seen_client
    live |= np.isin(state, [_STATES["established"], _STATES["fin_wait"], _STATES["closed"]])
    reset = state == _STATES["reset"]
    heard = handshake | server_talks | (records["c2s_rtt_count"] > 0)
    request = client_talks & heard & (live | (reset & server_talks))
    one_sided = (seen_client != seen_server) & live & (client_talks | server_talks)
    both = handshake | (seen_client & seen_server)
    answered = known_server & _with_packets(records) & ((live & (both | one_sided)) | (reset & both))
    gave_up = tcp & _given_up(records) & (state == _STATES["syn_sent"])
    return _Told(
        proven=known_server & (request | one_sided),
        opened=_opened(records, answered),
        answered=answered,
        failed=gave_up | (tcp & _refused_now(records)),
    )


def _opened(records: NumpyArray, answered: Mask) -> Mask:
    """Connections whose handshake was completed in this window, though the SYN may have come in the one before.

    The client's half of a handshake is in the record of the window in which its ACK came, and in no other.
    """
    now = (records["flags"] & native.NEW != 0) | (records["handshake_client_ns"] != native.ABSENT)
    result: Mask = answered & now & (records["flags"] & native.ANSWERED != 0)
    return result


def _refused_now(records: NumpyArray) -> Mask:
    """Attempts whose RST came in this window."""
    result: Mask = (records["flags"] & native.REFUSED != 0) & (records["s2c_packets"] > 0)
    return result


def _tell_udp(records: NumpyArray, udp: Mask) -> _Told:
    """UDP: request and response. Between two dynamic ports nobody can tell who serves whom."""
    flags = records["flags"]
    seen_client, seen_server = _seen(flags)
    told = (records["role_source"] != _ROLES["first"]) | (records["server_port"] < EPHEMERAL_LOWEST)
    answered = udp & told & seen_client & seen_server & _with_packets(records)
    return _Told(
        proven=answered,
        opened=answered & (flags & native.NEW != 0),
        answered=answered,
        failed=udp & told & _given_up(records) & seen_client & ~seen_server,
    )


def _seen(flags: NumpyArray) -> tuple[Mask, Mask]:
    return flags & native.SEEN["c2s"] != 0, flags & native.SEEN["s2c"] != 0


def _with_packets(records: NumpyArray) -> Mask:
    result: Mask = (records["c2s_packets"] > 0) | (records["s2c_packets"] > 0)
    return result


def _given_up(records: NumpyArray) -> Mask:
    """Flows that ended without an answer, in the record that says only that."""
    result: Mask = ~_with_packets(records) & np.isin(records["end_reason"], [_ENDS["idle"], _ENDS["reused"]])
    return result


def _services(protocol: NumpyArray, server_port: NumpyArray) -> tuple[list[tuple[str, str]], Ints]:
    """Protocol and service names, and for each record which of them it has."""
    port = np.minimum(server_port.astype(np.int64), EPHEMERAL_LOWEST)
    keys = protocol.astype(np.int64) * _PORTS + port
    same = group(keys)
    named = [_service(*divmod(key, _PORTS)) for key in keys[same.first].tolist()]
    place = {pair: number for number, pair in enumerate(sorted(set(named)))}
    index = np.array([place[pair] for pair in named], np.int64)
    return list(place), index[same.of_row]


def _service(protocol: int, port: int) -> tuple[str, str]:
    name = protocol_name(protocol)
    return name, service_name(name, port)
