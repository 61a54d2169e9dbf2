"""Forged and duplicate addresses: two cards that claim one address by ARP or neighbour discovery, both of them alive.

A claim is what a packet says of its sender's address. That another card takes an address over is no attack: a failover
does it, and so does the failing back. What tells a contest is that the first card is still there after the second one's
claim, and that the second one claims again after that. Who claims again and again though nobody has asked poisons
caches (S. Whalen, *An Introduction to ARP Spoofing*, 2001; L. Nelson's arpwatch calls the pattern flip-flop); two cards
that merely answer the same question have been given the same address (RFC 5227).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit, in_ns
from sensor.identity.domains import Domain, domain_of
from sensor.identity.endpoints import end_text, having
from sensor.identity.heard import Heard
from sensor.identity.registry import NOT_ONE_VM

LIMITS = (
    Limit("spoof_memory", 60, "seconds", "A card that was not heard with an address for so long has it no more."),
    Limit("spoof_grace", 2, "seconds", "A card that is heard so long after another one's claim has not given way."),
    Limit("spoof_claims", 3, "count", "So many claims that nobody asked for are forged; fewer, a duplicate address."),
)

MOST_ADDRESSES = 100_000
"""Claimed addresses remembered; the ones claimed least lately are forgotten, and counted."""

MOST_CLAIMANTS = 4
"""Cards remembered of one address."""

MOST_FLOWS = 10_000
"""Flows of contested addresses that are looked at in a window: one of them is enough."""

PROXY_ADDRESSES = 16
"""A card that answers for more addresses than this is a proxy (RFC 1027), no duplicate."""

ASKED_NS = 2_000_000_000
"""A claim so soon after a question answers it."""

_SHARED = ("00:00:5e:00:01:", "00:00:5e:00:02:", "00:00:0c:07:ac:")
"""VRRP (RFC 9568) and HSRP: the card of whichever router is the master."""

Key = tuple[str, str]
"""A domain's name and an address."""


@dataclass
class _Claim:
    """What one card has said of one address; one that has only sent from it has said nothing."""

    first_ns: int
    last_ns: int
    heard_ns: int
    """When the card was last heard with the address, by a claim or by traffic."""
    claims: int = 0
    unasked: int = 0
    after_ns: int | None = None
    """When the one that had it before was heard again, after this card's first claim."""
    again: int = 0
    """How often it was heard since then."""
    subject: str | None = None
    """What the card is called in findings: the same as long as it goes on, or one event would become two."""


@dataclass
class _Contest:
    """Who has claimed an address, in the order of their first claims."""

    claims: dict[str, _Claim] = field(default_factory=dict)
    asked_ns: int = 0


class SpoofDetector:
    """Tells addresses that two cards claim at the same time."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self._limits = limits
        self._contests: dict[Key, _Contest] = {}
        self._names: dict[tuple[str, str], str] = {}
        """VMs by domain and card, as they were last seen."""

    def look(self, scene: Scene) -> Iterator[Finding]:
        """The addresses that are contested in this window."""
        touched: dict[Key, Domain] = {}
        for said in scene.heard:
            domain = domain_of(said.vlan, said.vni)
            if said.kind == "request" and said.target:
                contest = self._contests.get((domain.name, said.target))
                if contest:
                    contest.asked_ns = said.ts_ns
            elif said.kind == "binding" and said.ip and not said.mac.startswith(_SHARED):
                self._claim((domain.name, said.ip), said)
                touched[domain.name, said.ip] = domain
        self._traffic(scene)
        for key, domain in touched.items():
            yield from self._judge(key, domain, scene)
        self._forget(scene.end_ns)

    # ---- what is remembered

    def _claim(self, key: Key, said: Heard) -> None:
        contest = self._contests.pop(key, None) or _Contest()
        self._contests[key] = contest  # at the end: the order is that of the last claims
        claim = contest.claims.get(said.mac)
        if claim is None:
            if len(contest.claims) >= MOST_CLAIMANTS:
                self.forgotten += 1
                return
            claim = contest.claims[said.mac] = _Claim(said.ts_ns, said.ts_ns, said.ts_ns)
        claim.claims += 1
        claim.last_ns = max(claim.last_ns, said.ts_ns)
        asked = said.reply and not said.gratuitous and said.ts_ns - contest.asked_ns <= ASKED_NS
        claim.unasked += (said.gratuitous or said.reply) and not asked
        self._heard(contest, said.mac, said.ts_ns)

    def _heard(self, contest: _Contest, mac: str, time_ns: int) -> None:
        """A card was heard with the address: those that came to have it after the card did have not replaced it."""
        own = contest.claims[mac]
        own.heard_ns = max(own.heard_ns, time_ns)
        own.again += own.after_ns is not None and time_ns > own.after_ns
        for other, claim in contest.claims.items():
            later = (
                other != mac
                and claim.first_ns >= own.first_ns
                and time_ns - claim.first_ns >= in_ns(self._limits, "spoof_grace")
            )
            if later and claim.after_ns is None:
                claim.after_ns = time_ns
                claim.again += claim.heard_ns > time_ns

    def _traffic(self, scene: Scene) -> None:
        """Packets from a claimed address show which card uses it, whether that card has claimed it or not.

        In a window that begins after a claim any packet does; in the window of the claim, a flow that began after it.
        """
        for seen in scene.cards:
            if seen.addresses:  # none but link-local ones name nobody
                self._names[seen.place.domain, seen.mac] = scene.parties.names[seen.vm]
        contested = set()
        for seen in scene.cards if self._contests else ():
            for ip in seen.addresses:
                contest = self._contests.get((seen.place.domain, ip))
                if contest and (len(contest.claims) > 1 or seen.mac not in contest.claims):
                    contested.add(ip)
                    if seen.mac in contest.claims:
                        self._heard(contest, seen.mac, scene.start_ns)
        if not contested:
            return
        parties, records = scene.parties, scene.records
        ends = having(parties.endpoints, contested)
        sent = np.concatenate([records["c2s_packets"], records["s2c_packets"]]) > 0
        single = {(seen.domain, seen.mac) for seen in scene.cards}
        for row in np.flatnonzero(np.isin(parties.end_of, ends) & sent)[:MOST_FLOWS].tolist():
            domain, ip, mac, _, _ = end_text(parties.endpoints[parties.end_of[row]].tobytes())
            contest = self._contests.get((domain.name, ip))
            if contest and (domain, mac) in single:
                self._used(contest, mac, int(records["start_ns"][row % len(records)]))

    def _used(self, contest: _Contest, mac: str, time_ns: int) -> None:
        """A card has sent from the address, in a flow that began at this time."""
        if mac not in contest.claims:
            if len(contest.claims) >= MOST_CLAIMANTS:
                return
            contest.claims[mac] = _Claim(time_ns, time_ns, time_ns)
        self._heard(contest, mac, time_ns)

    def _forget(self, now_ns: int) -> None:
        for key in list(self._contests):
            contest = self._contests[key]
            for mac in [
                mac
                for mac, one in contest.claims.items()
                if abs(now_ns - one.heard_ns) > in_ns(self._limits, "spoof_memory")
            ]:
                # The only one that claims an address keeps it: whoever comes later has taken it over.
                if len(contest.claims) > 1:
                    del contest.claims[mac]
        for held in (self._contests, self._names):
            while len(held) > MOST_ADDRESSES:
                del held[next(iter(held))]
                self.forgotten += 1

    # ---- what is said

    def _judge(self, key: Key, domain: Domain, scene: Scene) -> Iterator[Finding]:
        claims = self._contests[key].claims
        first, *others = sorted(claims, key=lambda mac: claims[mac].first_ns)
        listed = _listed(scene, domain, key[1])
        for mac in others:
            pair = (first, mac)
            if not claims[mac].again or any(_is_router(scene, domain, one) for one in pair) or {*pair} <= listed:
                continue  # replaced; or a router; or a bond, which answers with one of its cards or another
            forger = self._forger(claims, pair, listed)
            if forger and claims[forger].last_ns >= scene.start_ns:
                owner = mac if forger == first else first
                yield self._finding(key, domain, scene, owner, forger, True)
            elif not forger and all(claims[one].claims for one in pair) and not self._is_proxy(*pair):
                yield self._finding(key, domain, scene, first, mac, False)

    def _forger(self, claims: Mapping[str, _Claim], pair: tuple[str, str], listed: set[str]) -> str | None:
        """Which of two cards forges: the one that the inventory does not know, or that claims what nobody asks for."""
        for one, other in (pair, pair[::-1]):
            if other in listed and claims[one].claims:
                return one
        for one, other in (pair, pair[::-1]):
            if claims[one].unasked >= int(self._limits["spoof_claims"]) * max(claims[other].unasked, 1):
                return one
        return None

    def _is_proxy(self, *macs: str) -> bool:
        """Whether one of the cards answers for many addresses."""
        answered = [sum(mac in contest.claims for contest in self._contests.values()) for mac in macs]
        return max(answered) > PROXY_ADDRESSES

    def _finding(
        self, key: Key, domain: Domain, scene: Scene, owner: str, mac: str, forged: bool
    ) -> Finding:  # fmt: skip
        ip, claim = key[1], self._contests[key].claims[mac]
        said = f"{claim.claims:,} claims, {claim.unasked:,} of them unasked"
        tenant = scene.inventory.tenant_of_domain(domain.vlan, domain.vni) or domain.name
        if not forged:
            detail = f"{mac} and {owner} both have {ip}; of {mac}: {said}"
            return Finding("duplicate_address", "warning", tenant, mac, ip, detail, {"claims": claim.claims})
        kind = "nd_spoof" if ":" in ip else "arp_spoof"
        detail = f"{mac} forges {ip}, which {owner} still uses: {said}"
        claim.subject = claim.subject or self._name(scene, domain, mac)
        return Finding(kind, "critical", tenant, claim.subject, ip, detail, {"claims": claim.claims})

    def _name(self, scene: Scene, domain: Domain, mac: str) -> str:
        """A card's VM; else an address that nobody else claims; else the card itself."""
        known = scene.inventory.mac_match(domain.vlan, domain.vni, mac)
        if known:
            return known.vm
        own = (key[1] for key, one in self._contests.items() if key[0] == domain.name and list(one.claims) == [mac])
        return self._names.get((domain.name, mac)) or next(own, mac)


def _is_router(scene: Scene, domain: Domain, mac: str) -> bool:
    entry = scene.inventory.mac_match(domain.vlan, domain.vni, mac)
    return entry is not None and entry.role in NOT_ONE_VM


def _listed(scene: Scene, domain: Domain, ip: str) -> set[str]:
    """The cards that the inventory gives the VM with this address."""
    entry = scene.inventory.match(domain.vlan, domain.vni, ip)
    if entry is None or entry.network is None or entry.network.prefixlen < entry.network.max_prefixlen:
        return set()
    return {one.mac for one in scene.inventory.entries_of(*entry.owner) if one.mac}
