"""``vmsensor vms``: the network cards that were heard: whose they are, their addresses, hosts, and since when."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sensor.config import Settings
from sensor.errors import InputError
from sensor.identity.domains import Domain
from sensor.identity.history import Span
from sensor.identity.inventory import Entry, Inventory
from sensor.identity.learned import About, Card, Learned
from sensor.identity.vendors import hypervisor_of
from sensor.memory import Memory
from sensor.mind import watched
from sensor.output import write
from sensor.runner import read_files
from sensor.stopping import Stop
from sensor.summary import console_for_people

MEMORY = "memory.json"
"""Where a store keeps what was learned."""


@dataclass(frozen=True)
class Known:
    """A card with its names: those of the inventory, where it has it, else what was learned."""

    card: Card
    about: About
    vm: str | None
    tenant: str

    @property
    def addresses(self) -> list[Span[str]]:
        """What it said that it has, and what it has sent from; the latest first."""
        spans = {**self.about.used, **self.about.addresses}
        return sorted(spans.values(), key=lambda span: (-span.to_ns, span.value))


def print_vms(source: Path, settings: Settings, form: str, stop: Stop) -> None:
    """Print the cards that a store remembers, or that a capture shows."""
    learned = _learned(source, settings, stop)
    inventory = watched(settings.inventory).current()
    known = sorted(_known(learned, inventory), key=lambda one: (one.tenant, one.vm or "~", one.card))
    write(_json(known, learned) if form == "json" else _table(known, learned))


def _learned(source: Path, settings: Settings, stop: Stop) -> Learned:
    if source.is_dir():
        if not (source / MEMORY).is_file():
            raise InputError(f"{source}: has no {MEMORY}, which `vmsensor capture` writes; give a capture file instead")
        return _remembered(source / MEMORY)
    with TemporaryDirectory(prefix="vmsensor-") as directory:
        memory = Path(directory) / MEMORY
        read_files(replace(settings, memory=memory), [str(source)], None, stop)
        return _remembered(memory)


def _remembered(path: Path) -> Learned:
    kept = Memory(path).load()
    try:
        return Learned.from_json(kept["learned"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"{path}: what was learned cannot be read ({error}); the sensor will learn it anew") from None


def _known(learned: Learned, inventory: Inventory) -> Iterator[Known]:
    for card, about in learned.cards.items():
        entry = _entry(inventory, card, about)
        yield Known(card, about, entry.vm if entry else about.name, entry.tenant if entry else card.domain)


def _entry(inventory: Inventory, card: Card, about: About) -> Entry | None:
    domain = _domain(card.domain)
    by_mac = inventory.mac_match(domain.vlan, domain.vni, card.mac)
    if by_mac is not None:
        return by_mac
    matches = (inventory.match(domain.vlan, domain.vni, ip, card.mac) for ip in about.addresses or about.used)
    return next((entry for entry in matches if entry), None)


def _domain(name: str) -> Domain:
    """The domain of a name."""
    if name.startswith("vni"):
        return Domain((), int(name[3:]))
    return Domain(tuple(map(int, name[4:].split("."))) if name.startswith("vlan") else ())


def _json(known: list[Known], learned: Learned) -> str:
    switches = [{**place._asdict(), "heard_ns": heard_ns} for place, heard_ns in learned.switches.items()]
    return json.dumps({"cards": [_object(one) for one in known], "mirror": switches}, indent=2) + "\n"


def _object(one: Known) -> dict[str, Any]:
    about = one.about
    return {
        "vm": one.vm,
        "tenant": one.tenant,
        "domain": one.card.domain,
        "mac": one.card.mac,
        "hypervisor": hypervisor_of(one.card.mac),
        "hostname": about.name,
        "first_ns": about.first_ns,
        "last_ns": about.last_ns,
        "addresses": [_span("address", span) for span in one.addresses],
        "hosts": [_span("vtep", span) for span in about.place.spans],
    }


def _span(name: str, span: Span[str]) -> dict[str, Any]:
    return {name: span.value, "from_ns": span.from_ns, "to_ns": span.to_ns}


def _table(known: list[Known], learned: Learned) -> str:
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = console_for_people()
    table = RichTable(header_style="bold", box=None, pad_edge=False)
    for name in ("vm", "tenant", "mac", "hypervisor", "address", "host", "last heard"):
        table.add_column(name, overflow="fold", no_wrap=name in ("mac", "last heard"))
    for one in known:
        table.add_row(*map(escape, _cells(one)))
    with console.capture() as text:
        if known:
            console.print(table)
            console.print("[dim]Times are UTC.[/dim]")
        else:
            console.print("No network card was heard.")
        for place in learned.switches:
            console.print(escape(f"The mirror is fed from {place.switch}, port {place.port}."))
    return text.get()


def _cells(one: Known) -> list[str]:
    addresses = [span.value for span in one.addresses]
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    host = one.about.place.now
    return [
        one.vm or "-", one.tenant, one.card.mac, hypervisor_of(one.card.mac) or "-",
        f"{addresses[0]}{more}" if addresses else "-", host.value if host else "-",
        time.strftime("%m-%d %H:%M:%S", time.gmtime(one.about.last_ns / 1e9)),
    ]  # fmt: skip
