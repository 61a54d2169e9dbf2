"""What a policy says of each flow of a window, vectorised: rules are few, flows are many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.policy.rules import ANY, Policy, Rule, Side
from sensor.identity.parties import SCOPES, UNKNOWN, Parties, inside
from sensor.identity.registry import MULTICAST, UNSPECIFIED
from sensor.native import NumpyArray

Mask = npt.NDArray[np.bool_]

NO_RULE, NOT_JUDGED = -1, -2

_FIRST = native.ROLES.index("first")
_NO_PEER = (MULTICAST, UNSPECIFIED)


@dataclass(frozen=True)
class Judgement:
    """What is allowed, record by record.

    ``rule`` is the number of the first rule that allows it, else ``NO_RULE``; ``NOT_JUDGED`` of what has no two ends
    (the overflow, multicast). ``denied`` are those that neither a rule nor the default allows.
    """

    rule: npt.NDArray[np.int64]
    denied: Mask


def judge(policy: Policy, records: NumpyArray, parties: Parties) -> Judgement:
    """Records have dtype ``RECORD``, with the parties of the same window."""
    peers = np.array([name not in _NO_PEER for name in parties.names], bool)
    judged = (parties.scope != UNKNOWN) & peers[parties.client] & peers[parties.server]
    rule = np.where(judged, NO_RULE, NOT_JUDGED).astype(np.int64)
    # Nobody has seen who began: what is allowed in one direction may be the answer of the other.
    either = records["role_source"] == _FIRST
    for number in range(len(policy.rules) - 1, -1, -1):
        one = policy.rules[number]
        fits = _fits(one, records, parties, "client", "server")
        if either.any():
            fits |= either & _fits(one, records, parties, "server", "client")
        rule[judged & fits] = number
    closed = np.array([policy.default.get(scope) == "deny" for scope in SCOPES], bool)
    return Judgement(rule, (rule == NO_RULE) & closed[parties.scope])


def _fits(rule: Rule, records: NumpyArray, parties: Parties, client: str, server: str) -> Mask:
    fits = _side(rule.client, records, parties, client) & _side(rule.server, records, parties, server)
    if rule.services and fits.any():
        port = records[f"{server}_port"]
        served = np.zeros(len(records), bool)
        for protocol, first, last in rule.services:
            one = np.ones(len(records), bool) if protocol is None else records["protocol"] == protocol
            if first is not None and last is not None:
                one = one & (records["flags"] & native.HAS_PORTS != 0) & (port >= first) & (port <= last)
            served |= one
        fits &= served
    return fits


def _side(side: Side, records: NumpyArray, parties: Parties, end: str) -> Mask:
    vm = parties.client if end == "client" else parties.server
    if side.tenant == ANY and side.vm == ANY:
        fits = np.ones(len(records), bool)
    else:
        named = [side.fits(*who) for who in zip(parties.tenants, parties.names, strict=True)]
        fits = np.array(named, bool)[vm]
    if side.addresses:
        fits = fits & inside(records[f"{end}_ip"], records["ip_version"], side.addresses)
    return fits
