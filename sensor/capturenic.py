"""The capture NIC made ready for a mirror, and put back: up, unmerged packets, tags left on, largest ring, stamps.

GRO and LRO merge packets before they are captured: sizes, counts and times of single packets are gone. It takes
CAP_NET_ADMIN; without it the capture goes on as the NIC is, and says what to run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pyroute2 import Ethtool, IPRoute, NetlinkError
from pyroute2.ethtool.ioctl import EthtoolError

from sensor.nicclock import FILTER_ALL, NicClock, receive_filter, set_receive_filter

MERGING = ("rx-gro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding", "rx-lro")
TAGS = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
"""The kernel's names of the features, as ``ethtool -k`` has them, more or less."""

_IFF_UP = 1
_REFUSALS = (NetlinkError, EthtoolError, OSError, ValueError, KeyError)
"""pyroute2 raises any of these where the kernel, or a driver, does not let it."""

log = logging.getLogger(__name__)


def merging_features(interface: str) -> list[str]:
    """Those that merge packets and are switched on; none where the interface has none, or is not there."""
    ethtool = Ethtool()
    try:
        features = ethtool.get_features(interface).features
        return [name for name in MERGING if name in features and features[name].enable]
    except _REFUSALS:
        return []
    finally:
        ethtool.close()


class CaptureNic:
    """Use as a context manager around the capture. ``meet`` before each time that the interface is opened.

    ``clock``: the NIC's own, if its stamps are wanted.
    """

    def __init__(self, interface: str, clock: NicClock | None = None) -> None:
        self._interface = interface
        self._clock = clock
        self._number: int | None = None
        self._restore = ExitStack()

    def __enter__(self) -> CaptureNic:
        self.meet()
        return self

    def __exit__(self, *_: object) -> None:
        self._interface = self._name_now()
        self._restore.close()

    def meet(self) -> None:
        """Make the interface ready if it is another one than before; one that was switched off on purpose stays off."""
        with IPRoute() as route:
            found = route.link_lookup(ifname=self._interface)
        if found and found[0] != self._number:
            self._number = found[0]
            self._restore.pop_all()  # what was there before is gone
            self.bring_up()
            self.prepare()

    def _name_now(self) -> str:
        """What it is called now: it may have been renamed while it was up."""
        if self._number is None:
            return self._interface
        try:
            with IPRoute() as route:
                (link,) = route.get_links(self._number)
        except _REFUSALS:
            return self._interface
        return str(link.get_attr("IFLA_IFNAME"))

    def bring_up(self) -> None:
        """A mirror port needs no address, but has to be up. Left up at the end if it was, else taken down again."""
        with IPRoute() as route:
            found = route.link_lookup(ifname=self._interface)
            if not found or route.get_links(found[0])[0]["flags"] & _IFF_UP:
                return
            try:
                route.link("set", index=found[0], state="up")
            except _REFUSALS:
                return  # whoever opens it says that it is down, and what to do
        self._restore.callback(self._undo, self._take_down)

    def prepare(self) -> None:
        """Switch off what changes packets on their way, take the largest ring, have packets stamped."""
        ethtool = Ethtool()
        try:
            self._features(ethtool)
            self._ring(ethtool)
        finally:
            ethtool.close()
        self._stamps()

    def _features(self, ethtool: Any) -> None:
        try:
            features = ethtool.get_features(self._interface)
        except _REFUSALS:
            return  # gone, or of a kind that has none
        on = [name for name in (*MERGING, *TAGS) if name in features.features and features.features[name].enable]
        changed = [name for name in on if self._switch(ethtool, name, False)]
        if changed:
            log.info("%s: %s switched off until the capture ends", self._interface, ", ".join(changed))
            self._restore.callback(self._undo, lambda: self._switch_back(changed))
        left = [name for name in on if name in MERGING and name not in changed]
        if left:
            why = f"packets may come merged ({', '.join(left)} is on and cannot be switched off from here)"
            log.warning("%s: %s; run: ethtool -K %s gro off lro off", self._interface, why, self._interface)

    def _switch(self, ethtool: Any, name: str, on: bool) -> bool:
        """One at a time: a driver that refuses one may take the others. True when it is so afterwards."""
        try:
            features = ethtool.get_features(self._interface)
            features.features[name].enable = on
            ethtool.set_features(self._interface, features)
            return bool(ethtool.get_features(self._interface).features[name].enable) is on
        except _REFUSALS:
            return False

    def _switch_back(self, names: list[str]) -> None:
        ethtool = Ethtool()
        try:
            for name in names:
                self._switch(ethtool, name, True)
        finally:
            ethtool.close()

    def _ring(self, ethtool: Any) -> None:
        if not hasattr(ethtool, "get_rings"):
            return  # pyroute2 before 0.7.3
        try:
            ring = ethtool.get_rings(self._interface)
            if not ring.rx or not ring.rx_max or ring.rx >= ring.rx_max:
                return
            ethtool.set_rings(self._interface, rx=ring.rx_max)
        except _REFUSALS:
            return  # virtual interfaces have none
        self._restore.callback(self._undo, lambda: self._set_ring(ring.rx))

    def _set_ring(self, size: int) -> None:
        ethtool = Ethtool()
        try:
            ethtool.set_rings(self._interface, rx=size)
        finally:
            ethtool.close()

    def _stamps(self) -> None:
        """Whoever had some packets stamped before, as PTP has its own, still has them."""
        if self._clock is None or self._clock.out_of_step():
            return
        try:
            before = receive_filter(self._interface)
            if before == FILTER_ALL:
                return
            set_receive_filter(self._interface, FILTER_ALL)
        except OSError:
            return  # whoever opens it says why stamps are the host's
        log.info("%s: stamps all packets until the capture ends", self._interface)
        self._restore.callback(self._undo, lambda: set_receive_filter(self._interface, before))

    def _take_down(self) -> None:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=self._interface):
                route.link("set", index=index, state="down")

    def _undo(self, how: Callable[[], None]) -> None:
        try:
            how()
        except _REFUSALS:
            log.debug("%s: cannot be put back as it was", self._interface)  # it may be gone
