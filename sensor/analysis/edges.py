"""Dependencies over time: first and last seen, what is usual for each, and what is new, gone, failing or slow.

What is usual is a running mean of the logarithm of a window's 95th percentile of response times, and of its distance
from that mean, as RFC 6298 keeps them of the RTT: a service whose times vary much has to get much slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensor.analysis.dependencies import DYNAMIC, Edges, Ints, Mask, Name, keys_of
from sensor.analysis.findings import Finding, Severity
from sensor.analysis.limit import Limit
from sensor.analysis.quantiles import Floats
from sensor.identity.parties import SCOPES
from sensor.identity.registry import EXTERNAL
from sensor.keys import Keys, Places
from sensor.native import NumpyArray
from sensor.protocols import TCP, protocol_name
from sensor.window import Column, Labels, Table

LIMITS: tuple[Limit, ...] = (
    Limit("edges_held", 100_000, "count", "So many dependencies are remembered; the longest unseen gives way."),
    Limit("edge_learning", 3600, "seconds", "So long after the start of an empty memory no dependency is new."),
    Limit("edge_silence", 3600, "seconds", "A dependency that is unused for longer than this has vanished."),
    Limit("edge_silence_windows", 10, "count", "Only one that was used in so many windows can vanish."),
    Limit("edge_failed_ratio", 0.5, "ratio", "A dependency fails when more than this part of its attempts does."),
    Limit("edge_failed_least", 5, "count", "And when at least so many attempts of a window fail."),
    Limit("edge_slow_factor", 3, "ratio", "A dependency is slow when its response time is so many times the usual."),
    Limit("edge_slow_least", 0.01, "seconds", "And when it is at least so much longer than the usual."),
    Limit("edge_slow_responses", 20, "count", "Windows with fewer responses say nothing about slowness."),
    Limit("edge_slow_windows", 2, "count", "So many such windows in a row have to be slow."),
)

MOST_SAID = 1000
"""Findings of a kind in one window; more are counted, not said."""

LEARNT_WINDOWS = 6
"""A usual response time rests on at least so many windows."""

MEMORY_SECONDS = 3600.0
"""What is usual follows a lasting change with this time constant."""

DEVIATIONS = 4
"""Slow is what lies further from the usual than so many mean deviations (RFC 6298 uses the same number)."""

VERSION = 1

_LEAST_SPREAD = 0.05
_STATE = np.dtype(
    [
        ("first_seen_ns", "i8"), ("last_seen_ns", "i8"), ("heard_ns", "i8"), ("longest_gap_ns", "i8"),
        ("windows", "i8"), ("connections", "i8"), ("failed", "i8"), ("responses", "i8"), ("learnt", "i8"),
        ("slow_windows", "i8"), ("usual", "f8"), ("spread", "f8"), ("gone", "?"),
    ]
)  # fmt: skip
"""``heard_ns``: the time that the sensor had been listening for when the edge was last seen. ``usual``: ln(us)."""
_COLUMNS = list(_STATE.names or ())
_INTEGERS = _COLUMNS.index("usual")
_LOG_MOST = 50.0
_LONGEST_NS = 1 << 62


@dataclass(frozen=True)
class Dependencies:
    """What the book says of a window: the points of measurement ``dependency``, and findings."""

    table: Table
    findings: list[Finding]


class EdgeBook:
    """The dependencies that are known, at most ``edges_held``. Feed it every window in order.

    ``dropped`` counts edges that gave way or found no place, ``withheld`` findings beyond ``MOST_SAID``.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.dropped = 0
        self.withheld = 0
        self._limits = limits
        self._places = Places()
        self._names: list[Name | None] = []
        self._free: list[int] = []
        self._state = np.zeros(0, _STATE)
        self._began_ns: int | None = None
        self._heard_ns = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, edges: Edges, start_ns: int, end_ns: int, sensor: str) -> Dependencies:
        """Take a window's edges in."""
        self._began_ns = start_ns if self._began_ns is None else self._began_ns
        if len(edges.parties.client):  # a wire without any flow may be a dead mirror: nothing is missed on it
            self._heard_ns += end_ns - start_ns
        keys = edges.keys()
        rows = self._places.of(keys)
        new = np.flatnonzero((rows < 0) & edges.proven)
        if len(new):
            rows[new] = self._enter(edges.named(new), keys[new], rows[rows >= 0], start_ns)
        known = np.flatnonzero(rows >= 0)
        self._count(edges, rows, known, end_ns)
        slow = self._compare(edges, rows, known, (end_ns - start_ns) / 1e9)
        findings = [
            *self._new(edges, rows, new, end_ns),
            *self._vanished(),
            *self._failing(edges, known),
            *self._slow(edges, rows, slow),
        ]
        return Dependencies(self._table(edges, rows, np.flatnonzero((rows >= 0) | edges.proven), sensor), findings)

    # ---- what is kept

    def _most(self) -> int:
        return int(self._limits["edges_held"])

    def _enter(self, names: list[Name], keys: Keys, busy: Ints, start_ns: int) -> Ints:
        """Rows for new edges; -1 where every place is taken by an edge of this very window."""
        self._make_room(len(names), busy)
        count = min(len(names), max(0, self._most() - len(self)))
        rows = [self._free.pop() for _ in range(min(count, len(self._free)))]
        rows += range(len(self._names), len(self._names) + count - len(rows))
        self._names += [None] * (max(rows, default=-1) + 1 - len(self._names))
        for row, name in zip(rows, names, strict=False):
            self._names[row] = name
        entered = np.full(len(names), -1, np.int64)
        entered[:count] = rows
        self._places.add(keys[:count], entered[:count])
        if len(self._names) > len(self._state):
            grown = np.zeros(max(2 * len(self._names), 1024), _STATE)
            grown[: len(self._state)] = self._state
            self._state = grown
        fresh = np.zeros(1, _STATE)
        fresh["first_seen_ns"] = fresh["last_seen_ns"] = start_ns
        fresh["heard_ns"] = self._heard_ns
        self._state[entered[entered >= 0]] = fresh
        self.dropped += int((entered < 0).sum())
        return entered

    def _make_room(self, wanted: int, busy: Ints) -> None:
        excess = len(self) + wanted - self._most()
        if excess <= 0:
            return
        idle = self._held()
        idle[busy] = False
        candidates = np.flatnonzero(idle)
        oldest = candidates[np.argsort(self._state["last_seen_ns"][candidates], kind="stable")][:excess]
        self._places.remove(oldest)
        for row in oldest.tolist():
            self._names[row] = None
            self._free.append(row)
        self.dropped += len(oldest)

    def _held(self) -> Mask:
        held = np.zeros(len(self._state), bool)
        held[: len(self._names)] = True
        held[self._free] = False
        return held

    def _count(self, edges: Edges, rows: Ints, known: NumpyArray, end_ns: int) -> None:
        state, row = self._state, rows[known]
        for name, values in (
            ("connections", edges.connections), ("failed", edges.failed), ("responses", edges.response_count),
        ):  # fmt: skip
            state[name][row] += values[known]
        used = rows[known[edges.flows[known] > 0]]
        state["windows"][used] += 1
        gap = self._heard_ns - state["heard_ns"][used]
        state["longest_gap_ns"][used] = np.maximum(state["longest_gap_ns"][used], gap)
        state["heard_ns"][used] = self._heard_ns
        state["last_seen_ns"][used] = np.maximum(state["last_seen_ns"][used], end_ns)
        state["gone"][used] = False

    # ---- what is usual

    def _compare(self, edges: Edges, rows: Ints, known: NumpyArray, seconds: float) -> NumpyArray:
        """Which edges are slow, having been so for enough windows; all that were measured are learnt from."""
        enough = edges.response_count[known] >= self._limits["edge_slow_responses"]
        measured = known[enough & (edges.response_p95_us[known] > 0)]
        row, p95_us = rows[measured], edges.response_p95_us[measured]
        state = self._state
        first = row[state["learnt"][row] == 0]
        state["usual"][first] = np.log(p95_us[state["learnt"][row] == 0])
        state["spread"][first] = np.log(max(self._limits["edge_slow_factor"], 1.1)) / DEVIATIONS
        usual, spread = state["usual"][row], state["spread"][row]
        distance = np.log(p95_us) - usual
        slow = (state["learnt"][row] >= LEARNT_WINDOWS) & (distance > DEVIATIONS * spread)
        slow &= p95_us > self._limits["edge_slow_factor"] * np.exp(usual)
        slow &= p95_us - np.exp(usual) >= self._limits["edge_slow_least"] * 1e6
        self._learn(row, distance, seconds)
        state["slow_windows"][row] = np.where(slow, state["slow_windows"][row] + 1, 0)
        result: NumpyArray = measured[slow & (state["slow_windows"][row] >= self._limits["edge_slow_windows"])]
        return result

    def _learn(self, row: Ints, distance: Floats, seconds: float) -> None:
        """Plain means at first; then slowly, and an outlier no more than a common deviation."""
        state = self._state
        learnt, spread = state["learnt"][row], state["spread"][row]
        weight = np.maximum(1 / (learnt + 1), 1 - np.exp(-seconds / MEMORY_SECONDS))
        bound = np.where(learnt < LEARNT_WINDOWS, np.inf, 2 * spread)
        bounded = np.clip(distance, -bound, bound)
        state["usual"][row] += weight * bounded
        state["spread"][row] = np.maximum(spread + weight * (np.abs(bounded) - spread), _LEAST_SPREAD)
        state["learnt"][row] += 1

    # ---- what is said

    def _new(self, edges: Edges, rows: Ints, new: NumpyArray, end_ns: int) -> list[Finding]:
        if self._began_ns is None or end_ns - self._began_ns <= self._limits["edge_learning"] * 1e9:
            return []
        findings = []
        for name in edges.named(self._most_of(new[rows[new] >= 0])):
            client, server = _ends(name)
            findings.append(_finding("edge_new", "info", name, f"{client} uses {server} for the first time"))
        return findings

    def _vanished(self) -> list[Finding]:
        """Edges unused for too long: longer than ever before, so that a nightly backup is not missed every day."""
        state = self._state
        quiet_ns = self._heard_ns - state["heard_ns"]
        gone = self._held() & ~state["gone"] & (quiet_ns > self._limits["edge_silence"] * 1e9)
        gone &= (state["windows"] >= self._limits["edge_silence_windows"]) & (quiet_ns > 2 * state["longest_gap_ns"])
        rows = np.flatnonzero(gone)
        state["gone"][rows] = True
        findings = []
        for row in self._most_of(rows).tolist():
            name = self._names[row]
            if name is not None:
                client, server = _ends(name)
                seconds, windows = int(quiet_ns[row] // 1_000_000_000), int(state["windows"][row])
                detail = f"{client} has not used {server} for {seconds} s; before, it did in {windows} windows"
                findings.append(_finding("edge_vanished", "info", name, detail, seconds=seconds, windows=windows))
        return findings

    def _failing(self, edges: Edges, known: NumpyArray) -> list[Finding]:
        failed = edges.failed[known]
        dynamic = np.array([service == DYNAMIC for _, service in edges.services], bool)[edges.service[known]]
        # Behind a dynamic port is any service: a scan of such ports is not the known one failing.
        failing = (failed >= self._limits["edge_failed_least"]) & ~dynamic
        failing &= failed > self._limits["edge_failed_ratio"] * (failed + edges.connections[known])
        findings = []
        said = self._most_of(known[failing])
        for i, name in zip(said.tolist(), edges.named(said), strict=True):
            client, server = _ends(name)
            lost, attempts = int(edges.failed[i]), int(edges.failed[i] + edges.connections[i])
            detail = f"{lost} of {attempts} attempts of {client} at {server} failed"
            findings.append(_finding("edge_failing", "warning", name, detail, failed=lost, attempts=attempts))
        return findings

    def _slow(self, edges: Edges, rows: Ints, slow: NumpyArray) -> list[Finding]:
        findings = []
        into: dict[tuple[str, str], list[Name]] = {}
        names = edges.named(slow)
        for name in names:
            into.setdefault(name[2:4], []).append(name)
        for i, name in zip(self._most_of(slow).tolist(), names, strict=False):
            client, server = _ends(name)
            now, usual = round(float(edges.response_p95_us[i])), round(float(np.exp(self._state["usual"][rows[i]])))
            responses = int(edges.response_count[i])
            detail = f"95 % of {responses} answers of {server} to {client} came within {now} us; usual are {usual} us"
            if above := _above(name, into):
                detail += f"; slow with it, above: {', '.join(above)}"
            findings.append(
                _finding(
                    "edge_slow", "warning", name, detail, response_p95_us=now, usual_p95_us=usual,
                    responses=responses,
                )
            )  # fmt: skip
        return findings

    def _most_of(self, found: NumpyArray) -> NumpyArray:
        self.withheld += max(len(found) - MOST_SAID, 0)
        return found[:MOST_SAID]

    def _table(self, edges: Edges, rows: Ints, shown: NumpyArray, sensor: str) -> Table:
        parties = edges.parties
        held = rows[shown] >= 0
        first_seen = self._state["first_seen_ns"][rows[shown]] if held.any() else np.zeros(len(shown), np.int64)
        fields = {
            "connections": Column(edges.connections[shown]),
            "failed": Column(edges.failed[shown]),
            "flows": Column(edges.flows[shown]),
            "c2s_bytes": Column(edges.c2s_bytes[shown]),
            "s2c_bytes": Column(edges.s2c_bytes[shown]),
            "response_count": Column(edges.response_count[shown]),
            "response_avg_us": Column(edges.response_avg_us[shown]),
            "response_p95_us": Column(edges.response_p95_us[shown]),
            "rtt_avg_us": Column(edges.rtt_avg_us[shown]),
            "handshake_us": Column(edges.handshake_us[shown]),
            "first_seen": Column(np.where(held, first_seen, 0), held),
        }
        tags = {
            "sensor": Labels.constant(sensor, len(shown)),
            "client_vm": Labels(edges.client[shown], parties.names),
            "server_vm": Labels(edges.server[shown], parties.names),
            "client_tenant": Labels(edges.client[shown], parties.tenants),
            "server_tenant": Labels(edges.server[shown], parties.tenants),
            "service": Labels(edges.service[shown], [service_tag(*service) for service in edges.services]),
            "scope": Labels(edges.scope[shown], SCOPES),
        }
        return Table("dependency", len(shown), tags, fields)

    # ---- over restarts

    def to_json(self) -> dict[str, Any]:
        """Everything that is remembered, for ``from_json``."""
        kept = zip(self._names, self._state.tolist(), strict=False)
        entries = [[*name, *state] for name, state in kept if name is not None]
        return {
            "version": VERSION,
            "began_ns": self._began_ns,
            "heard_ns": self._heard_ns,
            "columns": _COLUMNS,
            "edges": entries,
        }

    @classmethod
    def from_json(cls, limits: Mapping[str, float], kept: object) -> EdgeBook:
        """The book that ``to_json`` wrote. ValueError says what is wrong with what was kept.

        Of more edges than ``edges_held`` allows, those seen last are taken.
        """
        book = cls(limits)
        if not isinstance(kept, dict) or kept.get("version") != VERSION:
            raise ValueError(f"the kept dependencies are not of version {VERSION}")
        if kept.get("columns") != _COLUMNS:
            raise ValueError("the kept dependencies have other columns than this version writes")
        began_ns, heard_ns, entries = kept.get("began_ns"), kept.get("heard_ns"), kept.get("edges")
        if not isinstance(began_ns, int | None) or not isinstance(heard_ns, int) or not isinstance(entries, list):
            raise ValueError("the kept dependencies lack began_ns, heard_ns or edges")
        read = [_entry(entry, number) for number, entry in enumerate(entries)]
        if len(read) > book._most():
            read.sort(key=lambda entry: int(entry[1]["last_seen_ns"]), reverse=True)
            book.dropped += len(read) - book._most()
        kept_edges = dict(read[: book._most()])
        book._began_ns, book._heard_ns = began_ns, heard_ns
        book._names = list(kept_edges)
        book._places.add(keys_of(list(kept_edges)), np.arange(len(kept_edges)))
        book._state = np.array(list(kept_edges.values()), _STATE)
        return book


MOST_ABOVE = 5
"""Edges named in the detail of a slow one."""


def _above(key: Name, into: Mapping[tuple[str, str], list[Name]]) -> list[str]:
    """Slow edges that lead to the client of a slow one, and on upwards: they wait for it. The nearest first."""
    seen, waiting = {key[:2]}, [key[:2]]
    found: list[str] = []
    while waiting and len(found) < MOST_ABOVE:
        for other in into.get(waiting.pop(0), ()):
            client, server = _ends(other)
            found.append(f"{client} -> {server}")
            if other[:2] not in seen:
                seen.add(other[:2])
                waiting.append(other[:2])
    return found[:MOST_ABOVE]


def service_tag(protocol: str, service: str) -> str:
    """The tag ``service``: what is not TCP says so, because a point has no tag for the protocol."""
    return service if protocol == protocol_name(TCP) else f"{service}/{protocol}"


def _ends(key: Name) -> tuple[str, str]:
    """Client and service in words; the server's tenant where it is another one."""
    client, client_tenant, server, server_tenant, protocol, service = key
    across = f" of tenant {server_tenant}" if server_tenant not in (client_tenant, EXTERNAL) else ""
    return client, f"{server} {service_tag(protocol, service)}{across}"


def _finding(kind: str, severity: Severity, key: Name, detail: str, **counts: int) -> Finding:
    client, client_tenant, server, server_tenant, protocol, service = key
    tenant = client_tenant if client_tenant != EXTERNAL else server_tenant
    target = f"{server} {service_tag(protocol, service)}"
    return Finding(kind, severity, tenant, client, target, detail, counts, once=kind in ("edge_new", "edge_vanished"))


def _entry(entry: object, number: int) -> tuple[Name, NumpyArray]:
    """One kept edge; every value has its type and is finite."""
    names = 6
    if not isinstance(entry, list) or len(entry) != names + len(_COLUMNS):
        raise ValueError(f"kept dependency {number} does not have {names + len(_COLUMNS)} values")
    if not all(isinstance(name, str) for name in entry[:names]):
        raise ValueError(f"kept dependency {number} has a name that is no text")
    try:
        state = np.array([tuple(entry[names:])], _STATE)[0]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"kept dependency {number} has a value that is no number") from None
    whole = state.tolist()[:_INTEGERS]
    if min(whole) < 0 or max(whole) > _LONGEST_NS:
        raise ValueError(f"kept dependency {number} has a count or a time that cannot be")
    if not abs(state["usual"]) < _LOG_MOST or not 0 <= state["spread"] < _LOG_MOST:
        raise ValueError(f"kept dependency {number} has a response time that cannot be")
    client, client_tenant, server, server_tenant, protocol, service = entry[:names]
    return (client, client_tenant, server, server_tenant, protocol, service), state
