"""The inventory of VMs: which addresses and network cards belong to which VM of which tenant, and in which domain.

A domain is what keeps tenants apart that use the same addresses: a VLAN or the VNI of an overlay network. An inventory
is never changed; a new one takes its place. ``watch.py`` has the sources that hand out the one of now.
"""

from __future__ import annotations

import csv
import difflib
import io
import ipaddress
import itertools
import re
import socket
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sensor.config import Network
from sensor.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COLUMNS = ("vm", "tenant", "address", "mac", "vlan", "vni", "host", "role")
"""The columns of a CSV file, and the keys of a ``[[vm]]`` table in TOML."""

RESERVED = ("external", "other", "multicast", "unspecified")
"""Names that the sensor uses itself: for what is outside or no VM, and for the sum of what had no place."""

MOST_ENTRIES = 1_000_000
MOST_OCTETS = 256 * 2**20
MOST_CHARACTERS = 255

_ANY, _BESIDE, _VNI = -1, 4096, 2 * 4096
"""Domains are numbered: n is VLAN n, 4096 + n the VLAN n of a packet that has a VNI as well, 8192 + n the VNI n."""

_versions = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an inventory: an address or a prefix, or a MAC address, or both, of a VM.

    ``network`` of a single address has all bits (/32, /128). ``mac`` is lower-case with colons. ``place`` says where it
    stands, for messages. ``load_inventory`` and ``entries_from`` make entries that have been checked.
    """

    vm: str
    tenant: str
    network: Network | None = None
    mac: str | None = None
    vlan: int | None = None
    vni: int | None = None
    host: str | None = None
    role: str | None = None
    place: str = field(default="", compare=False)

    @property
    def owner(self) -> tuple[str, str]:
        """The VM and its tenant: two tenants may each have a VM of the same name."""
        return self.vm, self.tenant


_Holders = dict[int, list[Entry]]


@dataclass(frozen=True, eq=False)
class Inventory:
    """Entries with lookups that stay fast with any number of them.

    Raises UsageError when one packet could be of two VMs: the same address, or the same MAC, in the same domain.
    ``version`` tells inventories apart, so that caches know when theirs has gone; it is 0 of an empty one.
    """

    entries: tuple[Entry, ...] = ()
    tenants: frozenset[str] = field(init=False)
    version: int = field(init=False)
    # By IP version and domain, then by the bits that the prefix leaves out, fewest first, then by the bits it has.
    _levels: dict[tuple[int, int], dict[int, _Holders]] = field(init=False, repr=False, default_factory=dict)
    _cards: dict[tuple[str, int], list[Entry]] = field(init=False, repr=False, default_factory=dict)
    _by_address: dict[tuple[int, int], list[Entry]] = field(init=False, repr=False, default_factory=dict)
    _by_mac: dict[str, list[Entry]] = field(init=False, repr=False, default_factory=dict)
    _by_owner: dict[tuple[str, str], list[Entry]] = field(init=False, repr=False, default_factory=dict)
    _tenant_of: dict[int, str | None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        object.__setattr__(self, "tenants", frozenset(entry.tenant for entry in self.entries))
        object.__setattr__(self, "version", next(_versions) if self.entries else 0)
        for entry in self.entries:
            self._add(entry)
        for key, levels in self._levels.items():
            self._levels[key] = dict(sorted(levels.items()))

    def match(self, vlans: tuple[int, ...], vni: int | None, ip: str, mac: str | None = None) -> Entry | None:
        """The entry that a packet's address belongs to; ``vlans`` and ``vni`` are the packet's, outermost tag first.

        A given domain goes before none: the VNI, then the tags from the outermost, which the operator sets, inwards.
        Within a domain the longest prefix wins. Of several lines of the VM, the one with ``mac`` is returned.
        """
        address = _octets(ip)
        if address is None:
            return None
        version, value = address
        for domain in _domains_seen(vlans, vni):
            for shift, holders in self._levels.get((version, domain), {}).items():
                if found := holders.get(value >> shift):
                    return next((entry for entry in found if mac and entry.mac == mac.lower()), found[0])
        return None

    def mac_match(self, vlans: tuple[int, ...], vni: int | None, mac: str) -> Entry | None:
        """The entry that a packet's MAC address belongs to; domains as in ``match``."""
        for domain in _domains_seen(vlans, vni):
            if found := self._cards.get((mac.lower(), domain)):
                return found[0]
        return None

    def by_mac(self, mac: str) -> list[Entry]:
        """Every entry with this MAC address, in any domain."""
        return list(self._by_mac.get(mac.lower(), ()))

    def owners(self, ip: str) -> list[Entry]:
        """Every entry with exactly this address, in any domain; no prefixes."""
        address = _octets(ip)
        return list(self._by_address.get(address, ())) if address else []

    def tenant_of_domain(self, vlans: tuple[int, ...], vni: int | None) -> str | None:
        """Whose domain this is: the tenant of all entries in it; None when there are none, or of several tenants.

        Where there is a VNI, it alone counts: the tags beside it may be those of the network that carries it. Else it
        is the outermost tag that the inventory knows.
        """
        domains = [_VNI + vni] if vni is not None else vlans
        return next((self._tenant_of[domain] for domain in domains if domain in self._tenant_of), None)

    def entries_of(self, vm: str, tenant: str) -> list[Entry]:
        """The entries of a VM, in the order of the file."""
        return list(self._by_owner.get((vm, tenant), ()))

    def has(self, vm: str, tenant: str) -> bool:
        """Whether the inventory names this VM."""
        return (vm, tenant) in self._by_owner

    def vms(self) -> list[tuple[str, str]]:
        """Every VM once, with its tenant, in the order of the file."""
        return list(self._by_owner)

    def _add(self, entry: Entry) -> None:
        domains = _domains_of(entry)
        self._by_owner.setdefault(entry.owner, []).append(entry)
        for domain in domains:
            if self._tenant_of.setdefault(domain, entry.tenant) != entry.tenant:
                self._tenant_of[domain] = None
        if entry.network is not None:
            self._add_address(entry, entry.network, domains)
        if entry.mac is not None:
            everyone = self._by_mac.setdefault(entry.mac, [])
            held = [self._cards.setdefault((entry.mac, domain), []) for domain in domains]
            _refuse("mac", entry.mac, entry, held, self._cards.get((entry.mac, _ANY), []), everyone)
            for leaf in (*held, everyone):
                leaf.append(entry)

    def _add_address(self, entry: Entry, network: Network, domains: tuple[int, ...]) -> None:
        version, shift = network.version, network.max_prefixlen - network.prefixlen
        bits = int(network.network_address) >> shift
        held = [
            self._levels.setdefault((version, domain), {}).setdefault(shift, {}).setdefault(bits, [])
            for domain in domains
        ]
        if shift:
            _refuse("address", str(network), entry, held, [], [])
        else:
            anywhere = self._levels.get((version, _ANY), {}).get(0, {}).get(bits, [])
            everyone = self._by_address.setdefault((version, bits), [])
            _refuse("address", str(network.network_address), entry, held, anywhere, everyone)
            everyone.append(entry)
        for leaf in held:
            leaf.append(entry)


class InventorySource(Protocol):
    """Where inventories come from: a file, or the interface of a cloud. docs/inventory.md shows how to write one."""

    def current(self) -> Inventory:
        """The inventory of now. Called once a window, so it has to return at once, and must not raise.

        While nothing has changed it returns the same object: caches are kept by its ``version``.
        """


def load_inventory(path: Path) -> Inventory:
    """The inventory in a file: TOML if its name ends in ``.toml``, else CSV."""
    text = _read(path)
    rows = _toml_rows(text, path) if path.suffix.lower() == ".toml" else _csv_rows(text, path)
    entries: list[Entry] = []
    for place, values in rows:
        entries += entries_from(values, place)
        if len(entries) > MOST_ENTRIES:
            raise UsageError(f"{place}: vm: more than {MOST_ENTRIES:,} entries; write prefixes for whole subnets")
    return Inventory(tuple(entries))


def entries_from(values: Mapping[str, object], place: str) -> list[Entry]:
    """The entries that one row says, one for each of its addresses; ``place`` begins the message when it is wrong.

    The keys are ``COLUMNS``. Values are texts; ``vlan`` and ``vni`` may be numbers, ``address`` a list of texts; a
    value that is empty, None or left out is not given.
    """
    for key in values:
        if key not in COLUMNS:
            raise UsageError(f"{place}: {_unknown(key, COLUMNS)}")
    given = values.get("address")
    texts = given if isinstance(given, (list, tuple)) else (given,)
    networks = [network for text in texts if (network := _value(place, "address", text)) is not None]
    rest = {key: _value(place, key, values.get(key)) for key in COLUMNS if key != "address"}
    for key in ("vm", "tenant"):
        if rest[key] is None:
            raise UsageError(f"{place}: {key}: is empty; every entry names its VM and its tenant")
    if not networks and rest["mac"] is None:
        raise UsageError(f"{place}: address: neither an address nor a MAC address is given; give at least one of them")
    return [Entry(network=network, place=place, **rest) for network in networks or (None,)]


# --- domains -------------------------------------------------------------------------------------------------------


def _domains_of(entry: Entry) -> tuple[int, ...]:
    """Where an entry is found. With a VLAN and a VNI, the VLAN stands for packets that are not in the overlay."""
    if entry.vlan is None:
        return (_ANY,) if entry.vni is None else (_VNI + entry.vni,)
    return (entry.vlan, _BESIDE + entry.vlan if entry.vni is None else _VNI + entry.vni)


def _domains_seen(vlans: tuple[int, ...], vni: int | None) -> list[int]:
    """Where a packet's entry is looked for, most specific first."""
    if vni is None:
        return [*vlans, _ANY]
    return [_VNI + vni, *(_BESIDE + tag for tag in vlans), _ANY]


def _refuse(
    key: str, what: str, entry: Entry, held: list[list[Entry]], anywhere: list[Entry], everyone: list[Entry]
) -> None:
    """Raise when another VM has ``what`` in a domain that can be the same packet's.

    ``held`` has who holds it in the entry's own domains; every list is of one VM. ``anywhere``: who holds it without a
    domain. ``everyone``: all who hold it, looked at when the entry is the first without a domain, as it fits them all.
    """
    known = [leaf[0] for leaf in held if leaf] + anywhere[:1]
    if entry.vlan is None and entry.vni is None and not known:
        known = everyone
    for other in known:
        if other.owner != entry.owner:
            raise UsageError(
                f"{entry.place}: {key}: {what} is also that of VM {other.vm!r} of tenant {other.tenant!r} "
                f"({other.place}), and one packet can fit both; give each its own vlan or vni, or remove one"
            )


def _octets(ip: str) -> tuple[int, int] | None:
    """Version and number of an address; None where the text is none. Many times faster than ``ipaddress``."""
    version, family = (6, socket.AF_INET6) if ":" in ip else (4, socket.AF_INET)
    try:
        return version, int.from_bytes(socket.inet_pton(family, ip), "big")
    except (OSError, ValueError):
        return None


# --- files ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: cannot read the inventory: not a regular file")
        with path.open("rb") as file:
            octets = file.read(MOST_OCTETS + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the inventory: {error.strerror}") from None
    if len(octets) > MOST_OCTETS:
        raise UsageError(f"{path}: file: larger than {MOST_OCTETS // 2**20} MiB; write prefixes for whole subnets")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: text: not UTF-8; save the file as UTF-8") from None


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Place and values of each line below the header. A line is read by itself, so that its number is the file's."""
    header: list[str] | None = None
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        place = f"{path}:{number}"
        cells = [] if line.lstrip().startswith("#") else _cells(line, place)
        if not any(cells):
            continue
        if header is None:
            header = _header(cells, place)
        elif any(cells[len(header) :]):
            raise UsageError(f"{place}: line: {len(cells)} values for {len(header)} columns; quote what has a comma")
        else:
            yield place, dict(zip(header, cells, strict=False))
    if header is None:
        raise UsageError(f"{path}: vm: the file is empty; its first line is: {','.join(COLUMNS)}")


def _cells(line: str, place: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise UsageError(f"{place}: line: not valid CSV: {error}; close every quote on its line") from None
    return [cell.strip(" \t\n") for cell in cells]


def _header(cells: list[str], place: str) -> list[str]:
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(cells) == 1 and mark in cells[0]:
            raise UsageError(f"{place}: line: the columns are separated by {name}; separate them by commas")
    names = [cell.lower() for cell in cells]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"{place}: {_unknown(name, COLUMNS)}")
        if names.count(name) > 1:
            raise UsageError(f"{place}: {name}: the column is there twice; remove one")
    for name in ("vm", "tenant"):
        if name not in names:
            raise UsageError(f"{place}: {name}: the column is missing; the first line is: {','.join(COLUMNS)}")
    return names


def _toml_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib lets some of Python's own ValueErrors through
        raise UsageError(f"{path}: text: not valid TOML: {error}") from None
    for key in given:
        if key != "vm":
            raise UsageError(f"{path}: {_unknown(key, ('vm',))}")
    tables = given.get("vm")
    if not isinstance(tables, list):
        raise UsageError(f"{path}: vm: no list of VMs; begin each with a line [[vm]]; vm = [] is an inventory of none")
    for number, table in enumerate(tables, 1):
        place = f"{path}: vm number {number}"
        if not isinstance(table, dict):
            raise UsageError(f"{place}: vm: not a table; begin each VM with a line [[vm]]")
        yield place, table


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{_shown(key)}: not known in an inventory; {advice}"


# --- values --------------------------------------------------------------------------------------------------------


def _value(place: str, key: str, given: object) -> Any:
    """What a value means; None when it is empty."""
    try:
        text = _text(key, given)
        return _PARSE[key](text) if text else None
    except ValueError as error:
        raise UsageError(f"{place}: {key}: {error}") from None


def _text(key: str, given: object) -> str:
    if given is None:
        return ""
    if isinstance(given, str):
        return given.strip(" \t")
    number = key in ("vlan", "vni")
    if number and isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise ValueError("takes a whole number" if number else "takes text in quotes")


def _label(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{_shown(text)} has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
    for character in () if text.isprintable() else text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"has the control character U+{ord(character):04X}; remove it")
    return text


def _name(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"{text!r} is a name that the sensor uses itself; choose another one")
    return _label(text)


def _address(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(_no_address(text)) from None
    first = network.network_address
    if "%" in text or first.is_multicast or (first in _NO_VMS and network.prefixlen == network.max_prefixlen):
        raise ValueError(f"{_shown(text)} is no address that a VM can send from; give the VM's own")
    return network


_NO_VMS = tuple(ipaddress.ip_address(text) for text in ("0.0.0.0", "255.255.255.255", "::"))


def _no_address(text: str) -> str:
    try:
        meant = ipaddress.ip_interface(text)
    except ValueError:
        return f"{_shown(text)} is no address; write for example 10.0.0.5, 10.0.0.0/24 or fd00::5"
    return f"{_shown(text)} is an address in a prefix; write {meant.ip} for one VM, or {meant.network} for all of it"


def _mac(text: str) -> str:
    pairs = re.fullmatch(r"[0-9a-f]{2}(?:([:.-]?)[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", text.lower())
    fours = re.fullmatch(r"[0-9a-f]{4}([:.-])[0-9a-f]{4}\1[0-9a-f]{4}", text.lower())
    if not pairs and not fours:
        raise ValueError(f"{_shown(text)} is no MAC address; write for example 52:54:00:12:34:56")
    digits = re.sub(r"[:.-]", "", text.lower())
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise ValueError(f"{_shown(text)} is no MAC address of a network card; give the card's own")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _number(text: str, what: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"{_shown(text)} is no {what}; write a number from {least} to {most}, or nothing")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


_PARSE: dict[str, Callable[[str], Any]] = {
    "vm": _name,
    "tenant": _name,
    "address": _address,
    "mac": _mac,
    "vlan": lambda text: _number(text, "VLAN", 1, 4094),
    "vni": lambda text: _number(text, "VNI", 0, 2**24 - 1),
    "host": _label,
    "role": _label,
}
