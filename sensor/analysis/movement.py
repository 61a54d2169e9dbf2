"""Where network cards are, and when they move: live migration with its blackout and RTT step, and new addresses.

A card is placed by the domain that it is seen in and the tunnel end (VTEP) that it is behind. Hypervisors announce a
migrated card by RARP (QEMU, VMware) or gratuitous ARP, so that switches learn its new port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sensor.analysis.cards import Place, Seen
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.limit import Limit
from sensor.identity.endpoints import mac_text
from sensor.native import NumpyArray

MOST_CARDS = 100_000
ADDRESSES_KEPT = 8

LIMITS = (
    Limit("vm_blackout_most", 10, "seconds", "A longer silence before a gratuitous ARP is idleness, no migration."),
    Limit("vm_blackout_factor", 20, "ratio", "A silence before a gratuitous ARP is a blackout if it is so many times "
          "longer than the VM's usual time between packets."),
    Limit("vm_address_wait", 60, "seconds", "A VM has changed its address when the old one was silent for so long "
          "after the first packet from the new one."),
)  # fmt: skip


@dataclass
class _Card:
    place: Place
    host: str | None = None
    addresses: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First and last seen, by address."""
    rtt_us: float | None = None
    """Base RTT around the VM since it has been where it is."""


@dataclass
class _Move:
    """A migration whose RTT afterwards is still to come."""

    finding: Finding
    rtt_before_us: float | None


class MovementWatch:
    """A detector of cards that have moved, and of VMs that have changed their address."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.forgotten = 0
        self._limits = limits
        self._cards: dict[tuple[str, str], _Card] = {}
        self._moves: dict[tuple[str, str], _Move] = {}

    def look(self, scene: Scene) -> Iterable[Finding]:
        """What this window shows. A migration is told in the window behind it, with the RTT that it has brought."""
        announced = _announced(scene)
        gaps = _gaps(scene.presence)
        findings: list[Finding] = []
        for seen in scene.cards:
            key = (scene.parties.tenants[seen.vm], seen.mac)
            if key in self._moves:
                findings += self._settle(key, seen.rtt_us)
            findings += self._follow(key, seen, scene, announced.get(seen.mac), gaps.get(seen.mac))
        return findings

    def flush(self) -> list[Finding]:
        """Migrations that no window came behind."""
        return [finding for key in list(self._moves) for finding in self._settle(key, None)]

    def _follow(
        self, key: tuple[str, str], seen: Seen, scene: Scene, announced: tuple[str, int] | None,
        gap: tuple[int, int, int] | None,
    ) -> Iterable[Finding]:  # fmt: skip
        card = self._cards.pop(key, None)
        host = scene.parties.hosts[seen.vm]
        if card is None:
            self._make_room()
            card = _Card(seen.place, host)
        elif reason := self._moved(card, seen, host, announced, gap, scene):
            self._moves[key] = _Move(_migrated(seen, scene, card, host, reason, gap), card.rtt_us)
            card.rtt_us = None
        card.place = seen.place if seen.place.vtep or seen.place.domain != card.place.domain else card.place
        card.host = host or card.host
        if seen.rtt_us is not None and (card.rtt_us is None or seen.rtt_us < card.rtt_us):
            card.rtt_us = seen.rtt_us
        self._cards[key] = card
        for ip in seen.addresses:
            first_ns, _ = card.addresses.pop(ip, (scene.start_ns, 0))
            card.addresses[ip] = (first_ns, scene.end_ns)
        return self._changed(card, seen, scene) if len(card.addresses) > 1 else ()

    def _moved(
        self, card: _Card, seen: Seen, host: str | None, announced: tuple[str, int] | None,
        gap: tuple[int, int, int] | None, scene: Scene,
    ) -> str | None:  # fmt: skip
        """Why it is taken to have moved; None if it is not."""
        old, new = card.place, seen.place
        if old.domain != new.domain or (old.vtep and new.vtep and old.vtep != new.vtep):
            return f"from {old.text} to {new.text}"
        if host and card.host and host != card.host:
            return f"from {card.host} to {host} by the inventory"
        if announced and announced[0] == "rarp":
            return "announced by RARP"
        if announced and gap and self._is_blackout(gap, scene.seconds):
            return "announced by gratuitous ARP after a silence"
        return None

    def _is_blackout(self, gap: tuple[int, int, int], seconds: float) -> bool:
        gap_ns, _, packets = gap
        usual_ns = seconds * 1e9 / max(packets, 1)
        most_ns = self._limits["vm_blackout_most"] * 1e9
        return self._limits["vm_blackout_factor"] * usual_ns <= gap_ns <= most_ns

    def _settle(self, key: tuple[str, str], rtt_us: float | None) -> Iterator[Finding]:
        move = self._moves.pop(key, None)
        if move is None:
            return
        counts = dict(move.finding.counts)
        detail = move.finding.detail
        if move.rtt_before_us is not None and rtt_us is not None:
            counts |= {"rtt_before_us": round(move.rtt_before_us), "rtt_after_us": round(rtt_us)}
            detail += f"; RTT {move.rtt_before_us:.0f} us before, {rtt_us:.0f} us after"
        yield Finding(**{**vars(move.finding), "counts": counts, "detail": detail})

    def _changed(self, card: _Card, seen: Seen, scene: Scene) -> Iterator[Finding]:
        """Addresses that have given way to others."""
        wait_ns = int(self._limits["vm_address_wait"] * 1e9)
        for new in seen.addresses:
            first_ns, last_ns = card.addresses[new]
            for old, (_, until_ns) in list(card.addresses.items()):
                same_family = (":" in old) == (":" in new)
                if old != new and same_family and until_ns <= first_ns and last_ns - until_ns >= wait_ns:
                    del card.addresses[old]
                    detail = f"had {old} until then"
                    yield _said("vm_address_changed", scene, seen, new, detail, first_ns)
        while len(card.addresses) > ADDRESSES_KEPT:
            del card.addresses[next(iter(card.addresses))]

    def _make_room(self) -> None:
        while len(self._cards) >= MOST_CARDS:
            del self._cards[next(iter(self._cards))]
            self.forgotten += 1


def _said(kind: str, scene: Scene, seen: Seen, what: str, detail: str, time_ns: int) -> Finding:
    parties = scene.parties
    return Finding(kind, "info", parties.tenants[seen.vm], parties.names[seen.vm], what, detail, {}, time_ns, once=True)


def _migrated(
    seen: Seen, scene: Scene, card: _Card, host: str | None, reason: str, gap: tuple[int, int, int] | None
) -> Finding:
    counts = {"blackout_us": gap[0] // 1000} if gap and gap[0] else {}
    silence = f"; longest silence {gap[0] / 1e6:.1f} ms" if counts and gap else ""
    where = host if host and host != card.host else seen.place.vtep or seen.place.domain
    parties = scene.parties
    return Finding(
        "vm_migrated", "info", parties.tenants[seen.vm], parties.names[seen.vm], where,
        f"{seen.mac} has moved: {reason}{silence}", counts, gap[1] if gap and gap[0] else scene.start_ns, once=True,
    )  # fmt: skip


# ---- what a window says of cards


def _announced(scene: Scene) -> dict[str, tuple[str, int]]:
    """RARP and gratuitous ARP by MAC; a RARP counts more."""
    found: dict[str, tuple[str, int]] = {}
    for said in scene.heard:
        if said.kind == "rarp":
            found[said.mac] = ("rarp", said.ts_ns)
        elif said.kind == "binding" and said.gratuitous and said.mac not in found:
            found[said.mac] = ("garp", said.ts_ns)
    return found


def _gaps(presence: NumpyArray | None) -> dict[str, tuple[int, int, int]]:
    """Longest silence, its end, and the number of packets, by MAC."""
    if presence is None:
        return {}
    columns = zip(*(presence[name].tolist() for name in ("mac", "gap_ns", "gap_end_ns", "packets")), strict=True)
    return {mac_text(mac): (gap_ns, gap_end_ns, packets) for mac, gap_ns, gap_end_ns, packets in columns}
