"""What the policy forbids: of a window's flows who talked to whom against it, and that as events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.findings import Finding, Scene, Severity
from sensor.analysis.groups import services_of, with_traffic
from sensor.analysis.policy.judge import Judgement, judge
from sensor.analysis.policy.rules import Policy
from sensor.analysis.security.attempts import tenant_between
from sensor.identity.endpoints import address
from sensor.identity.parties import NORTH_SOUTH, SCOPES
from sensor.identity.registry import EXTERNAL
from sensor.watch import Source

MOST_SAID = 1000
"""Findings in one window; ``withheld`` counts those beyond."""

MOST_ADDRESSES = 3
"""Outside addresses that a talk names."""


@dataclass(frozen=True)
class Talk:
    """One client at one service of one server in a window, over all flows. ``addresses``: some of the outside's."""

    client: str
    client_tenant: str
    server: str
    server_tenant: str
    protocol: str
    service: str
    scope: str
    flows: int
    begun: int
    answered: int
    octets: int
    addresses: tuple[str, ...]

    @property
    def target(self) -> str:
        """Server and service, in words."""
        return f"{self.server}:{self.service}"


class PolicyDetector:
    """Flows that the policy of now does not allow: of each client, server and service one finding."""

    def __init__(self, source: Source[Policy]) -> None:
        self.withheld = 0
        self.source = source

    def look(self, scene: Scene) -> Iterator[Finding]:
        """What this window shows."""
        talks, left = denied_talks(scene, judge(self.source.current(), scene.records, scene.parties), MOST_SAID)
        self.withheld += left
        for talk in talks:
            yield _finding(talk)


def denied_talks(scene: Scene, judgement: Judgement, most: int) -> tuple[list[Talk], int]:
    """What a policy does not allow, those with most octets first, and how many more there are."""
    records, parties = scene.records, scene.parties
    rows = np.flatnonzero(judgement.denied & with_traffic(records))
    if not len(rows):
        return [], 0
    services, service = services_of(records[rows])
    key = (parties.client[rows] * len(parties.names) + parties.server[rows]) * len(services) + service
    _, first, of_row = np.unique(key, return_index=True, return_inverse=True)
    of_row = of_row.reshape(-1)
    octets = np.bincount(of_row, records["c2s_bytes"][rows] + records["s2c_bytes"][rows])
    order = np.argsort(of_row, kind="stable")
    parts = np.split(rows[order], np.searchsorted(of_row[order], np.arange(1, len(first))))
    heaviest = np.argsort(-octets, kind="stable")[:most].tolist()
    talks = [
        _talk(scene, int(parties.client[parts[i][0]]), int(parties.server[parts[i][0]]), services[service[first[i]]],
              parts[i])
        for i in heaviest
    ]  # fmt: skip
    return talks, len(first) - len(talks)


def _talk(scene: Scene, client: int, server: int, service: tuple[str, str], rows: npt.NDArray[np.intp]) -> Talk:
    parties, mine = scene.parties, scene.records[rows]
    return Talk(
        parties.names[client], parties.tenants[client], parties.names[server], parties.tenants[server], *service,
        SCOPES[parties.scope[rows[0]]],
        flows=len(rows),
        begun=int((mine["flags"] & native.NEW != 0).sum()),
        answered=int(((mine["c2s_packets"] > 0) & (mine["s2c_packets"] > 0) & (mine["flags"] & native.REFUSED == 0))
                     .sum()),
        octets=int(mine["c2s_bytes"].astype(np.int64).sum() + mine["s2c_bytes"].astype(np.int64).sum()),
        addresses=_outside(mine, "client" if parties.names[client] == EXTERNAL else "server")
        if EXTERNAL in (parties.names[client], parties.names[server]) else (),
    )  # fmt: skip


def _outside(records: native.NumpyArray, end: str) -> tuple[str, ...]:
    """Some of the addresses, in the order of the records."""
    found: dict[str, None] = {}
    for record in records[: 100 * MOST_ADDRESSES]:
        found[address(record[f"{end}_ip"], int(record["ip_version"]))] = None
        if len(found) == MOST_ADDRESSES:
            break
    return tuple(found)


def _finding(talk: Talk) -> Finding:
    outside = talk.scope == SCOPES[NORTH_SOUTH]
    crossed = talk.answered > 0
    severity: Severity = "critical" if crossed and not outside else "warning"
    where = f" ({', '.join(talk.addresses)})" if talk.addresses else ""
    said = "answered" if crossed else "not answered"
    detail = (
        f"no rule allows {talk.client} of {talk.client_tenant} to use {talk.target} of {talk.server_tenant}{where}: "
        f"{talk.flows:,} flows, {said}, {talk.octets:,} octets"
    )
    return Finding(
        "unexpected_north_south" if outside else "policy_violation", severity,
        tenant_between(talk.client_tenant, talk.server_tenant), talk.client, talk.target, detail,
        {"flows": talk.begun, "answered": talk.answered, "octets": talk.octets},
    )  # fmt: skip
