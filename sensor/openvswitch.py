"""Mirrors of Open vSwitch bridges, through its database.

What is this program's own, mirrors and the ports that were made for them, bears a mark in ``external_ids``, so that
what is here is known without notes, and nothing of anybody else's is touched. A change is the difference between two
layouts, done in one transaction; so is taking it back.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from sensor.errors import InterfaceError, SensorError
from sensor.mirror import Destination, Mirrored
from sensor.vsctl import SECONDS, NoDatabase, Row, Silence, Vsctl, members, quoted

MARK = "vmsensor"
"""In ``external_ids`` of what is ours."""

TABLES = {
    "bridge": "name,ports,mirrors",
    "port": "_uuid,name,interfaces,external_ids",
    "interface": "_uuid,type,options,external_ids",
    "mirror": "_uuid,select_all,select_src_port,select_dst_port,output_port,external_ids",
}
GONE = "an interface that is gone"
_OF_VMS = {"iface-id", "attached-mac", "vm-id"}  # Open vSwitch, Documentation/topics/integration.rst
_STACKED = {"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"}  # interfaces that use another
_LINK_LOCAL = 253  # RT_SCOPE_LINK
_DIRECTIONS = ("ingress", "egress")


class Span(NamedTuple):
    """A mirror: what it copies, which is what arrives at ports, departs from them, or everything; and where to."""

    bridge: str
    output: str
    arriving: frozenset[str] = frozenset()
    departing: frozenset[str] = frozenset()
    everything: bool = False

    def without(self, sources: Sequence[str]) -> Span:
        """The same, but for these sources."""
        kept = self._replace(arriving=self.arriving.difference(sources), departing=self.departing.difference(sources))
        return kept._replace(everything=self.everything and self.bridge not in sources)

    def together(self, other: Span) -> Span:
        """A mirror to the same port of what either copies."""
        arriving, departing = self.arriving | other.arriving, self.departing | other.departing
        return self._replace(arriving=arriving, departing=departing, everything=self.everything or other.everything)

    def lines(self) -> Iterator[Mirrored]:
        """A line for each source and direction."""
        if self.everything:
            yield Mirrored(self.bridge, "both", self.output)
        for direction, ports in zip(_DIRECTIONS, (self.arriving, self.departing), strict=True):
            yield from (Mirrored(port, direction, self.output) for port in sorted(ports))


class Made(NamedTuple):
    """A port that was made for a mirror: an interface of the host, or a tunnel where it names a remote host."""

    name: str
    bridge: str
    remote: str = ""
    vni: str = ""


class Layout(NamedTuple):
    """What this program has in the database, or is to have."""

    spans: frozenset[Span] = frozenset()
    ports: frozenset[Made] = frozenset()


@dataclass
class Switches:
    """The bridges of this host: ports by name, with bridge; ours and other mirrors."""

    bridges: set[str] = field(default_factory=set)
    bridge_of: dict[str, str] = field(default_factory=dict)
    of_vms: set[str] = field(default_factory=set)
    patches: set[str] = field(default_factory=set)
    made: set[Made] = field(default_factory=set)
    ours: dict[str, Span] = field(default_factory=dict)
    others: list[Span] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        """What is there of this program's own."""
        return Layout(frozenset(self.ours.values()), frozenset(self.made))

    def in_use(self, spans: Iterable[Span]) -> Layout:
        """Those of the spans that copy anything, and the ports of ours that they or mirrors of others need."""
        kept = frozenset(span for span in spans if any(span.lines()))
        outputs = {span.output for span in (*kept, *self.others)}
        return Layout(kept, frozenset(port for port in self.made if port.name in outputs))


class OpenVSwitch:
    """The mirrors of Open vSwitch on this host, none where there is none; see ``mirrors.Kind``."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self._database = Vsctl(seconds)
        self._known: Switches | None = None

    def knows(self, name: str) -> bool:
        """Whether it is a bridge or a port of one."""
        return name in self._switches.bridge_of

    def check(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> None:
        """Refuse what cannot be mirrored, and what would do harm."""
        bridge = self._bridge(sources, destination)
        for source in sources:
            if any(source == span.output for span in self._all_spans()):
                raise InterfaceError(f"{source}: is what a mirror of {bridge} goes to, and cannot be a source too")
        if destination.interface is None:
            self._check_way(bridge, sources, destination.host, directions)
        else:
            self._check_target(bridge, destination.interface, sources)

    def add(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> list[Mirrored]:
        """Copy the frames of all sources, in place of what was mirrored of them before."""
        bridge = self._bridge(sources, destination)
        output = self._output(bridge, destination)
        ports = frozenset(sources) - {bridge}
        arriving, departing = (ports if direction in directions else frozenset() for direction in _DIRECTIONS)
        new = Span(bridge, output.name, arriving, departing, everything=bridge in sources)
        self._become(self._with(new, sources, output))
        return list(new.lines())

    def _with(self, new: Span, sources: Sequence[str], output: Made) -> Layout:
        """The layout with one more mirror; where there is one to the same port already, they become one."""
        known = self._switches
        spans = {span.without(sources) for span in known.layout.spans}
        same = {span for span in spans if span[:2] == new[:2]}
        wanted = known.in_use([*(spans - same), functools.reduce(Span.together, same, new)])
        return wanted if output.name in known.bridge_of else wanted._replace(ports=wanted.ports | {output})

    def listed(self) -> list[Mirrored]:
        """Everything that is mirrored by this program."""
        return [line for span in sorted(self._switches.layout.spans, key=lambda one: one[:2]) for line in span.lines()]

    def end(self, sources: Sequence[str]) -> None:
        """End the mirrors of these sources, and with them the ports that no mirror needs any more."""
        known = self._switches
        self._become(known.in_use(span.without(sources) for span in known.layout.spans))

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Have the mirrors as they were before the block, where it fails."""
        before = self._switches.layout
        try:
            yield
        except BaseException as failure:
            self._known = None
            with contextlib.suppress(SensorError):  # the first failure is the one to be told
                self._become(before, wait=not isinstance(failure, Silence))
            raise

    @property
    def _switches(self) -> Switches:
        if self._known is None:
            try:
                self._known = _understood(*self._database.read(TABLES))
            except NoDatabase:
                self._known = Switches()
        return self._known

    def _become(self, wanted: Layout, wait: bool = True) -> None:
        commands = list(_difference(self._switches, wanted))
        if not commands:
            return
        self._known = None
        self._database.commit(commands, wait)
        mirrored = {command[2] for command in commands if command[1] == "bridge"}
        if wait and mirrored - {command[1] for command in commands if command[0] in ("add-port", "del-port")}:
            self._database.forget_flows()

    def _all_spans(self) -> list[Span]:
        return [*self._switches.others, *self._switches.ours.values()]

    def _bridge(self, sources: Sequence[str], destination: Destination) -> str:
        bridges = sorted({self._switches.bridge_of[source] for source in sources})
        if len(bridges) > 1:
            what = "--to is a port of one bridge" if destination.interface is not None else "a tunnel is of one bridge"
            other = "--to" if destination.interface is not None else "--vni"
            raise InterfaceError(f"{', '.join(bridges)}: {what}; mirror each bridge by a command with its own {other}")
        return bridges[0]

    def _output(self, bridge: str, destination: Destination) -> Made:
        if destination.interface is not None:
            return Made(destination.interface, bridge)
        tunnel = (bridge, destination.host, str(destination.vni))
        for port in self._switches.made:
            if port[1:] == tunnel:
                return port
        number = next(number for number in range(1 << 16) if f"{MARK}{number}" not in self._switches.bridge_of)
        return Made(f"{MARK}{number}", *tunnel)

    def _check_target(self, bridge: str, target: str, sources: Sequence[str]) -> None:
        """An output port forwards nothing but copies, and what comes in there is dropped."""
        known = self._switches
        where = known.bridge_of.get(target)
        if where is None and not _is_interface(target):
            raise InterfaceError(f"{target}: no such interface; `vmsensor interfaces` lists them")
        if where not in (None, bridge):
            raise InterfaceError(
                f"{target}: is a port of bridge {where}, and the sources are of {bridge}; name another"
            )
        harm = self._used_by_bridge(target, sources) or _used_by_host(target)
        if harm:
            raise InterfaceError(
                f"{target}: {harm}, and would carry nothing but copies from then on; name an interface for them alone"
            )

    def _used_by_bridge(self, target: str, sources: Sequence[str]) -> str:
        """What a port is for other than copies, if anything."""
        known = self._switches
        standing = [*known.others, *(span.without(sources) for span in known.ours.values())]
        uses = {
            "is a bridge": target in known.bridges,
            "is mirrored itself": any(target in span.arriving | span.departing for span in standing),
            "is a VM's port": target in known.of_vms,
            "leads to another bridge": target in known.patches,
        }
        return next((use for use, so in uses.items() if so), "")

    def _check_way(self, bridge: str, sources: Sequence[str], host: str, directions: Sequence[str]) -> None:
        """Copies that pass a place that is mirrored would be copied again, for ever."""
        way = _way_to(host)
        if self._switches.bridge_of.get(way) != bridge:
            return
        if bridge in sources or way in sources or "egress" in directions:
            raise InterfaceError(
                f"{host}: is reached through {way}, so that copies would be copied again; "
                "mirror the ports of VMs alone, with --direction ingress"
            )


# ---- the database


def _understood(bridges: list[Row], ports: list[Row], interfaces: list[Row], mirrors: list[Row]) -> Switches:
    found = Switches(bridges={row["name"] for row in bridges})
    names = {row["_uuid"]: row["name"] for row in ports}
    interface = {row["_uuid"]: row for row in interfaces}
    bridge_of_mirror = {mirror: row["name"] for row in bridges for mirror in members(row["mirrors"])}
    for row in bridges:
        found.bridge_of |= {names[port]: row["name"] for port in members(row["ports"])}
    for row in ports:
        _add_port(found, row, [interface[one] for one in members(row["interfaces"])])
    for row in mirrors:
        source, target, output = (
            frozenset(names[port] for port in members(row[column]))
            for column in ("select_src_port", "select_dst_port", "output_port")
        )
        span = Span(bridge_of_mirror[row["_uuid"]], "".join(output) or GONE, source, target, row["select_all"])
        if MARK in row["external_ids"]:
            found.ours[row["_uuid"]] = span
        else:
            found.others.append(span)
    return found


def _add_port(found: Switches, port: Row, interfaces: list[Row]) -> None:
    name = port["name"]
    if any(_OF_VMS & set(interface["external_ids"]) for interface in interfaces):
        found.of_vms.add(name)
    if any(interface["type"] == "patch" for interface in interfaces):
        found.patches.add(name)
    if MARK in port["external_ids"]:
        options = interfaces[0]["options"]
        tunnel = (options.get("remote_ip", ""), options.get("key", ""))
        found.made.add(Made(name, found.bridge_of[name], *tunnel))


def _difference(known: Switches, wanted: Layout) -> Iterator[list[str]]:
    """The commands that make of what is there what is wanted."""
    have = known.layout
    for uuid, span in known.ours.items():
        if span not in wanted.spans:
            yield ["remove", "bridge", span.bridge, "mirrors", uuid]
    for port in sorted(have.ports - wanted.ports):
        yield ["del-port", port.bridge, port.name]
    for port in sorted(wanted.ports - have.ports):
        yield ["add-port", port.bridge, port.name]
        yield ["set", "port", port.name, f"external_ids:{MARK}=true"]
        if port.remote:
            options = [f"options:remote_ip={quoted(port.remote)}", f"options:key={quoted(port.vni)}"]
            # The way may be too narrow for a full packet in a tunnel: in fragments it comes all the same.
            yield ["set", "interface", port.name, "type=vxlan", *options, "options:df_default=false"]
    names: dict[str, str] = {}
    for number, span in enumerate(sorted(wanted.spans - have.spans, key=lambda one: one[:2])):
        for port_name in sorted({span.output, *span.arriving, *span.departing} - {GONE, *names}):
            names[port_name] = f"@port{len(names)}"
            yield [f"--id={names[port_name]}", "get", "port", port_name]
        yield [f"--id=@mirror{number}", "create", "mirror", *_columns(span, names)]
        yield ["add", "bridge", span.bridge, "mirrors", f"@mirror{number}"]


def _columns(span: Span, names: dict[str, str]) -> Iterator[str]:
    yield f"name={quoted(f'{MARK}-{span.output}')}"
    yield f"external_ids:{MARK}=true"
    yield f"select_all={str(span.everything).lower()}"
    for column, ports in (("select_src_port", span.arriving), ("select_dst_port", span.departing)):
        yield f"{column}=[{','.join(names[port] for port in sorted(ports))}]"
    yield f"output_port={names.get(span.output, '[]')}"


# ---- the host


def _is_interface(name: str) -> bool:
    with IPRoute() as route:
        return bool(route.link_lookup(ifname=name))


def _used_by_host(name: str) -> str:
    """What the host uses an interface for, if anything."""
    with IPRoute() as route:
        for number in route.link_lookup(ifname=name):
            for address in route.get_addr(index=number):
                if address["scope"] != _LINK_LOCAL:
                    return f"has the address {address.get_attr('IFA_ADDRESS')}"
            links = {link["index"]: link for link in route.get_links()}
            master = links.get(links[number].get_attr("IFLA_MASTER"))
            if master is not None and _name(master) != "ovs-system":  # which all ports of the kernel's datapath have
                return f"is a port of {_name(master)}"
            for link in links.values():
                if link.get_attr("IFLA_LINK") == number and _kind(link) in _STACKED:
                    return f"carries {_name(link)}"
    return ""


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _kind(link: Any) -> str:
    information = link.get_attr("IFLA_LINKINFO")
    return str(information.get_attr("IFLA_INFO_KIND")) if information is not None else ""


def _way_to(host: str) -> str:
    """The interface that packets to a host leave by; nothing where there is none."""
    with IPRoute() as route, contextlib.suppress(NetlinkError):
        for way in route.route("get", dst=host):
            for link in route.get_links(way.get_attr("RTA_OIF")):
                return _name(link)
    return ""
