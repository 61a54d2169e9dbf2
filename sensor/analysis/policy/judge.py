"""What a policy says of each flow of a window, vectorised: rules are few, flows are many."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.policy.rules import ANY, Policy, Rule, Side
from sensor.identity.parties import SCOPES, UNKNOWN, Parties, inside
from sensor.identity.registry import MULTICAST, UNSPECIFIED
from sensor.native import NumpyArray

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

NO_RULE, NOT_JUDGED = -1, -2

_FIRST = native.ROLES.index("first")
_NO_PEER = (MULTICAST, UNSPECIFIED)


@dataclass(frozen=True)
class Judgement:
    """What is allowed, record by record.

    ``rule`` is the number of the first rule that allows it, else ``NO_RULE``; ``NOT_JUDGED`` of what has no two ends
    (the overflow, multicast) or needs no rule. ``denied`` are those that neither a rule nor the default allows.
    """

    rule: npt.NDArray[np.int64]
    denied: Mask


def judge(policy: Policy, records: NumpyArray, parties: Parties, every: bool = False) -> Judgement:
    """Records have dtype ``RECORD``, with the parties of the same window.

    Rules are looked for only where the default denies; with ``every``, for all records, to see which rules are used.
    """
    peers = np.array([name not in _NO_PEER for name in parties.names], bool)
    judged = (parties.scope != UNKNOWN) & peers[parties.client] & peers[parties.server]
    closed = np.array([policy.default.get(scope) == "deny" for scope in SCOPES], bool)[parties.scope]
    rule = np.full(len(records), NOT_JUDGED, np.int64)
    left = np.flatnonzero(judged if every else judged & closed)
    rule[left] = NO_RULE
    bench = _Bench(records, parties)
    for number, one in enumerate(policy.rules):
        if not len(left):
            break
        fits = bench.fits(one, left)
        rule[left[fits]] = number
        left = left[~fits]
    return Judgement(rule, (rule == NO_RULE) & closed)


class _Bench:
    """A window's flows, and which of its VMs each side of a rule means."""

    def __init__(self, records: NumpyArray, parties: Parties) -> None:
        self._records = records
        self._parties = parties
        self._meant: dict[tuple[str, str], Mask] = {}
        self._of_tenant: dict[str, list[int]] = defaultdict(list)
        for vm, tenant in enumerate(parties.tenants):
            self._of_tenant[tenant].append(vm)

    def fits(self, rule: Rule, rows: Index) -> Mask:
        """Which of these records a rule is about."""
        fits = self._opens(rule, rows, "client", "server")
        # Nobody has seen who began: what is allowed in one direction may be the answer of the other.
        guessed = np.flatnonzero(~fits & (self._records["role_source"][rows] == _FIRST))
        if len(guessed):
            fits[guessed] = self._opens(rule, rows[guessed], "server", "client")
        return fits

    def _opens(self, rule: Rule, rows: Index, client: str, server: str) -> Mask:
        vm = {"client": self._parties.client, "server": self._parties.server}
        fits: Mask = self._vms(rule.client)[vm[client][rows]] & self._vms(rule.server)[vm[server][rows]]
        found = np.flatnonzero(fits)
        if len(found):
            mine = self._records[rows[found]]
            fits[found] = (
                _addressed(rule.client, mine, client)
                & _addressed(rule.server, mine, server)
                & _served(rule, mine, server)
            )
        return fits

    def _vms(self, side: Side) -> Mask:
        """Which VMs a side means, as far as names tell."""
        key = (side.tenant, side.vm)
        if key not in self._meant:
            names = self._parties.names
            meant = np.zeros(len(names), bool)
            vms = range(len(names)) if side.tenant == ANY else self._of_tenant.get(side.tenant, ())
            meant[[vm for vm in vms if side.vm == ANY or side.means(names[vm])]] = True
            self._meant[key] = meant
        return self._meant[key]


def _addressed(side: Side, records: NumpyArray, end: str) -> Mask:
    if not side.addresses:
        return np.ones(len(records), bool)
    return inside(records[f"{end}_ip"], records["ip_version"], side.addresses)


def _served(rule: Rule, records: NumpyArray, end: str) -> Mask:
    if not rule.services:
        return np.ones(len(records), bool)
    port, has_port = records[f"{end}_port"], records["flags"] & native.HAS_PORTS != 0
    served = np.zeros(len(records), bool)
    for protocol, first, last in rule.services:
        one = np.ones(len(records), bool) if protocol is None else records["protocol"] == protocol
        if first is not None and last is not None:
            one = one & has_port & (port >= first) & (port <= last)
        served |= one
    return served
