"""The network interfaces of this host, through netlink and ethtool: what they are, and what they have lost."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

COUNTERS = ("rx_dropped", "rx_missed_errors", "rx_fifo_errors", "rx_errors")
"""Netlink's counters (``struct rtnl_link_stats64``) of frames that came in and got no further: no handler, or no room
in a processor's backlog or for the driver; no room in the ring; in the NIC's own buffer; damaged by the cable."""

TRAFFIC = ("rx_packets", "rx_bytes")
"""And of all that came in."""

_IFF_UP = 1  # linux/if.h

_LOSS = re.compile(r"drop|discard|miss|no_?buf|no_?desc|out_of_buf|overrun|overflow|alloc_fail", re.IGNORECASE)
_SENT = re.compile(r"(^|[_-])tx", re.IGNORECASE)
_OF_A_QUEUE = re.compile(r"(rx|q|queue|ring|ch)[_-]?(q|queue|ring|ch)?[_-]?\d+[_.-]", re.IGNORECASE)
"""Drivers choose the names of ethtool's counters themselves."""


@dataclass(frozen=True)
class Interface:
    """An interface. ``state`` is its operational state (RFC 2863): up, down, unknown, ..."""

    name: str
    state: str
    mac: str | None
    mtu: int


class Link(NamedTuple):
    """An interface at a moment. ``number`` is another one once it was re-created; ``counters`` are netlink's.

    It ``is_dark`` when it is switched on and has no carrier: its cable is out, or the other end is off.
    """

    number: int
    mtu: int
    counters: Mapping[str, int]
    is_dark: bool = False


def interfaces() -> list[Interface]:
    """Every interface, in the kernel's order."""
    with IPRoute() as route:
        return list(_interfaces(route))


def _interfaces(route: IPRoute) -> Iterator[Interface]:
    for link in route.get_links():
        yield Interface(
            name=str(link.get_attr("IFLA_IFNAME")),
            state=str(link.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
            mac=link.get_attr("IFLA_ADDRESS"),
            mtu=int(link.get_attr("IFLA_MTU") or 0),
        )


class Links:
    """Asks for an interface again and again, through one socket: to open one takes longer than to ask."""

    def __init__(self) -> None:
        self._route: IPRoute | None = None

    def of(self, interface: str) -> Link | None:
        """The interface as it is now; None when there is none of that name."""
        try:
            self._route = self._route or IPRoute()
            (link,) = self._route.link("get", ifname=interface)
        except NetlinkError:
            return None
        except (OSError, ValueError):
            self.close()  # whatever is wrong with the socket, the next one is another
            return None
        is_dark = bool(link["flags"] & _IFF_UP) and link.get_attr("IFLA_CARRIER") == 0
        return Link(int(link["index"]), int(link.get_attr("IFLA_MTU") or 0), _counters(link), is_dark)

    def close(self) -> None:
        """Close the socket."""
        if self._route is not None:
            self._route.close()
        self._route = None


def link_of(interface: str) -> Link | None:
    """The interface, asked for once."""
    with contextlib.closing(Links()) as links:
        return links.of(interface)


def _counters(link: Any) -> dict[str, int]:
    told = link.get_attr("IFLA_STATS64") or link.get_attr("IFLA_STATS") or {}
    return {name: int(told[name]) for name in (*COUNTERS, *TRAFFIC) if name in told}


def backlog_drops() -> int | None:
    """Frames of any interface for which a processor had no room in its backlog; None where the kernel does not tell.

    Second column of each processor's line (``struct softnet_data``, dropped).
    """
    try:
        lines = Path("/proc/net/softnet_stat").read_text().splitlines()
        return sum(int(line.split()[1], 16) for line in lines)
    except (OSError, ValueError, IndexError):
        return None


def driver_losses(interface: str) -> dict[str, int]:
    """What the driver's own counters (``ethtool -S``) say of frames that were lost; empty where it has none of them.

    Counters of single queues are left out where the driver has any of the whole.
    """
    found = {name: count for name, count in _statistics(interface) if _LOSS.search(name) and not _SENT.search(name)}
    whole = {name: count for name, count in found.items() if not _OF_A_QUEUE.search(name)}
    return whole or found


def _statistics(interface: str) -> list[tuple[str, int]]:
    try:
        ethtool = IoctlEthtool(interface)
    except (EthtoolError, OSError, ValueError):
        return []
    try:
        return [(str(name), int(count)) for name, count in ethtool.get_statistics()]
    except (EthtoolError, OSError, ValueError, AssertionError):  # pyroute2 may assert that a driver has counters
        return []
    finally:
        ethtool.close()


def speed_of(interface: str) -> int | None:
    """The link's speed in bit/s; None where it is not known, as of most virtual interfaces."""
    try:
        megabits = int(Path("/sys/class/net", interface, "speed").read_text())
    except (OSError, ValueError):
        return None
    return megabits * 1_000_000 if megabits > 0 else None
