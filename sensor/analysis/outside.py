"""Finer names than ``external`` for those outside, when asked for: their prefix, or what a list of networks says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from sensor.analysis.groups import Ends
from sensor.config import Network
from sensor.errors import UsageError
from sensor.identity.registry import EXTERNAL
from sensor.native import NumpyArray
from sensor.textfiles import read_text, shown

MOST_OCTETS = 256 * 2**20
_KEY = "S17"
"""IP version and address: as octets they are in the order of the numbers."""


class Naming(Protocol):
    """Gives addresses outside a name; ``external`` where it has none."""

    def names_of(self, keys: NumpyArray) -> list[str]:
        """One for each key (dtype ``S17``), of which no two are equal."""


class ByPrefix:
    """The /24 of an IPv4 address, the /48 of an IPv6 address."""

    def names_of(self, keys: NumpyArray) -> list[str]:
        """Prefixes, as in ``198.51.100.0/24``."""
        return [_prefix(key.ljust(17, b"\0")) for key in keys.tolist()]


def _prefix(key: bytes) -> str:
    octets, length = (key[1:4] + b"\0", 24) if key[0] == 4 else (key[1:7] + bytes(10), 48)
    return f"{ipaddress.ip_address(octets)}/{length}"


@dataclass(frozen=True)
class ByNetwork:
    """The name of the longest listed prefix that holds an address, such as an autonomous system's number."""

    listed: Iterable[tuple[Network, str]]
    _starts: NumpyArray = field(init=False, repr=False)
    _names: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts, names = _flattened(self.listed)
        object.__setattr__(self, "_starts", np.array(starts, _KEY))
        object.__setattr__(self, "_names", names)

    def names_of(self, keys: NumpyArray) -> list[str]:
        """Names from the list."""
        at = np.searchsorted(self._starts, keys, side="right") - 1
        return [self._names[place] if place >= 0 else EXTERNAL for place in at.tolist()]


def _flattened(listed: Iterable[tuple[Network, str]]) -> tuple[list[bytes], list[str]]:
    """Where the answer changes, in order, and what it is from there on: prefixes within one another laid flat."""
    ordered = sorted(listed, key=lambda one: (one[0].version, int(one[0].network_address), one[0].prefixlen))
    starts, names = list[bytes](), list[str]()
    open_: list[tuple[Network, str]] = []

    def from_here(version: int, number: int, name: str) -> None:
        octets = 4 if version == 4 else 16
        if number < 1 << 8 * octets:
            key = bytes([version]) + number.to_bytes(octets, "big").ljust(16, b"\0")
            if starts and starts[-1] == key:
                names[-1] = name
            else:
                starts.append(key)
                names.append(name)

    def close_before(version: int, number: int) -> None:
        while open_ and (open_[-1][0].version != version or int(open_[-1][0].broadcast_address) < number):
            ended, _ = open_.pop()
            outer = open_[-1][1] if open_ else EXTERNAL
            from_here(ended.version, int(ended.broadcast_address) + 1, outer)

    for network, name in ordered:
        close_before(network.version, int(network.network_address))
        open_.append((network, name))
        from_here(network.version, int(network.network_address), name)
    close_before(0, 0)
    return starts, names


def load_naming(how: str) -> Naming | None:
    """What ``--external`` says: ``one`` name, by ``prefix``, or the list in a file."""
    if how == "one":
        return None
    return ByPrefix() if how == "prefix" else ByNetwork(tuple(_listed(Path(how))))


def _listed(path: Path) -> Iterable[tuple[Network, str]]:
    """A prefix and its name a line; or, as route collectors give it out, address, length and AS number."""
    text = read_text(path, "list of networks", MOST_OCTETS, "list prefixes instead of addresses")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        prefix, name = words[0], " ".join(words[1:])
        if len(words) == 3 and "/" not in prefix and words[1].isdecimal():
            prefix, name = f"{words[0]}/{words[1]}", f"AS{words[2]}"
        try:
            network = ipaddress.ip_network(prefix, strict=False)
        except ValueError:
            network = None
        if network is None or not name:
            raise UsageError(
                f"{path}:{number}: {shown(line.strip())} is no prefix with a name; write for example"
                " 192.0.2.0/24 AS64500, a line each"
            )
        yield network, name


def name_outsiders(ends: Ends, records: NumpyArray, naming: Naming) -> Ends:
    """The ends of records, with those outside told apart as ``naming`` does."""
    outside = ends.names.index(EXTERNAL)
    client, server = ends.client.copy(), ends.server.copy()
    names, tenants, place = list(ends.names), list(ends.tenants), {EXTERNAL: outside}
    for side, index in (("client", client), ("server", server)):
        rows = np.flatnonzero(index == outside)
        keys, of_row = np.unique(_keys(records[rows], side), return_inverse=True)
        codes = []
        for name in naming.names_of(keys):
            if name not in place:
                place[name] = len(names)
                names.append(name)
                tenants.append(EXTERNAL)
            codes.append(place[name])
        index[rows] = np.array(codes, np.int64)[of_row.reshape(-1)]
    return replace(ends, names=names, tenants=tenants, client=client, server=server)


def _keys(records: NumpyArray, side: str) -> NumpyArray:
    keys = np.empty((len(records), 17), np.uint8)
    keys[:, 0], keys[:, 1:] = records["ip_version"], records[f"{side}_ip"]
    keys[records["ip_version"] == 4, 5:] = 0
    result: NumpyArray = keys.view(_KEY).reshape(-1)
    return result
