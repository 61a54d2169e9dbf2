"""``vmsensor mirror verify``: a few seconds of what a mirror delivers, what is wrong with it, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sensor import native
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.trust import sides
from sensor.native import NumpyArray
from sensor.window import Report, present

MOST_FLOWS = 1_000_000
"""Of which directions are noted."""

FEW = 0.02
"""A share below this is nothing to change a mirror for."""

CUT = ("fate_short_link", "fate_short_ip", "fate_short_transport")


class Verdict(NamedTuple):
    """One line: what was looked at, ``ok``, ``look`` or ``FAIL``, and what was found."""

    what: str
    grade: str
    text: str


@dataclass
class Evidence:
    """What the windows have shown, added up. A detector, for the records, and a function for the reports."""

    counts: Counter[str] = field(default_factory=Counter)
    vlans: Counter[int] = field(default_factory=Counter)
    tunnels: Counter[str] = field(default_factory=Counter)
    vnis: set[int] = field(default_factory=set)
    sides: dict[int, bool] = field(default_factory=dict)
    """Of each TCP flow, whether both its directions came."""
    switch: str | None = None
    port: str | None = None

    def look(self, scene: Scene) -> Iterable[Finding]:
        """Take a window's records in; it finds nothing itself."""
        records = scene.records
        packets = records["c2s_packets"].astype(np.int64) + records["s2c_packets"]
        seen = sides(records)
        self.counts["packets"] += int(packets.sum())
        self._note_sides(records["flow_id"], seen.one, seen.both)
        self.counts["merged"] += sum(
            int(np.maximum(records[f"{side}_data_packets"].astype(np.int64) - records[f"{side}_packets"], 0).sum())
            for side in ("c2s", "s2c")
        )
        tagged = records["vlan_count"] > 0
        for vlan, count in zip(records["vlan"][tagged, 0].tolist(), packets[tagged].tolist(), strict=True):
            self.vlans[vlan] += count
        for kind, count in zip(records["tunnel"].tolist(), packets.tolist(), strict=True):
            self.tunnels[native.TUNNELS[kind]] += count
        self.vnis |= set(records["vni"][records["flags"] & native.HAS_VNI != 0].tolist())
        return ()

    def _note_sides(self, numbers: NumpyArray, one: NumpyArray, both: NumpyArray) -> None:
        """A flow is in several windows, and counts once: as it was seen last."""
        if len(self.sides) < MOST_FLOWS:
            self.sides.update(dict.fromkeys(numbers[one].tolist(), False))
            self.sides.update(dict.fromkeys(numbers[both].tolist(), True))

    def take(self, report: Report) -> None:
        """Take a window's measurement of the sensor in."""
        for name, column in report.table("sensor").fields.items():
            if not present(column)[0]:
                continue
            if name == "mirror_switch":
                self.switch = str(column.values[0])
            elif name == "mirror_port":
                self.port = str(column.values[0])
            elif column.values.dtype.kind in "iu":
                self.counts[name] += int(column.values[0])


def verdicts(found: Evidence, seconds: float) -> Iterator[Verdict]:
    """What to say of it, one line each."""
    received = found.counts["received"]
    if not received:
        yield Verdict(
            "received", "FAIL", f"nothing in {seconds:g} s: is the session up, and this its destination port?"
        )
        return
    yield _received(found, seconds)
    yield _directions(found)
    yield _duplicates(found)
    yield _tags(found)
    yield _tunnels(found)
    yield from _damage(found)
    if found.switch:
        yield Verdict("fed by", "ok", f"{found.switch}, port {found.port or '?'}")
    else:
        yield Verdict("fed by", "ok", "not told: no LLDP or CDP was heard; switches send it every 30 or 60 s")


def _received(found: Evidence, seconds: float) -> Verdict:
    lost = found.counts["dropped_kernel"] + found.counts["dropped_nic"]
    text = f"{found.counts['received']:,} packets in {seconds:g} s"
    if not lost:
        return Verdict("received", "ok", f"{text}, none dropped here")
    return Verdict("received", "look", f"{text}, and {lost:,} dropped here; give it more --workers, or --buffer-size")


def _directions(found: Evidence) -> Verdict:
    both = sum(found.sides.values())
    one = len(found.sides) - both
    if not one + both:
        return Verdict("directions", "look", "no TCP was seen, which would tell whether both directions are mirrored")
    share = one / (one + both)
    if share <= FEW:
        return Verdict("directions", "ok", f"both, of {both:,} TCP flows")
    advice = "mirror both (rx and tx) of the ports, or every port that takes part"
    return Verdict("directions", "look", f"only one of {share:.0%} of {one + both:,} TCP flows; {advice}")


def _duplicates(found: Evidence) -> Verdict:
    copies, received = found.counts["fate_mirror_duplicate"], found.counts["received"]
    if copies / received <= FEW:
        return Verdict("duplicates", "ok", "none" if not copies else f"{copies:,} packets")
    text = f"{copies / received:.0%} of the packets come twice: both ends are mirrored. They are counted once"
    return Verdict("duplicates", "look", f"{text}; to spare the port, mirror one direction (rx) of all ports")


def _tags(found: Evidence) -> Verdict:
    if not found.vlans:
        why = "access ports, or the mirror strips them; tenants on the same addresses then look alike"
        return Verdict("VLAN tags", "ok", f"none: {why}")
    named = ", ".join(str(vlan) for vlan, _ in found.vlans.most_common(8))
    share = sum(found.vlans.values()) / max(found.counts["packets"], 1)
    return Verdict("VLAN tags", "ok", f"on {share:.0%} of the packets: {named}")


def _tunnels(found: Evidence) -> Verdict:
    kinds = {kind: count for kind, count in found.tunnels.most_common() if kind != "none" and count}
    if not kinds:
        return Verdict("tunnels", "ok", "none")
    named = ", ".join(f"{kind} {count / max(found.counts['packets'], 1):.0%}" for kind, count in kinds.items())
    vnis = f", VNIs {', '.join(map(str, sorted(found.vnis)[:8]))}" if found.vnis else ""
    return Verdict("tunnels", "ok", f"{named}{vnis}")


def _damage(found: Evidence) -> Iterator[Verdict]:
    received = found.counts["received"]
    cut = sum(found.counts[name] for name in CUT)
    if cut:
        text = f"{cut:,} packets end inside their headers; let the mirror send at least 128 octets"
        yield Verdict("truncation", "look", text)
    elif found.counts["truncated"]:
        share = found.counts["truncated"] / received
        text = f"{share:.0%} of the packets come cut, but with their headers; lengths are those that these tell"
        yield Verdict("truncation", "ok", text)
    if found.counts["merged"]:
        text = (
            "packets come merged: their source, on this host, has not cut them yet (TSO, GSO). Their segments are"
            " counted; to see them as on a wire, run for each SOURCE: ethtool -K SOURCE tso off gso off"
        )
        yield Verdict("super-packets", "look", text)
    unseen = found.counts["unseen_bytes"]
    if unseen:
        text = f"{unseen:,} octets were ACKed and never shown: the mirror drops; its port may be oversubscribed"
        yield Verdict("mirror loss", "look", text)
    odd = found.counts["fate_not_ip"] + found.counts["fate_unknown_link"]
    if odd / received > FEW:
        yield Verdict("other", "look", f"{odd / received:.0%} of the packets are not IP")
