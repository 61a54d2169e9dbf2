"""A policy: rules that allow, by tenant, VM, address and service, and what holds where no rule speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from sensor.config import Network

Verdict = Literal["allow", "deny"]

ANY = "*"
"""Any tenant, or any VM."""


@dataclass(frozen=True)
class Side:
    """One end of a rule. ``vm`` may hold the wildcards of fnmatch; ``addresses`` narrow it to prefixes, if any."""

    tenant: str = ANY
    vm: str = ANY
    addresses: tuple[Network, ...] = ()

    def means(self, vm: str) -> bool:
        """Whether a VM of the tenant is meant."""
        return fnmatchcase(vm, self.vm)


class Service(NamedTuple):
    """A protocol number, or None for any, and a range of server ports; both ends None for all."""

    protocol: int | None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Rule:
    """Clients that may use services of servers. Without services: all of them. ``place`` is where it stands."""

    client: Side
    server: Side
    services: tuple[Service, ...] = ()
    place: str = field(default="", compare=False)


DEFAULT: Mapping[str, Verdict] = {"inter-tenant": "deny", "north-south": "allow", "east-west": "allow"}


@dataclass(frozen=True)
class Policy:
    """Rules, and by scope what holds for what no rule fits."""

    rules: tuple[Rule, ...] = ()
    default: Mapping[str, Verdict] = field(default_factory=lambda: DEFAULT)
