"""The network interfaces of this host, through netlink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyroute2 import IPRoute


@dataclass(frozen=True)
class Interface:
    """An interface. ``state`` is its operational state (RFC 2863): up, down, unknown, ..."""

    name: str
    state: str
    mac: str | None
    mtu: int


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
