"""Who has an address: the inventory's word first, then what was learned from the wire, then the address itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sensor.config import Network
from sensor.identity.domains import Domain, domain_of
from sensor.identity.inventory import Inventory, InventorySource
from sensor.identity.learned import Learned
from sensor.watch import Fixed

EXTERNAL = "external"
MULTICAST = "multicast"
UNSPECIFIED = "unspecified"

NOT_ONE_VM = ("router", "gateway", "firewall", "switch", "nat")
"""Roles of what forwards for others: its MAC address says nothing about whose address is behind it."""


class Asked(NamedTuple):
    """An end of a flow as a record shows it. ``monitored``: the address is inside of the monitored prefixes.

    ``mac`` is empty where there was none, or where it forwards for others: then it does not tell the VM.
    """

    vlan: tuple[int, ...]
    vni: int | None
    ip: str
    mac: str
    monitored: bool
    group: str | None = None
    """What the address stands for if it is no VM's: multicast or unspecified."""


class Who(NamedTuple):
    """A VM and its tenant; ``external`` for both where it is outside."""

    vm: str
    tenant: str
    host: str | None = None


OUTSIDE = Who(EXTERNAL, EXTERNAL)


class Registry:
    """Answers for one window at a time; ``refresh`` begins a window."""

    def __init__(
        self, monitored: tuple[Network, ...], source: InventorySource | None = None, learned: Learned | None = None
    ) -> None:
        self.monitored = monitored
        self.learned = learned if learned is not None else Learned()
        self.inventory = Inventory()
        self._source = source or Fixed(Inventory())
        self._answers: dict[bytes, Who] = {}
        self._before: dict[bytes, Who] = {}
        """Those of the window before: who is not heard in two windows is not remembered."""
        self._stamp = (-1, -1)
        self.refresh()

    def refresh(self) -> None:
        """Take the inventory of now; forget the answers if anything has changed."""
        self.inventory = self._source.current()
        stamp = (self.inventory.version, self.learned.version)
        self._before, self._answers = self._answers if stamp == self._stamp else {}, {}
        self._stamp = stamp

    def who(
        self, questions: Sequence[bytes], asked: Callable[[int], Asked], time_ns: int, outside: Sequence[bool]
    ) -> list[Who]:
        """The VMs that ends of flows belong to.

        Equal questions have equal answers; ``asked`` puts the question of a number into words, where it has to be.
        Those that are ``outside`` are nobody's unless the inventory has them: of a flood of forged addresses that is
        known without a word about each.
        """
        now, before = self._answers.get, self._before.get
        known = [now(question) or before(question) for question in questions]
        if not self.inventory.entries:
            known = [
                answer or (OUTSIDE if is_outside else None) for answer, is_outside in zip(known, outside, strict=True)
            ]
        answers = [answer or self._find(asked(i), time_ns) for i, answer in enumerate(known)]
        self._answers.update(zip(questions, answers, strict=True))
        return answers

    def _find(self, asked: Asked, time_ns: int) -> Who:
        domain = domain_of(asked.vlan, asked.vni)
        entry = self.inventory.match(asked.vlan, asked.vni, asked.ip, asked.mac or None)
        if entry is None and asked.mac and (asked.monitored or asked.group == UNSPECIFIED):
            entry = self.inventory.mac_match(asked.vlan, asked.vni, asked.mac)
            if entry is not None and entry.role in NOT_ONE_VM:
                entry = None
        if entry is not None:
            return Who(entry.vm, entry.tenant, entry.host)
        if asked.group:
            return Who(asked.group, self.tenant(domain, asked))
        if not asked.monitored:
            return OUTSIDE
        name = self.learned.name_of(domain, asked.ip, asked.mac, time_ns)
        return Who(name or asked.ip, self.tenant(domain, asked))

    def tenant(self, domain: Domain, asked: Asked) -> str:
        """Whose domain it is, by the inventory; else the domain's own name."""
        return self.inventory.tenant_of_domain(asked.vlan, asked.vni) or domain.name
