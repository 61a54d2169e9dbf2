"""Network cards that are not what they seem: VMs that use another tenant's address, floods of forged MACs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from sensor.analysis.cards import Seen
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit
from sensor.identity.inventory import Entry
from sensor.identity.registry import NOT_ONE_VM

LIMITS = (
    Limit("mac_flood_cards", 1000, "count", "So many cards with a single packet in a window are forged, if they are "
          "most of all cards."),
)  # fmt: skip

MOST_SAID = 1000
"""Findings in one window; ``withheld`` counts those beyond."""

SUBNET = {4: 24, 6: 64}
"""Tenants may use the same addresses: one in the subnet of a VM's own is taken for one of its own network."""


class CardDetector:
    """Tells foreign addresses, which needs an inventory with MAC addresses, and floods, which needs none."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.withheld = 0
        self._limits = limits

    def look(self, scene: Scene) -> Iterator[Finding]:
        """What this window shows."""
        yield from self._macs(scene)
        said = 0
        if not scene.inventory.entries:
            return
        for seen in scene.cards:
            for ip in seen.addresses:
                foreign = _foreign(scene, seen, ip)
                if foreign is None:
                    continue
                said += 1
                if said > MOST_SAID:
                    self.withheld += 1
                else:
                    yield _finding(*foreign, ip, seen)

    def _macs(self, scene: Scene) -> Iterator[Finding]:
        """A switch that has to learn so many cards forgets those that are real, and sends everything everywhere."""
        if scene.presence is None:
            return
        single = int((scene.presence["packets"] == 1).sum())
        if single >= self._limits["mac_flood_cards"] and 2 * single > len(scene.presence):
            detail = f"{single:,} of {len(scene.presence):,} cards have sent a single packet in {scene.seconds:g} s"
            yield Finding("mac_flood", "critical", "", "many cards", "", detail, {"cards": single})


def _foreign(scene: Scene, seen: Seen, ip: str) -> tuple[Entry, Entry] | None:
    """The card's own entry, and that of the other tenant whose address it uses; None if all is well."""
    inventory, domain = scene.inventory, seen.domain
    own = inventory.mac_match(domain.vlan, domain.vni, seen.mac)
    if own is None:
        everywhere = {entry.owner: entry for entry in inventory.by_mac(seen.mac)}
        own = next(iter(everywhere.values())) if len(everywhere) == 1 else None
    if own is None or own.role in NOT_ONE_VM:
        return None
    here = inventory.match(domain.vlan, domain.vni, ip)
    if here is not None:
        return (own, here) if here.tenant != own.tenant else None
    others = [entry for entry in inventory.owners(ip) if entry.tenant != own.tenant]
    if not others or any(entry.tenant == own.tenant for entry in inventory.owners(ip)):
        return None
    version = 6 if ":" in ip else 4
    subnet = ip_network(f"{ip}/{SUBNET[version]}", strict=False)
    mine = [entry.network for entry in inventory.entries_of(*own.owner) if entry.network is not None]
    if any(network.version == version and network.overlaps(subnet) for network in mine):
        return None
    return own, others[0]


def _finding(own: Entry, other: Entry, ip: str, seen: Seen) -> Finding:
    return Finding(
        "foreign_address", "critical", own.tenant, own.vm, ip,
        f"{own.vm} of {own.tenant} ({seen.mac}) sends from {ip}, the address of {other.vm} of {other.tenant}",
    )  # fmt: skip
