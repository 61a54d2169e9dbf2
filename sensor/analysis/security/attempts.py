"""First contacts: who tried whom on which service, and whether it worked. Scan detection stands on them.

A TCP attempt is a SYN, a UDP one the first packet to a host's port, an ICMP one an echo request, an ARP one (and in
IPv6 a neighbour solicitation) the question for a host on the segment. What is not answered within a time has failed;
what is too young for that is held for the next window. Silence counts only where the mirror has shown that answers on
that way can be seen at all: of a mirror that shows one direction, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.findings import Scene, Severity
from sensor.analysis.limit import in_ns
from sensor.analysis.security.ledger import Index, Ledger
from sensor.grouping import group
from sensor.identity.domains import domain_of
from sensor.identity.endpoints import address, end_text, having
from sensor.identity.heard import Heard
from sensor.identity.registry import EXTERNAL, MULTICAST, NOT_ONE_VM, UNSPECIFIED
from sensor.keys import Keys, distinct, key_of, mix
from sensor.native import NumpyArray
from sensor.protocols import ICMP, ICMP6, TCP, UDP, protocol_name

Mask = npt.NDArray[np.bool_]

MOST_HELD = 100_000
"""Attempts held for the next window. Of more, the rest is not judged, and counted."""

MOST_NEW = 200_000
"""Failures looked at in a window. Of more, those of sources with a single one go first: they are a flood's."""

MOST_WAYS = 200_000
"""Ways on which the mirror has shown packets: from a tenant to a VM, and from a tenant to a tenant."""

ECHO, ARP = ICMP << 16, 1 << 24
"""Services that have no port; those that have are ``protocol << 16 | port``."""

TRACE_PORTS = (33434, 33534)
"""traceroute counts the UDP port up from the first of these: not a scan, though nobody answers."""

NOBODY = (MULTICAST, UNSPECIFIED, "other")

_BOTH = native.SEEN["c2s"] | native.SEEN["s2c"]
_SYN = native.ROLES.index("syn")
_SYN_SENT, _RESET = (native.STATES.index(state) for state in ("syn_sent", "reset"))
_LIVING = [native.STATES.index(state) for state in ("syn_received", "established", "fin_wait", "closed")]

ATTEMPT = np.dtype(
    [
        ("flow_id", "u8"), ("start_ns", "i8"), ("source", "u8"), ("target", "u8"), ("service", "i8"), ("way", "u8"),
        ("ways", "u8"), ("answered", "?"), ("refused", "?"), ("source_vm", "i4"), ("target_vm", "i4"),
        ("source_ip", "u1", (16,)), ("target_ip", "u1", (16,)), ("version", "u1"), ("book", "i8"),
    ]
)  # fmt: skip
"""One attempt. ``way`` is from the target's tenant to the source, ``ways`` from tenant to tenant."""

WAY = np.dtype([("key", "u8"), ("last_ns", "i8")])

# ---- keys


class Ends(NamedTuple):
    """Of each record the key of its client and of its server, of their tenants, and whether it is about two hosts."""

    client: Keys
    server: Keys
    client_tenant: Keys
    server_tenant: Keys
    hosts: Mask


def ends_of(scene: Scene) -> Ends:
    """A VM's key is that of its name; outside, where all have one name, that of the address."""
    parties, records = scene.parties, scene.records
    tenant = np.array([key_of(tenant) for tenant in parties.tenants], np.uint64)
    outside = np.array([name == EXTERNAL for name in parties.names], bool)
    host = np.array([name not in NOBODY for name in parties.names], bool)
    keys = []
    for side, vm in (("client", parties.client), ("server", parties.server)):
        key = parties.keys[vm]
        far = outside[vm]
        words = np.ascontiguousarray(records[f"{side}_ip"][far]).view(np.uint64).reshape(-1, 2)
        key[far] = mix(words[:, 0], words[:, 1])
        keys.append(key)
    hosts = host[parties.client] & host[parties.server] & (records["server_mac"][:, 0] & 1 == 0)
    return Ends(keys[0], keys[1], tenant[parties.client], tenant[parties.server], hosts)


def service_label(service: int) -> str:
    """``tcp/22``, ``udp/53``, ``icmp/echo`` or ``arp``."""
    if service == ARP:
        return "arp"
    if service == ECHO:
        return "icmp/echo"
    return f"{protocol_name(service >> 16)}/{service & 0xFFFF}"


def severity_from(tenant: str) -> Severity:
    """An attack from outside is a warning; one from a VM is critical: that VM is taken over, or is about to be used."""
    return "warning" if tenant == EXTERNAL else "critical"


def tenant_between(source: str, target: str) -> str:
    """Whom an event concerns: the tenant whose VM attacks; of an attack from outside, the one that is attacked."""
    return target if source == EXTERNAL else source


# ---- attempts


class Book(NamedTuple):
    """The names of a window; what is held of it may need them in the next."""

    names: list[str]
    tenants: list[str]


@dataclass(frozen=True)
class Attempts:
    """What has been decided in a window (dtype ``ATTEMPT``): of each success and failure one row."""

    rows: NumpyArray
    books: dict[int, Book]

    def name(self, i: int, side: str) -> str:
        """The ``source`` or ``target`` of an attempt: a VM, or an outside address."""
        row = self.rows[i]
        name = self.books[int(row["book"])].names[int(row[f"{side}_vm"])]
        return address(row[f"{side}_ip"], int(row["version"])) if name == EXTERNAL else name

    def tenant(self, i: int, side: str) -> str:
        """The tenant of the ``source`` or ``target``."""
        row = self.rows[i]
        return self.books[int(row["book"])].tenants[int(row[f"{side}_vm"])]


class AttemptWatch:
    """Follows attempts until they are decided, by the limits ``attempt_wait`` and ``scan_memory``."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self.unjudged = 0
        """Silent attempts on ways on which the mirror has shown nothing."""
        self._limits = limits
        self._ways = Ledger(WAY, MOST_WAYS)
        self._held: NumpyArray = np.zeros(0, ATTEMPT)
        self._books: dict[int, Book] = {}
        self._asked: dict[_Question, Heard] = {}
        self._windows = 0

    def look(self, scene: Scene) -> Attempts:
        """The attempts that this window decides."""
        self._windows += 2
        ends = ends_of(scene)
        self._see(scene, ends)
        answered = _answered(scene.records) & ends.hosts
        failing, refused = _failing(scene, ends)
        rows = [
            self._rows(scene, ends, self._without_flood(failing, ends), refused),
            self._judged(scene.records, answered),
        ]
        late = np.concatenate(rows)
        young = ~late["refused"] & (late["start_ns"] > scene.end_ns - in_ns(self._limits, "attempt_wait"))
        successes = self._rows(scene, ends, _once(ends, answered, scene.records), refused)
        successes["answered"] = True
        books = {**self._books, self._windows: Book(scene.parties.names, scene.parties.tenants)}
        asked, books[self._windows + 1] = self._asking(scene)
        self._hold(late[young], books)
        return Attempts(np.concatenate([successes, self._told(late[~young]), self._told(asked)]), books)

    def _see(self, scene: Scene, ends: Ends) -> None:
        """Note on which ways packets were seen."""
        records = scene.records
        keys = []
        for sent, receiver, of_receiver, of_sender in (
            ("c2s", ends.server, ends.server_tenant, ends.client_tenant),
            ("s2c", ends.client, ends.client_tenant, ends.server_tenant),
        ):
            seen = ends.hosts & (records[f"{sent}_packets"] > 0)
            keys += [distinct(mix(of[seen], of_sender[seen])) for of in (receiver, of_receiver)]
        self._note(np.concatenate(keys), scene.end_ns)

    def _note(self, keys: Keys, now_ns: int) -> None:
        self._ways.keep(np.abs(now_ns - self._ways.rows["last_ns"]) <= in_ns(self._limits, "scan_memory"))
        at, _ = self._ways.at(distinct(keys))
        self._ways.rows["last_ns"][at] = now_ns
        self._ways.bound()

    def _told(self, failed: NumpyArray) -> NumpyArray:
        """Failures that are sure: refused, or silent where an answer would have been seen.

        A TCP client that was answered goes on, which shows also when its answers do not; so for TCP it is enough that
        the mirror shows other VMs of the two tenants. Of others, only what came to this source itself counts.
        """
        tcp = failed["service"] >> 16 == TCP
        sure = failed["answered"] | failed["refused"] | self._shown(failed["way"])
        sure |= tcp & self._shown(failed["ways"])
        self.unjudged += int((~sure).sum())
        told: NumpyArray = failed[sure]
        return told

    def _shown(self, keys: Keys) -> Mask:
        same = group(keys)
        return self._ways.place(keys[same.first])[1][same.of_row]

    def _without_flood(self, failing: Mask, ends: Ends) -> Index:
        """The failing records, fewer where there are very many."""
        found = np.flatnonzero(failing)
        if len(found) > MOST_NEW:
            _, inverse, count = np.unique(ends.client[found], return_inverse=True, return_counts=True)
            wanted = found[count[inverse.reshape(-1)] > 1][:MOST_NEW]
            self.forgotten += len(found) - len(wanted)
            found = wanted
        return found

    def _rows(self, scene: Scene, ends: Ends, which: Index, refused: Mask) -> NumpyArray:
        records = scene.records
        rows = np.zeros(len(which), ATTEMPT)
        for name in ("flow_id", "start_ns"):
            rows[name] = records[name][which]
        rows["source"], rows["target"], rows["refused"] = ends.client[which], ends.server[which], refused[which]
        rows["service"], rows["version"] = _service(records)[which], records["ip_version"][which]
        rows["way"] = mix(rows["source"], ends.server_tenant[which])
        rows["ways"] = mix(ends.client_tenant[which], ends.server_tenant[which])
        rows["source_vm"], rows["target_vm"] = scene.parties.client[which], scene.parties.server[which]
        rows["source_ip"], rows["target_ip"] = records["client_ip"][which], records["server_ip"][which]
        rows["book"] = self._windows
        return rows

    def _judged(self, records: NumpyArray, answered: Mask) -> NumpyArray:
        """Those held from the last window that this one does not answer."""
        held, self._held = self._held, self._held[:0]
        if not len(held):
            return held
        held = held[~np.isin(held["flow_id"], records["flow_id"][answered])]
        refused = records["flow_id"][_refused(records)]
        held["refused"] |= np.isin(held["flow_id"], refused)
        return held

    def _hold(self, young: NumpyArray, books: dict[int, Book]) -> None:
        self.forgotten += max(len(young) - MOST_HELD, 0)
        self._held = young[:MOST_HELD].copy()
        self._books = {number: books[number] for number in np.unique(self._held["book"]).tolist()}

    def _asking(self, scene: Scene) -> tuple[NumpyArray, Book]:
        """Questions for hosts on the segment that are decided, and the names of who asked for whom."""
        asked = {**self._asked}
        for said in scene.heard:
            if said.kind == "request" and said.target and len(asked) < MOST_HELD:
                asked.setdefault(_Question(domain_of(said.vlan, said.vni).name, said.mac, said.target), said)
        if not asked:
            self._asked = {}
            return np.zeros(0, ATTEMPT), Book([], [])
        replied, present = _there(scene, {question.target for question in asked})
        old_ns = scene.end_ns - in_ns(self._limits, "attempt_wait")
        decided = [
            question
            for question, said in asked.items()
            if (question.domain, question.target) in present or said.ts_ns <= old_ns
        ]
        self._asked = {question: said for question, said in asked.items() if question not in set(decided)}
        return self._questions(scene, {question: asked[question] for question in decided}, replied, present)

    def _questions(
        self, scene: Scene, decided: dict[_Question, Heard], replied: set[_Host], present: set[_Host]
    ) -> tuple[NumpyArray, Book]:
        who = _askers(scene, decided)
        rows, book, seen = np.zeros(len(decided), ATTEMPT), Book([], []), []
        kept = 0
        for question in decided:
            asker = who[question.domain, question.mac]
            if asker is None:
                continue
            row, host = rows[kept], (question.domain, question.target)
            row["source"] = row["way"] = key_of(*asker)
            row["target"], row["service"], row["book"] = key_of(*host), ARP, self._windows + 1
            row["answered"] = host in present
            row["source_vm"], row["target_vm"] = len(book.names), len(book.names) + 1
            book.names.extend((asker[1], question.target))
            book.tenants.extend((asker[0], asker[0]))
            if host in replied:
                seen += [key_of(*asker), *_ways_to(asker)]
            kept += 1
        if seen:
            self._note(np.array(seen, np.uint64), scene.end_ns)
        return rows[:kept], book


def _ways_to(asker: tuple[str, str]) -> list[int]:
    """A reply on the segment shows that what its own tenant's VMs answer can be seen."""
    source, tenant = (np.array([key], np.uint64) for key in (key_of(*asker), key_of(asker[0])))
    return [int(mix(source, tenant)[0]), int(mix(tenant, tenant)[0])]


# ---- what a record says of an attempt


def _service(records: NumpyArray) -> npt.NDArray[np.int64]:
    protocol = records["protocol"].astype(np.int64)
    with_port = protocol << 16 | records["server_port"]
    return np.where((protocol == ICMP) | (protocol == ICMP6), ECHO, with_port)


def _is_echo(records: NumpyArray) -> Mask:
    """Echo requests: type 8 (RFC 792), in IPv6 128 (RFC 4443)."""
    asks = records["client_port"]
    result: Mask = ((records["protocol"] == ICMP) & (asks == 8)) | ((records["protocol"] == ICMP6) & (asks == 128))
    return result


def _answered(records: NumpyArray) -> Mask:
    """A service was there: by its answers, or, where those are not mirrored, by its TCP client going on."""
    seen, protocol, state = records["flags"] & _BOTH, records["protocol"], records["tcp_state"]
    both, answered = seen == _BOTH, records["flags"] & native.ANSWERED != 0
    refused = records["flags"] & native.REFUSED != 0
    living = np.isin(state, _LIVING)
    tcp = answered | (living & ((records["role_source"] == _SYN) | both))
    others = ((protocol == UDP) | _is_echo(records)) & both
    result: Mask = np.where(protocol == TCP, tcp & ~refused, others) & (records["flags"] & native.OVERFLOW == 0)
    return result


def _refused(records: NumpyArray) -> Mask:
    """TCP: a RST came for the SYN, perhaps after the client's own."""
    reset = (records["tcp_state"] == _RESET) & (records["flags"] & _BOTH == _BOTH)
    reset &= (records["role_source"] == _SYN) & (records["flags"] & native.ANSWERED == 0)
    result: Mask = (records["protocol"] == TCP) & (reset | (records["flags"] & native.REFUSED != 0))
    return result


def _failing(scene: Scene, ends: Ends) -> tuple[Mask, Mask]:
    """Attempts of this window without an answer so far, and which of all records were refused."""
    records = scene.records
    protocol, flags, state = records["protocol"], records["flags"], records["tcp_state"]
    begun = (flags & native.NEW != 0) & (flags & native.SEEN["c2s"] != 0) & (flags & native.OVERFLOW == 0) & ends.hosts
    refused = _refused(records)
    silent_tcp = (records["role_source"] == _SYN) & (state == _SYN_SENT) & (flags & native.ANSWERED == 0)
    one_way = flags & native.SEEN["s2c"] == 0
    udp = (protocol == UDP) & one_way & (flags & native.HAS_PORTS != 0) & ~_traces(records, ends)
    refused |= udp & _unreachable(records, ends)
    silent = ((protocol == TCP) & silent_tcp) | udp | (_is_echo(records) & one_way)
    return begun & (refused | silent), refused


def _unreachable(records: NumpyArray, ends: Ends) -> Mask:
    """Whose server has told the client by ICMP that something is unreachable (RFC 792, RFC 4443)."""
    kind, protocol = records["client_port"], records["protocol"]
    errors = ((protocol == ICMP) & (kind == 3)) | ((protocol == ICMP6) & (kind == 1))
    told = mix(ends.server[errors], ends.client[errors])
    return np.isin(mix(ends.client, ends.server), told) if len(told) else np.zeros(len(records), bool)


def _traces(records: NumpyArray, ends: Ends) -> Mask:
    """UDP of traceroute: by its ports, or by the ICMP errors about the hops on the way that it brings."""
    port, kind, protocol = records["server_port"], records["client_port"], records["protocol"]
    exceeded = ((protocol == ICMP) & (kind == 11)) | ((protocol == ICMP6) & (kind == 3))
    traced = (port >= TRACE_PORTS[0]) & (port <= TRACE_PORTS[1])
    if exceeded.any():
        traced |= (port >= TRACE_PORTS[0]) & np.isin(ends.client, ends.server[exceeded])
    return traced


def _once(ends: Ends, answered: Mask, records: NumpyArray) -> Index:
    """Of each success one record, however many there were."""
    found = np.flatnonzero(answered)
    keys = mix(ends.client[found], ends.server[found], _service(records)[found])
    return found[np.sort(group(keys).first)]


# ---- questions on the segment


class _Question(NamedTuple):
    domain: str
    mac: str
    target: str


_Host = tuple[str, str]


def _there(scene: Scene, targets: set[str]) -> tuple[set[_Host], set[_Host]]:
    """Of those asked for, who has replied, and who is there: heard, or sent packets, which needs its MAC address."""
    replied, present = set(), set()
    for said in scene.heard:
        if said.ip in targets:
            host = (domain_of(said.vlan, said.vni).name, said.ip)
            present.add(host)
            if said.reply:
                replied.add(host)
    endpoints = scene.parties.endpoints
    for i in having(endpoints, targets):
        end = end_text(endpoints[i].tobytes())
        present.add((end.domain.name, end.ip))
    return replied, present


def _askers(scene: Scene, decided: dict[_Question, Heard]) -> dict[tuple[str, str], tuple[str, str] | None]:
    """Tenant and name of who asked, by domain and MAC; None for a router, which asks for others."""
    askers: dict[tuple[str, str], tuple[str, str] | None] = {}
    for question, said in decided.items():
        askers.setdefault((question.domain, question.mac), _by_inventory(scene, said))
    wanted = {mac for _, mac in askers}
    parties, endpoints = scene.parties, scene.parties.endpoints
    numbers = np.array([int(mac.replace(":", ""), 16) for mac in sorted(wanted)], np.int64)
    octets = endpoints["mac"].astype(np.int64)
    ours = np.isin((octets << np.arange(40, -8, -8)).sum(axis=1), numbers)
    for i in np.flatnonzero(ours).tolist():
        end, vm = end_text(endpoints[i].tobytes()), int(parties.vm_of[i])
        key = (end.domain.name, end.mac)
        if key not in askers or askers[key] is None:
            continue
        if not parties.single[i]:
            askers[key] = None
        elif parties.names[vm] not in (*NOBODY, EXTERNAL):
            askers[key] = (parties.tenants[vm], parties.names[vm])
    return askers


def _by_inventory(scene: Scene, said: Heard) -> tuple[str, str] | None:
    """As the inventory calls the asker, else its address."""
    inventory = scene.inventory
    entry = inventory.match(said.vlan, said.vni, said.ip, said.mac) if said.ip else None
    entry = entry or inventory.mac_match(said.vlan, said.vni, said.mac)
    if entry is not None:
        return None if entry.role in NOT_ONE_VM else (entry.tenant, entry.vm)
    domain = domain_of(said.vlan, said.vni).name
    return inventory.tenant_of_domain(said.vlan, said.vni) or domain, said.ip or said.mac
