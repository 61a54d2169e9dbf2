"""Connections to networks that an operator has listed as bad: a file of prefixes, such as threat feeds give out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.findings import Finding, Scene, Severity
from sensor.analysis.groups import with_traffic
from sensor.config import Network
from sensor.errors import UsageError
from sensor.identity.endpoints import address
from sensor.identity.parties import NORTH_SOUTH
from sensor.identity.registry import EXTERNAL
from sensor.native import NumpyArray
from sensor.textfiles import read_text, shown
from sensor.watch import Source

MOST_OCTETS = 64 * 2**20
MOST_SAID = 1000
"""Findings in one window; ``withheld`` counts those beyond."""

_KEY = "S17"
"""IP version and address: as octets they are in the order of the numbers."""


@dataclass(frozen=True)
class BadNetworks:
    """Prefixes, each with what the file says of it. Those within another one are left out."""

    listed: tuple[tuple[Network, str], ...] = ()
    _first: NumpyArray = field(init=False, repr=False)
    _last: NumpyArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.listed, key=lambda one: (one[0].version, one[0].network_address, one[0].prefixlen))
        widest: list[tuple[Network, str]] = []
        for network, said in ordered:
            if not widest or not _holds(widest[-1][0], network):
                widest.append((network, said))
        object.__setattr__(self, "listed", tuple(widest))
        object.__setattr__(self, "_first", np.array([_key(one.network_address) for one, _ in widest], _KEY))
        object.__setattr__(self, "_last", np.array([_key(one.broadcast_address) for one, _ in widest], _KEY))

    def find(self, ip: NumpyArray, versions: NumpyArray) -> npt.NDArray[np.intp]:
        """For each address (shape (n, 16), with IP versions) the index of its network in ``listed``, or -1."""
        if not self.listed or not len(ip):
            return np.full(len(ip), -1, np.intp)
        keys = np.empty((len(ip), 17), np.uint8)
        keys[:, 0], keys[:, 1:] = versions, ip
        keys[versions == 4, 5:] = 0
        packed = keys.view(_KEY).reshape(-1)
        at = np.searchsorted(self._first, packed, side="right") - 1
        within: npt.NDArray[np.intp] = np.where((at >= 0) & (packed <= self._last[at]), at, -1)
        return within


def _holds(one: Network, other: Network) -> bool:
    first, last = int(one.network_address), int(one.broadcast_address)
    return one.version == other.version and first <= int(other.network_address) <= last


def _key(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return bytes([one.version]) + one.packed.ljust(16, b"\0")


def load_networks(path: Path) -> BadNetworks:
    """The list in a file: a prefix or an address a line, what follows it or ``#`` or ``;`` is a comment."""
    listed = []
    text = read_text(path, "list of bad networks", MOST_OCTETS, "list prefixes instead of addresses")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace("#", " # ").replace(";", " ; ").replace(",", " , ").split()
        if not words or words[0] in "#;":
            continue
        try:
            network = ipaddress.ip_network(words[0], strict=False)
        except ValueError:
            raise UsageError(
                f"{path}:{number}: {shown(words[0])} is no prefix; write for example 192.0.2.0/24, a line each"
            ) from None
        if network.prefixlen == 0:
            raise UsageError(f"{path}:{number}: {words[0]} is every address; list the bad ones")
        listed.append((network, " ".join(word for word in words[1:] if word not in ("#", ";", ","))))
    return BadNetworks(tuple(listed))


class BadNetworkDetector:
    """Flows between a VM and a listed network: of each VM and network one finding."""

    def __init__(self, source: Source[BadNetworks]) -> None:
        self.withheld = 0
        self.source = source

    def look(self, scene: Scene) -> Iterator[Finding]:
        """What this window shows; a VM that calls there before one that is called from there."""
        bad = self.source.current()
        records, parties = scene.records, scene.parties
        if not bad.listed:
            return
        rows = np.flatnonzero((parties.scope == NORTH_SOUTH) & with_traffic(records))
        names = np.array([name == EXTERNAL for name in parties.names], bool)
        calls = names[parties.server[rows]]
        ip = np.where(calls[:, None], records["server_ip"][rows], records["client_ip"][rows])
        network = bad.find(ip, records["ip_version"][rows])
        hit = network >= 0
        rows, calls, network = rows[hit], calls[hit], network[hit]
        vm = np.where(calls, parties.client[rows], parties.server[rows])
        keys, of_row = np.unique(np.stack([~calls, vm, network], axis=1).astype(np.int64), axis=0, return_inverse=True)
        self.withheld += max(len(keys) - MOST_SAID, 0)
        for number, (called, one, listed) in enumerate(keys[:MOST_SAID].tolist()):
            yield _finding(scene, rows[of_row.reshape(-1) == number], bool(called), one, *bad.listed[listed])


def _finding(
    scene: Scene, rows: npt.NDArray[np.intp], called: bool, vm: int, network: Network, said: str
) -> Finding:  # fmt: skip
    records, parties = scene.records[rows], scene.parties
    far = "client" if called else "server"
    example = address(records[f"{far}_ip"][0], int(records["ip_version"][0]))
    answered = int(((records["c2s_packets"] > 0) & (records["s2c_packets"] > 0)).sum())
    octets = int(records["c2s_bytes"].astype(np.int64).sum() + records["s2c_bytes"].astype(np.int64).sum())
    what = f"{example} calls {parties.names[vm]}" if called else f"{parties.names[vm]} calls {example}"
    why = f" ({said})" if said else ""
    # Everybody is called from bad networks now and then; what matters is a VM that calls there.
    severity: Severity = "critical" if not called else "warning" if answered else "info"
    return Finding(
        "bad_network", severity, parties.tenants[vm], parties.names[vm], str(network),
        f"{what}, listed as {network}{why}: {len(rows):,} flows, {answered:,} answered, {octets:,} octets",
        {"flows": int((records["flags"] & native.NEW != 0).sum()), "answered": answered, "octets": octets},
    )  # fmt: skip
