"""What detectors look at, and what they say: a window with names, and findings about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from sensor.analysis.cards import Seen, cards_of
from sensor.identity.endpoints import address
from sensor.identity.heard import Heard
from sensor.identity.inventory import Inventory
from sensor.identity.parties import Parties
from sensor.identity.registry import EXTERNAL
from sensor.native import NumpyArray

Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True)
class Scene:
    """A window with names. ``records`` has dtype ``RECORD``; ``parties`` names both ends of each of them.

    ``heard`` is what packets said about names; ``presence`` (dtype ``PRESENCE``) the network cards that were heard.
    """

    start_ns: int
    end_ns: int
    records: NumpyArray
    parties: Parties
    heard: Sequence[Heard]
    inventory: Inventory
    presence: NumpyArray | None = None

    @cached_property
    def cards(self) -> list[Seen]:
        """The cards of single VMs that have sent something."""
        return cards_of(self)

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return (self.end_ns - self.start_ns) / 1e9

    def client(self, i: int) -> str:
        """The client of record ``i``: its VM's name; of an outside one the address."""
        return self._end(i, "client", int(self.parties.client[i]))

    def server(self, i: int) -> str:
        """The server of record ``i``, likewise."""
        return self._end(i, "server", int(self.parties.server[i]))

    def client_tenant(self, i: int) -> str:
        """The tenant of record ``i``'s client, ``external`` for an outside one."""
        return self.parties.tenants[int(self.parties.client[i])]

    def server_tenant(self, i: int) -> str:
        """The tenant of record ``i``'s server."""
        return self.parties.tenants[int(self.parties.server[i])]

    def _end(self, i: int, side: str, vm: int) -> str:
        name = self.parties.names[vm]
        if name != EXTERNAL:
            return name
        return address(self.records[f"{side}_ip"][i], int(self.records["ip_version"][i]))


@dataclass(frozen=True)
class Finding:
    """Something that a window shows. The same ``kind``, ``subject`` and ``object`` in later windows are one event.

    ``subject`` is who does it, ``object`` to whom or what (may be empty). ``tenant`` is the tenant that it concerns.
    ``detail`` is one sentence with the evidence in words; ``counts`` is the evidence in numbers, of this window.
    ``once``: a fact rather than a state (a VM appeared): the event is over at once.
    """

    kind: str
    severity: Severity
    tenant: str
    subject: str
    object: str = ""
    detail: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    time_ns: int | None = None
    once: bool = False


class Detector(Protocol):
    """Looks at one window after the other, with bounded memory of its own."""

    def look(self, scene: Scene) -> Iterable[Finding]:
        """What this window shows."""
