"""The inventory of VMs: which addresses and network cards belong to which VM of which tenant, and in which domain.

A domain is what keeps tenants apart that use the same addresses: a VLAN or the VNI of an overlay network. An inventory
is never changed; a new one takes its place. ``inventoryfile.py`` reads it, and its source hands out the one of now.
"""

from __future__ import annotations

import itertools
import socket
from dataclasses import dataclass, field

from sensor.config import Network
from sensor.errors import UsageError
from sensor.watch import Source

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


InventorySource = Source[Inventory]
"""Where inventories come from: a file, or the interface of a cloud. docs/inventory.md shows how to write one.

While nothing has changed it hands out the same object: caches are kept by its ``version``.
"""


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
