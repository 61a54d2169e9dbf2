"""Passwords tried one after the other: many short connections of one source to a login service.

A record does not say whether a login worked. What tells a guess from a session is its size and length: the server
speaks, the client answers, and after a moment and little more than the key exchange it is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from sensor import native
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit
from sensor.analysis.security.attempts import severity_from
from sensor.protocols import TCP, protocol_name
from sensor.services import service_name

LIMITS = (
    Limit(
        "bruteforce_connections", 20, "count", "So many short connections of a source to a login service are guesses."
    ),
    Limit("bruteforce_seconds", 60, "seconds", "If they end within so long."),
    Limit("bruteforce_length", 10, "seconds", "A connection that lasts longer is a session."),
    Limit("bruteforce_octets", 10_000, "count", "And one in which the server says more."),
)

LOGINS = (21, 22, 23, 445, 3389, 5900, 5985, 5986)
"""FTP, SSH, Telnet, SMB, RDP, VNC, WinRM. Databases, LDAP and mail are not: their clients connect so all the time."""

MOST_HELD = 20_000
"""Sources at services that are followed; the ones followed first give way, and are counted."""

_OVER = [native.STATES.index(state) for state in ("fin_wait", "closed", "reset")]

Key = tuple[str, str, str, str, str]
"""Source, its tenant, the server's VM, its tenant, the service."""


class BruteForceDetector:
    """Tells sources that try to log in again and again."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self._limits = limits
        self._tries: dict[Key, deque[tuple[int, int]]] = {}

    def look(self, scene: Scene) -> Iterator[Finding]:
        """Who has tried too often until now, and again in this window."""
        since_ns = scene.end_ns - int(self._limits["bruteforce_seconds"] * 1e9)
        self._forget(since_ns)
        for key, count in self._guesses(scene).items():
            tries = self._tries.pop(key, None) or deque()
            tries.append((scene.end_ns, count))
            self._make_room()
            self._tries[key] = tries
            total = sum(number for _, number in tries)
            if total >= self._limits["bruteforce_connections"]:
                source, tenant, server, server_tenant, service = key
                seconds = self._limits["bruteforce_seconds"]
                yield Finding(
                    "brute_force", severity_from(tenant), server_tenant, source, f"{server}:{service}",
                    f"{total:,} short connections in {seconds:g} s", {"connections": count},
                )  # fmt: skip

    def _guesses(self, scene: Scene) -> dict[Key, int]:
        records, limits = scene.records, self._limits
        login = (records["protocol"] == TCP) & np.isin(records["server_port"], LOGINS)
        over = login & np.isin(records["tcp_state"], _OVER) & (records["flags"] & native.ANSWERED != 0)
        short = over & (records["end_ns"] - records["start_ns"] <= limits["bruteforce_length"] * 1e9)
        spoke = (records["c2s_payload_bytes"] > 0) & (records["s2c_payload_bytes"] > 0)
        small = short & spoke & (records["s2c_payload_bytes"] <= limits["bruteforce_octets"])
        # Told once: in the window in which it began, or, if it was longer, in which it ended.
        counted: dict[Key, int] = {}
        for i in np.flatnonzero(small).tolist():
            service = service_name(protocol_name(TCP), int(records["server_port"][i]))
            key = (scene.client(i), scene.client_tenant(i), scene.server(i), scene.server_tenant(i), service)
            counted[key] = counted.get(key, 0) + 1
        return counted

    def _forget(self, since_ns: int) -> None:
        for key in list(self._tries):
            tries = self._tries[key]
            while tries and tries[0][0] <= since_ns:
                tries.popleft()
            if not tries:
                del self._tries[key]

    def _make_room(self) -> None:
        while len(self._tries) >= MOST_HELD:
            del self._tries[next(iter(self._tries))]
            self.forgotten += 1
