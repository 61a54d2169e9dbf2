"""Mirrors of Linux interfaces: ``tc mirred`` on the ports of VMs, through netlink.

Each source gets one filter for each direction, with a handle that is this program's own, so that what is here is known
without notes, adding twice is adding once, and nothing of anybody else's is touched.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from sensor.errors import InterfaceError, PrivilegeError

PREFERENCES = range(13, 0, -1)
"""Of the filters, the first that nobody has; low, as a filter in front of them may decide about a frame for good."""

GUEST, HOST = 0x5E5, 0x5E6
"""Handles of the filters: in a queue that was there, and in one that was made for them and goes with them."""

TUNNEL = "vmsensor-mirror"
"""The VXLAN interface to a sensor on another host."""

VXLAN_PORT = 4789  # RFC 7348
HOOKS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # clsact, linux/pkt_sched.h
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
_EPERM = 1


class Mirrored(NamedTuple):
    """A source, one direction of it, and where its frames are copied to."""

    source: str
    direction: str
    target: str


class Destination(NamedTuple):
    """Where copies go: to an interface of this host, or to a sensor on another, by VXLAN."""

    interface: str | None
    host: str = ""
    vni: int = 0


class Mirror:
    """The mirrors by ``tc``. Use as a context manager; failures are InterfaceErrors and PrivilegeErrors.

    See ``mirrors.Kind``.
    """

    def __enter__(self) -> Mirror:
        self._route = IPRoute()
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()

    def knows(self, name: str) -> bool:
        """Whether there is such an interface."""
        return bool(self._route.link_lookup(ifname=name))

    def check(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> None:
        """Refuse what cannot be mirrored."""
        for name in (*sources, *([] if destination.interface is None else [destination.interface])):
            self._index(name)
        for source in sources:
            if "egress" in directions and self._queue(self._index(source)) == "ingress":
                raise InterfaceError(
                    f"{source}: tc has an ingress queue there, as libvirt's bandwidth limits make one, and so no place "
                    "for egress; give --direction ingress, or mirror the port on the other side"
                )
        others = [one.source for one in self.listed() if one.target == TUNNEL and one.source not in sources]
        tunnel = self._tunnel()
        if destination.interface is None and others and tunnel not in (None, destination[1:]):
            raise InterfaceError(
                f"{destination.host}: {TUNNEL} is the tunnel for {others[0]}, to {tunnel[0]} with VNI {tunnel[1]}; "
                "give the same, or `vmsensor mirror remove` the others first"
            )

    def add(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> list[Mirrored]:
        """Copy the frames of all sources, in place of what was mirrored of them before."""
        target = destination.interface
        if target is None:
            target = self._tunnel_to(destination.host, destination.vni)
        wanted = [Mirrored(source, direction, target) for source in sources for direction in directions]
        self._mirror(sources, wanted)
        return wanted

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Have the mirrors as they were before the block, where it fails."""
        before, tunnel = self.listed(), self._tunnel()
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the first failure is the one to be told
                self._restore(before, tunnel)
            raise

    def listed(self) -> list[Mirrored]:
        """Everything that is mirrored by this program."""
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in self._route.get_links()}
        return [
            Mirrored(name, direction, names.get(to, "an interface that is gone"))
            for number, name in names.items() for direction, to in self._targets(number)
        ]  # fmt: skip

    def end(self, sources: Sequence[str]) -> None:
        """End the mirrors of these sources, and the tunnel with the last that goes into it."""
        for source in sources:
            self._clear(self._index(source))
        if not any(one.target == TUNNEL for one in self.listed()):
            self._remove_tunnel()

    def _mirror(self, sources: Sequence[str], wanted: Sequence[Mirrored]) -> None:
        """Have these mirrors, and no others, of these sources."""
        for source in sources:
            number = self._index(source)
            handle = HOST if self._clear(number) else GUEST
            for one in wanted:
                if one.source == source:
                    with _explained(source, "add a mirror"):
                        if self._queue(number) is None:
                            self._route.tc("add", "clsact", index=number)
                            handle = HOST
                        self._filter(source, HOOKS[one.direction], handle, self._index(one.target))

    def _restore(self, before: Sequence[Mirrored], tunnel: tuple[str, int] | None) -> None:
        if tunnel is not None:
            self._tunnel_to(*tunnel)
        now = self.listed()
        changed = sorted({one.source for one in {*before} ^ {*now}})
        self._mirror(changed, [one for one in before if self.knows(one.target)])
        if tunnel is None:
            self._remove_tunnel()

    def _tunnel(self) -> tuple[str, int] | None:
        """The sensor's address and the VNI of the VXLAN interface, where there is one."""
        for _, data in self._tunnels():
            address = data.get_attr("IFLA_VXLAN_GROUP") or data.get_attr("IFLA_VXLAN_GROUP6")
            if address:
                return str(address), int(data.get_attr("IFLA_VXLAN_ID"))
        return None

    def _tunnels(self) -> Iterator[tuple[int, Any]]:
        """The VXLAN interface of this program's name; one of another kind is somebody else's."""
        for number in self._route.link_lookup(ifname=TUNNEL):
            for link in self._route.get_links(number):
                info = link.get_attr("IFLA_LINKINFO")
                if info is not None and info.get_attr("IFLA_INFO_KIND") == "vxlan":
                    yield number, info.get_attr("IFLA_INFO_DATA")

    def _tunnel_to(self, remote: str, vni: int) -> str:
        """A VXLAN interface to a sensor on another host; its name. The sensor sees the VNI as a domain."""
        group = "vxlan_group6" if ":" in remote else "vxlan_group"
        fixed = {"kind": "vxlan", "vxlan_port": VXLAN_PORT, "vxlan_learning": 0}
        with _explained(TUNNEL, "make the tunnel"):
            if self._tunnel() != (remote, vni):
                self._remove_tunnel()
                if self.knows(TUNNEL):
                    raise InterfaceError(f"{TUNNEL}: is somebody's interface and no tunnel; it has to be renamed first")
                self._route.link("add", ifname=TUNNEL, vxlan_id=vni, **fixed, **{group: remote})
            self._route.link("set", index=self._index(TUNNEL), state="up")
        return TUNNEL

    def _remove_tunnel(self) -> None:
        for number, _ in list(self._tunnels()):
            with _explained(TUNNEL, "remove the tunnel"):
                self._route.link("del", index=number)

    def _index(self, name: str) -> int:
        found = self._route.link_lookup(ifname=name)
        if not found:
            raise InterfaceError(f"{name}: no such interface; `vmsensor interfaces` lists them")
        return int(found[0])

    def _filter(self, source: str, hook: int, handle: int, to: int) -> None:
        number = self._index(source)
        taken = {preference for preference, _ in self._filters(number, hook)}
        free = next((preference for preference in PREFERENCES if preference not in taken), None)
        if free is None:
            raise InterfaceError(f"{source}: cannot add a mirror: others have filters at all preferences from 1 to 13")
        action = {"kind": "mirred", "direction": "egress", "action": "mirror", "ifindex": to}
        common = {"handle": handle, "parent": hook, "prio": free, "protocol": _ALL_PROTOCOLS, "action": action}
        try:
            self._route.tc("add-filter", "matchall", number, **common)
        except NetlinkError as error:
            if error.code == _EPERM:
                raise
            # A kernel without matchall: an empty match of u32, which passes over frames of under 34 octets.
            self._route.tc("add-filter", "u32", number, target=0, keys=["0x0/0x0+0"], **common)

    def _clear(self, number: int) -> bool:
        """End what is mirrored of it; whether the queue that is left was made by this program."""
        made = False
        for hook in self._hooks(number).values():
            ours = list(self._ours(number, hook))
            made = made or any(message["handle"] & 0xFFF == HOST for _, message in ours)
            for preference in {preference for preference, _ in ours}:
                with _explained(str(number), "remove a mirror"):
                    # Without both in ``info``, pyroute2 asks for all filters to be removed.
                    info = preference << 16 | socket.htons(_ALL_PROTOCOLS)
                    self._route.tc("del-filter", index=number, parent=hook, info=info)
        if not made or any(list(self._filters(number, hook)) for hook in HOOKS.values()):
            return made
        with contextlib.suppress(NetlinkError):
            self._route.tc("del", "clsact", index=number)
        return False

    def _queue(self, number: int) -> str | None:
        """What holds the place of filters: clsact; or ingress, which others make, and which has no egress."""
        kinds = {qdisc.get_attr("TCA_KIND") for qdisc in self._route.get_qdiscs(index=number)}
        return next((kind for kind in ("clsact", "ingress") if kind in kinds), None)

    def _hooks(self, number: int) -> dict[str, int]:
        queue = self._queue(number)
        return {direction: hook for direction, hook in HOOKS.items() if queue == "clsact" or queue == direction}

    def _filters(self, number: int, hook: int) -> Iterator[tuple[int, Any]]:
        """Preference and message of each filter."""
        try:
            for one in self._route.get_filters(index=number, parent=hook):
                if one["index"] == number and one["parent"] == hook:
                    yield one["info"] >> 16, one
        except NetlinkError:
            return  # no clsact

    def _targets(self, number: int) -> Iterator[tuple[str, int]]:
        for direction, hook in self._hooks(number).items():
            targets = {_mirred(message) for _, message in self._ours(number, hook)}
            yield from ((direction, to) for to in targets if to is not None)

    def _ours(self, number: int, hook: int) -> Iterator[tuple[int, Any]]:
        for preference, message in self._filters(number, hook):
            if message["handle"] & 0xFFF in (GUEST, HOST) and _mirred(message) is not None:
                yield preference, message


def _mirred(message: Any) -> int | None:
    """Where a filter's action copies to."""
    options = message.get_attr("TCA_OPTIONS")
    for name in ("TCA_MATCHALL_ACT", "TCA_U32_ACT"):
        actions = options.get_attr(name) if options is not None else None
        for _, action in (actions or {}).get("attrs", ()):
            if action.get_attr("TCA_ACT_KIND") == "mirred":
                return int(action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")["ifindex"])
    return None


@contextlib.contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code == _EPERM:
            raise PrivilegeError(f"{name}: it takes CAP_NET_ADMIN to {what}; run as root") from None
        raise InterfaceError(f"{name}: cannot {what}: {error.args[-1]}") from None
