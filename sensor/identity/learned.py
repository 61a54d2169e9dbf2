"""What was learned from the wire: each card's addresses, host name and place, with since when and until when.

A card is a MAC address within a domain: tenants may use the same MAC addresses as well. Bounded: of more cards than
``MOST_CARDS`` the ones heard least lately are forgotten, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sensor.identity.domains import Domain, domain_of
from sensor.identity.heard import Heard
from sensor.identity.history import History, Span

MOST_CARDS = 100_000
MOST_ADDRESSES = 16
"""Addresses kept of one card; one with more is a router's or a forger's, and is not named after any."""

MOST_SWITCHES = 64


class Card(NamedTuple):
    """A MAC address in a domain, by the domain's name."""

    domain: str
    mac: str


class SwitchPort(NamedTuple):
    """Where this mirror is fed from, as LLDP or CDP say."""

    switch: str
    port: str


@dataclass
class About:
    """What is known of a card."""

    first_ns: int
    last_ns: int
    name: str | None = None
    addresses: dict[str, Span[str]] = field(default_factory=dict)
    """By address: since when and until when the card was heard to have it."""
    used: dict[str, Span[str]] = field(default_factory=dict)
    """Addresses that it has sent from, which may be those of others that it forwards for: they name nobody."""
    place: History[str] = field(default_factory=History)
    """The tunnel end (VTEP) that it is behind."""


class Learned:
    """The memory of the identity layer. ``version`` changes with every name that could come out differently."""

    def __init__(self) -> None:
        self.cards: dict[Card, About] = {}
        self.owners: dict[tuple[str, str], History[str]] = {}
        """Who has had an address: (domain, address) -> MAC addresses over time."""
        self.switches: dict[SwitchPort, int] = {}
        self.version = 0
        self.forgotten = 0

    # ---- learning

    def hear(self, heard: Iterable[Heard]) -> None:
        """Take in what packets said."""
        for said in heard:
            domain = domain_of(said.vlan, said.vni)
            if said.kind == "switch_port":
                self._switch(said)
                continue
            about = self.card(Card(domain.name, said.mac), said.ts_ns)
            if said.vtep:
                about.place.see(said.vtep, said.ts_ns)
            if said.kind == "binding" and said.ip:
                self.binding(Card(domain.name, said.mac), said.ip, said.ts_ns)
            elif said.kind == "hostname" and said.name:
                if said.ip:
                    self.binding(Card(domain.name, said.mac), said.ip, said.ts_ns)
                self.version += about.name != said.name
                about.name = said.name

    def see(self, card: Card, addresses: Iterable[str], vtep: str | None, time_ns: int) -> None:
        """The card has sent from these addresses, from behind this tunnel end."""
        about = self.card(card, time_ns)
        if vtep:
            about.place.see(vtep, time_ns)
        for ip in addresses:
            if ip in about.used:
                about.used[ip].to_ns = max(about.used[ip].to_ns, time_ns)
            elif len(about.used) < MOST_ADDRESSES:
                about.used[ip] = Span(ip, time_ns, time_ns)

    def card(self, card: Card, time_ns: int) -> About:
        """What is known of a card that was heard at this time."""
        about = self.cards.pop(card, None)
        if about is None:
            about = About(time_ns, time_ns)
            self._make_room()
        about.last_ns = max(about.last_ns, time_ns)
        self.cards[card] = about  # at the end: the order is that of when they were last heard
        return about

    def binding(self, card: Card, ip: str, time_ns: int) -> None:
        """The card has the address."""
        about = self.card(card, time_ns)
        span = about.addresses.get(ip)
        if span is not None:
            span.to_ns = max(span.to_ns, time_ns)
        elif len(about.addresses) < MOST_ADDRESSES:
            about.addresses[ip] = Span(ip, time_ns, time_ns)
            self.version += 1
        owners = self.owners.setdefault((card.domain, ip), History())
        if owners.see(card.mac, time_ns) is not None:
            self.version += 1

    def _switch(self, said: Heard) -> None:
        place = SwitchPort(said.name or "", said.port or "")
        if place in self.switches or len(self.switches) < MOST_SWITCHES:
            self.switches[place] = said.ts_ns

    def _make_room(self) -> None:
        while len(self.cards) >= MOST_CARDS:
            card, about = next(iter(self.cards.items()))
            del self.cards[card]
            for ip in about.addresses:
                self.owners.pop((card.domain, ip), None)
            self.forgotten += 1

    # ---- answers

    def name_of(self, domain: Domain, ip: str, mac: str, time_ns: int) -> str | None:
        """The host name of whoever has the address: by its own card, else by the card that it was bound to then."""
        own = self.cards.get(Card(domain.name, mac))
        if own is not None and own.name and (ip in own.addresses or not own.addresses):
            return own.name
        owners = self.owners.get((domain.name, ip))
        bound = owners.at(time_ns) if owners else None
        about = self.cards.get(Card(domain.name, bound)) if bound else None
        return about.name if about else None

    # ---- over restarts

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "cards": [
                [*card, about.first_ns, about.last_ns, about.name, about.place.to_json(),
                 *([[span.value, span.from_ns, span.to_ns] for span in spans.values()]
                   for spans in (about.addresses, about.used))]
                for card, about in self.cards.items()
            ],
            "switches": [[*place, heard_ns] for place, heard_ns in self.switches.items()],
            "owners": [[*key, owners.to_json()] for key, owners in self.owners.items()],
        }  # fmt: skip

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Learned:
        """What ``to_json`` gave; ValueError, TypeError, KeyError or IndexError when it is something else."""
        learned = cls()
        for domain, mac, first_ns, last_ns, name, place, addresses, used in kept["cards"][-MOST_CARDS:]:
            about = About(int(first_ns), int(last_ns), None if name is None else str(name))
            about.place = History.of(_spans(place))
            about.addresses = {span.value: span for span in _spans(addresses[:MOST_ADDRESSES])}
            about.used = {span.value: span for span in _spans(used[:MOST_ADDRESSES])}
            learned.cards[Card(str(domain), str(mac))] = about
        for domain, ip, owners in kept["owners"]:
            learned.owners[str(domain), str(ip)] = History.of(_spans(owners))
        for switch, port, heard_ns in kept["switches"][:MOST_SWITCHES]:
            learned.switches[SwitchPort(str(switch), str(port))] = int(heard_ns)
        return learned


def _spans(kept: list[Any]) -> Iterator[Span[str]]:
    return (Span(str(value), int(from_ns), int(to_ns)) for value, from_ns, to_ns in kept)
