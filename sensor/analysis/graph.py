"""Dependencies as a graph: who needs whom, added up over windows, with what each edge was like in each of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sensor.window import Report, Table, present

MOST_EDGES = 100_000
"""Edges kept; ``dropped`` counts the windows' points of further ones."""

MOST_WINDOWS = 1000
"""Windows kept of each edge, the latest; the sums are of all."""


class VM(NamedTuple):
    """A VM by its tenant and name; what is outside is ``external`` for both."""

    tenant: str
    name: str

    @property
    def label(self) -> str:
        """``tenant/name``; the name alone where both are the same."""
        return self.name if self.tenant == self.name else f"{self.tenant}/{self.name}"


class Key(NamedTuple):
    """An edge: a client needs a service of a server."""

    client: VM
    server: VM
    service: str

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.client.label} -> {self.server.label} {self.service}"


class Moment(NamedTuple):
    """An edge in one window. None: not measured."""

    start_ns: int
    end_ns: int
    attempts: int
    failed: int
    responses: int
    response_us: float | None
    """95th percentile of the response times."""
    handshake_us: float | None
    """The way to the server and back, without what the server does."""


@dataclass
class Edge:
    """What is known of an edge."""

    key: Key
    scope: str
    first_seen_ns: int
    last_seen_ns: int
    connections: int = 0
    failed: int = 0
    octets: int = 0
    responses: int = 0
    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=MOST_WINDOWS))

    @property
    def response_us(self) -> float | None:
        """Response time of the latest window that has one."""
        return next((moment.response_us for moment in reversed(self.moments) if moment.response_us is not None), None)


class Graph:
    """Feed it reports in the order of their time."""

    def __init__(self) -> None:
        self.edges: dict[Key, Edge] = {}
        self.dropped = 0
        self._needs: dict[VM, list[Edge]] = {}
        self._needed_by: dict[VM, list[Edge]] = {}

    def add(self, report: Report) -> None:
        """Take a window in."""
        for table in report.tables:
            if table.measurement == "dependency":
                self._add(table, report)

    def vms(self) -> list[VM]:
        """Everyone who needs or is needed, in order."""
        return sorted(self._needs.keys() | self._needed_by.keys())

    def find(self, name: str, tenant: str | None = None) -> list[VM]:
        """The VMs of this name, or of this ``tenant/name``."""
        return [vm for vm in self.vms() if name in (vm.name, vm.label) and tenant in (None, vm.tenant)]

    def needs(self, vm: VM) -> list[Edge]:
        """What it needs, the busiest first."""
        return sorted(self._needs.get(vm, ()), key=_busiest_first)

    def needed_by(self, vm: VM) -> list[Edge]:
        """Who needs it, the busiest first."""
        return sorted(self._needed_by.get(vm, ()), key=_busiest_first)

    def roots(self) -> list[VM]:
        """Where to begin in order to see everything: who is needed by nobody; of a circle, its first."""
        roots = [vm for vm in self.vms() if not self._needed_by.get(vm)]
        seen: set[VM] = set()
        for root in roots:
            self._reach(root, seen)
        for vm in self.vms():
            if vm not in seen:
                roots.append(vm)
                self._reach(vm, seen)
        return roots

    def _reach(self, vm: VM, seen: set[VM]) -> None:
        waiting = [vm]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += [edge.key.server for edge in self._needs.get(one, ())]

    def _add(self, table: Table, report: Report) -> None:
        for key, scope, values in _rows(table):
            edge = self.edges.get(key)
            if edge is None:
                if len(self.edges) >= MOST_EDGES:
                    self.dropped += 1
                    continue
                first_ns = int(values.get("first_seen") or report.start_ns)
                edge = self.edges[key] = Edge(key, scope, first_ns, report.end_ns)
                self._needs.setdefault(key.client, []).append(edge)
                self._needed_by.setdefault(key.server, []).append(edge)
            connections, failed = int(values.get("connections") or 0), int(values.get("failed") or 0)
            responses = int(values.get("response_count") or 0)
            edge.connections += connections
            edge.failed += failed
            edge.responses += responses
            edge.octets += int(values.get("c2s_bytes") or 0) + int(values.get("s2c_bytes") or 0)
            edge.last_seen_ns = max(edge.last_seen_ns, report.end_ns)
            edge.moments.append(
                Moment(report.start_ns, report.end_ns, connections + failed, failed, responses,
                       values.get("response_p95_us"), values.get("handshake_us"))
            )  # fmt: skip


def _rows(table: Table) -> Iterator[tuple[Key, str, dict[str, float | None]]]:
    columns = {
        name: [value if here else None for value, here in zip(column.values.tolist(), present(column), strict=True)]
        for name, column in table.fields.items()
    }
    tags = [table.tags.get(tag) or [""] * table.rows for tag in
            ("client_tenant", "client_vm", "server_tenant", "server_vm", "service", "scope")]  # fmt: skip
    for i, (client_tenant, client, server_tenant, server, service, scope) in enumerate(zip(*tags, strict=True)):
        key = Key(VM(client_tenant, client), VM(server_tenant, server), service)
        yield key, scope, {name: values[i] for name, values in columns.items()}


def _busiest_first(edge: Edge) -> tuple[int, Key]:
    return -edge.octets, edge.key
