"""The capture NIC watched while it captures: what it loses, how full its link is, its carrier, and its MTU.

It reads what any user may read, so the supervisor does it. Of the interface's counters each keeps its own name; what is
added up is only what excludes one another. Netlink's ``rx_dropped`` is not in that: it has frames as well that no
protocol of this host takes, QinQ for example, though they were captured. Of what it counts, lost is what a processor's
backlog had no room for, which the kernel counts for all interfaces together: so it is at most the lesser of the two.

A mirror port whose link is full drops in the switch, where nobody counts it for us: so it is said before it is full.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sensor import nic
from sensor.analysis.findings import Finding, Scene
from sensor.nic import Link
from sensor.tap import wall_clock_ns

SAMPLE_SECONDS = 1.0
"""So often the interface is asked; a burst that fills the link for so long is seen."""

BUSY = 0.9
"""A link that is so full in one second was probably overfull within it."""

FRAME_OVERHEAD = 24
"""Octets that each Ethernet frame takes on the wire and no counter holds: preamble 8, FCS 4, gap 12 (IEEE 802.3)."""

NAMES = dict(zip(nic.COUNTERS, ("nic_rx_dropped", "nic_rx_missed", "nic_rx_fifo", "nic_rx_errors"), strict=True))
"""Netlink's counters as fields of measurement ``sensor``."""

_DRIVER = "driver"
MOST_MTUS = 16
"""Changes in one window."""

log = logging.getLogger(__name__)


class NicWatch:
    """Call ``sample`` often. A detector for the interface's events, and figures for measurement ``sensor``.

    ``speed`` in bit/s is the link's where the interface does not know it. Counters of an interface that was re-created
    begin anew, and are added to those of the one before.
    """

    def __init__(self, interface: str, speed: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interface = interface
        self._given_speed = speed
        self._clock = clock
        self._totals: Counter[str] = Counter()
        self._links = nic.Links()
        self._link = self._links.of(interface)
        self._backlog_before = nic.backlog_drops()
        self._driver = nic.driver_losses(interface)
        """What was lost before the capture is in these, and so not its loss."""
        self._mtus: list[tuple[int, int]] = []
        self._second = _Second(self._link, clock())
        self.dark_ns: int | None = None
        """Since when the link has no carrier, on the wall clock; None while it has one."""
        self._peak_bps: float | None = None
        self._open_peak_bps: float | None = None

    @property
    def number(self) -> int | None:
        """The interface's index; another one once it was re-created, None while there has been none."""
        link = self._links.of(self._interface)
        return link.number if link else None

    @property
    def dropped(self) -> int | None:
        """Frames that were received and lost before the capture socket, so far; None when nobody tells."""
        self._take(self._links.of(self._interface))
        if not self._link:
            return None
        return self._totals["rx_missed_errors"] + self._totals["rx_fifo_errors"] + (self._backlog() or 0)

    def sample(self) -> None:
        """Ask the interface, if it is time to."""
        now = self._clock()
        if now - self._second.began < SAMPLE_SECONDS:
            return
        link = self._links.of(self._interface)
        self._take(link)
        rate = self._second.rate(link, now)
        if rate is not None:
            self._open_peak_bps = max(rate, self._open_peak_bps or 0.0)
        if link is None or not link.is_dark:
            self.dark_ns = None
        elif self.dark_ns is None:
            self.dark_ns = wall_clock_ns() - round((now - self._second.began) * 1e9)  # it had one then
        self._second = _Second(link, now)

    def close(self) -> None:
        """Ask no more."""
        self._links.close()

    def figures(self) -> dict[str, int | float]:
        """For measurement ``sensor``: sums so far, and of the last window the busiest second."""
        told: dict[str, int | float] = {}
        if self._link:
            told |= {name: self._totals[counter] for counter, name in NAMES.items()}
            if (backlog := self._backlog()) is not None:
                told["nic_backlog"] = backlog
        if self._driver:
            told["nic_driver_losses"] = self._totals[_DRIVER]
        if speed := self._speed():
            told["link_speed_bps"] = speed
        if self._peak_bps is not None:
            told["link_peak_bps"] = round(self._peak_bps)
            if speed:
                told["link_busy_ratio"] = self._peak_bps / speed
        return told

    def look(self, scene: Scene) -> Iterator[Finding]:
        """What has happened to the interface since the window before."""
        self._take_driver()
        self._peak_bps, self._open_peak_bps = self._open_peak_bps, None
        mtus, self._mtus = self._mtus, []
        for before, after in mtus:
            detail = f"the MTU of {self._interface} was {before} and is {after}"
            counts = {"before": before, "after": after}
            yield Finding("mtu_changed", "info", "", self._interface, "", detail, counts, scene.start_ns, once=True)
        speed = self._speed()
        if speed and self._peak_bps is not None and self._peak_bps >= BUSY * speed:
            detail = (
                f"the busiest second of {self._interface} took {self._peak_bps / speed:.0%} of {speed / 1e9:g} Gbit/s:"
                " what of the mirror does not fit, the switch drops; mirror fewer ports, or one direction, or use a"
                " faster port"
            )
            counts = {"peak_bps": round(self._peak_bps)}
            yield Finding("mirror_oversubscribed", "warning", "", self._interface, "", detail, counts)

    def _backlog(self) -> int | None:
        now = nic.backlog_drops()
        if now is None or self._backlog_before is None:
            return None
        return min(self._totals["rx_dropped"], now - self._backlog_before)

    def _speed(self) -> int | None:
        return self._given_speed or nic.speed_of(self._interface)

    def _take(self, link: Link | None) -> None:
        if link is None:
            return  # gone for now; what it told last stands
        same = self._link if self._link and self._link.number == link.number else None
        for name in NAMES:
            self._totals[name] += max(link.counters.get(name, 0) - (same.counters.get(name, 0) if same else 0), 0)
        if self._link and self._link.mtu != link.mtu:
            self._mtus = [*self._mtus, (self._link.mtu, link.mtu)][-MOST_MTUS:]
        if not same:
            self._driver = {}
        self._link = link

    def _take_driver(self) -> None:
        found = nic.driver_losses(self._interface)
        grown = {name: count - self._driver.get(name, 0) for name, count in found.items()}
        grown = {name: count for name, count in grown.items() if count > 0}
        self._totals[_DRIVER] += sum(grown.values())
        self._driver = found or self._driver
        if grown:
            named = ", ".join(f"{name} {count}" for name, count in grown.items())
            log.warning("%s: frames lost by the NIC, as its driver calls it: %s", self._interface, named)


@dataclass(frozen=True)
class _Second:
    """When the running second began, and the interface then."""

    link: Link | None
    began: float

    def rate(self, link: Link | None, now: float) -> float | None:
        """Bit/s on the wire since then; None when the interface is gone or another one."""
        if link is None or self.link is None or link.number != self.link.number or now <= self.began:
            return None
        octets = _on_the_wire(link) - _on_the_wire(self.link)
        return max(octets, 0) * 8 / (now - self.began)


def _on_the_wire(link: Link) -> int:
    return link.counters.get("rx_bytes", 0) + FRAME_OVERHEAD * link.counters.get("rx_packets", 0)
