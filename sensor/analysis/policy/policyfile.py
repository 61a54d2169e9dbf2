"""Policy files: TOML, every value checked, each error with file, line, rule and key. docs/policy.md describes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from sensor.analysis.policy.rules import ANY, DEFAULT, Policy, Rule, Service, Side, Verdict
from sensor.config import Network, parse_network
from sensor.errors import UsageError
from sensor.identity.registry import EXTERNAL
from sensor.protocols import PROTOCOL_NUMBERS, WITH_PORTS
from sensor.services import PORTS_OF
from sensor.textfiles import parse_toml, read_text, shown, unknown_key

MOST_OCTETS = 16 * 2**20
MOST_RULES = 1_000

_DOMAIN = re.compile(r"default|vlan\d+(\.\d+)*|vni\d+")
"""Tenants that no inventory names are called by their domain."""


def load_policy(path: Path, tenants: Collection[str]) -> Policy:
    """The policy in a file; ``tenants`` are those of the inventory. Raises InputError or UsageError."""
    text = read_text(path, "policy", MOST_OCTETS, "write rules for whole tenants")
    given = parse_toml(text, path)
    for key in given:
        if key not in ("default", "allow"):
            raise UsageError(f"{path}: {unknown_key(key, ('default', 'allow'), 'a policy')}")
    tables = given.get("allow", [])
    if not isinstance(tables, list) or len(tables) > MOST_RULES:
        raise UsageError(f"{path}: allow: begin each rule with a line [[allow]]; at most {MOST_RULES:,} of them")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*allow\s*\]\]", line)]
    rules = []
    for number, table in enumerate(tables):
        line = f":{lines[number]}" if len(lines) == len(tables) else ""
        rules.append(_rule(table, f"{path}{line}: rule {number + 1}", tenants))
    return Policy(tuple(rules), _default(given.get("default", {}), path))


def _default(given: object, path: Path) -> Mapping[str, Verdict]:
    if not isinstance(given, dict):
        raise UsageError(f'{path}: default: not a table; write [default], then for example north_south = "deny"')
    default = dict(DEFAULT)
    keys = {scope.replace("-", "_"): scope for scope in DEFAULT}
    for key, value in given.items():
        if key not in keys:
            raise UsageError(f"{path}: default: {unknown_key(key, keys, '[default]')}")
        if value not in ("allow", "deny"):
            raise UsageError(f'{path}: default: {key}: {shown(str(value))} is neither "allow" nor "deny"')
        default[keys[key]] = cast(Verdict, value)
    return default


def _rule(table: object, place: str, tenants: Collection[str]) -> Rule:
    if not isinstance(table, dict):
        raise UsageError(f"{place}: not a table; begin each rule with a line [[allow]]")
    keys = ("from", "to", "service", "comment")
    for key in table:
        if key not in keys:
            raise UsageError(f"{place}: {unknown_key(key, keys, 'a rule')}")
    for key in ("from", "to"):
        if key not in table:
            raise UsageError(f'{place}: {key}: is missing; name a tenant, or write {key} = "*" for anybody')
    client, server = (_side(table[key], f"{place}: {key}", tenants) for key in ("from", "to"))
    return Rule(client, server, _services(table.get("service"), f"{place}: service"), place)


def _side(given: object, place: str, tenants: Collection[str]) -> Side:
    if isinstance(given, str):
        given = {"tenant": given}
    if not isinstance(given, dict):
        raise UsageError(f'{place}: write a tenant in quotes, or {{ tenant = "acme", vm = "web-*" }}')
    keys = ("tenant", "vm", "address")
    for key in given:
        if key not in keys:
            raise UsageError(f"{place}: {unknown_key(key, keys, 'one side of a rule')}")
    tenant, vm = (_text(given.get(key, ANY), f"{place}: {key}") for key in ("tenant", "vm"))
    if tenant not in (ANY, EXTERNAL) and tenant not in tenants and not _DOMAIN.fullmatch(tenant):
        known = (*sorted(tenants), EXTERNAL)
        advice = "" if tenants else "; tenants come from the inventory: give --inventory"
        raise UsageError(f"{place}: tenant: {unknown_key(tenant, known, 'the inventory')}{advice}")
    return Side(tenant, vm, tuple(_address(text, f"{place}: address") for text in _list(given.get("address"))))


def _services(given: object, place: str) -> tuple[Service, ...]:
    if given == []:
        raise UsageError(f"{place}: is empty; name services, or leave the key out for all of them")
    return tuple(service for text in _list(given) for service in _service(_text(text, place), place))


def _service(text: str, place: str) -> list[Service]:
    """``https``, ``dns/udp``, ``tcp/8443``, ``tcp/8000-8099``, ``icmp``."""
    protocol, _, ports = text.partition("/")
    if protocol in PROTOCOL_NUMBERS:
        number = PROTOCOL_NUMBERS[protocol]
        if not ports:
            return [Service(number)]
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", ports)
        if match and number in WITH_PORTS:
            first, last = int(match[1]), int(match[2] or match[1])
            if first <= last <= 65535:
                return [Service(number, first, last)]
    elif protocol in PORTS_OF and ports in ("", "tcp", "udp", "sctp"):
        return [Service(PROTOCOL_NUMBERS.get(ports), port, port) for port in PORTS_OF[protocol]]
    elif not ports and protocol:
        raise UsageError(f"{place}: {unknown_key(text, [*PORTS_OF, *PROTOCOL_NUMBERS], 'the list of services')}")
    raise UsageError(f"{place}: {shown(text)} is no service; write for example https, dns/udp, tcp/8443, tcp/8000-8099")


def _address(given: object, place: str) -> Network:
    text = _text(given, place)
    try:
        return parse_network(text)
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None


def _text(given: Any, place: str) -> str:
    if not isinstance(given, str) or not given:
        raise UsageError(f"{place}: takes text in quotes")
    return given


def _list(given: object) -> list[object]:
    if given is None:
        return []
    return given if isinstance(given, list) else [given]
