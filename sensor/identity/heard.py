"""One thing that a packet said of who has which name or address, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeardKind = Literal["binding", "request", "rarp", "hostname", "switch_port"]


@dataclass(frozen=True)
class Heard:
    """One thing that a packet said.

    - ``binding``: ``mac`` has the address ``ip``; ``gratuitous`` when nobody had asked (gratuitous ARP, unsolicited
      neighbour advertisement), ``reply`` when it answers.
    - ``request``: ``mac`` (with the address ``ip``, None for a probe) asks who has ``target``.
    - ``rarp``: ``mac`` has announced itself with a RARP, as a hypervisor does after a migration.
    - ``hostname``: ``mac`` (with the address ``ip`` where the message says so) calls itself ``name`` (DHCP).
    - ``switch_port``: the switch ``name`` feeds this mirror from its port ``port`` (LLDP, CDP).

    ``vlan`` and ``vni`` are the domain that the packet was seen in; ``vtep`` is the outer source address, the host that
    the sender is on, None outside of a tunnel.
    """

    ts_ns: int
    kind: HeardKind
    mac: str
    vlan: tuple[int, ...] = ()
    vni: int | None = None
    vtep: str | None = None
    ip: str | None = None
    target: str | None = None
    name: str | None = None
    port: str | None = None
    gratuitous: bool = False
    reply: bool = False
