"""Inventory files: CSV or TOML, every value checked, each error with file, line and key."""

from __future__ import annotations

import csv
import io
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sensor.config import Network
from sensor.errors import UsageError
from sensor.identity.inventory import Entry, Inventory
from sensor.textfiles import parse_toml, read_text, shown, unknown_key

COLUMNS = ("vm", "tenant", "address", "mac", "vlan", "vni", "host", "role")
"""The columns of a CSV file, and the keys of a ``[[vm]]`` table in TOML."""

RESERVED = ("external", "other", "multicast", "unspecified")
"""Names that the sensor uses itself: for what is outside or no VM, and for the sum of what had no place."""

MOST_ENTRIES = 1_000_000
MOST_OCTETS = 256 * 2**20
MOST_CHARACTERS = 255


def load_inventory(path: Path) -> Inventory:
    """The inventory in a file: TOML if its name ends in ``.toml``, else CSV."""
    text = read_text(path, "inventory", MOST_OCTETS, "write prefixes for whole subnets")
    rows = _toml_rows(text, path) if path.suffix.lower() == ".toml" else _csv_rows(text, path)
    entries: list[Entry] = []
    for place, values in rows:
        entries += entries_from(values, place)
        if len(entries) > MOST_ENTRIES:
            raise UsageError(f"{place}: vm: more than {MOST_ENTRIES:,} entries; write prefixes for whole subnets")
    return Inventory(tuple(entries))


def entries_from(values: Mapping[str, object], place: str) -> list[Entry]:
    """The entries that one row says, one for each of its addresses; ``place`` begins the message when it is wrong.

    The keys are ``COLUMNS``. Values are texts; ``vlan`` and ``vni`` may be numbers, ``address`` a list of texts; a
    value that is empty, None or left out is not given.
    """
    for key in values:
        if key not in COLUMNS:
            raise UsageError(f"{place}: {unknown_key(key, COLUMNS, 'an inventory')}")
    given = values.get("address")
    texts = given if isinstance(given, (list, tuple)) else (given,)
    networks = [network for text in texts if (network := _value(place, "address", text)) is not None]
    rest = {key: _value(place, key, values.get(key)) for key in COLUMNS if key != "address"}
    for key in ("vm", "tenant"):
        if rest[key] is None:
            raise UsageError(f"{place}: {key}: is empty; every entry names its VM and its tenant")
    if not networks and rest["mac"] is None:
        raise UsageError(f"{place}: address: neither an address nor a MAC address is given; give at least one of them")
    return [Entry(network=network, place=place, **rest) for network in networks or (None,)]


# --- files ---------------------------------------------------------------------------------------------------------


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Place and values of each line below the header. A line is read by itself, so that its number is the file's."""
    header: list[str] | None = None
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        place = f"{path}:{number}"
        cells = [] if line.lstrip().startswith("#") else _cells(line, place)
        if not any(cells):
            continue
        if header is None:
            header = _header(cells, place)
        elif any(cells[len(header) :]):
            raise UsageError(f"{place}: line: {len(cells)} values for {len(header)} columns; quote what has a comma")
        else:
            yield place, dict(zip(header, cells, strict=False))
    if header is None:
        raise UsageError(f"{path}: vm: the file is empty; its first line is: {','.join(COLUMNS)}")


def _cells(line: str, place: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise UsageError(f"{place}: line: not valid CSV: {error}; close every quote on its line") from None
    return [cell.strip(" \t\n") for cell in cells]


def _header(cells: list[str], place: str) -> list[str]:
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(cells) == 1 and mark in cells[0]:
            raise UsageError(f"{place}: line: the columns are separated by {name}; separate them by commas")
    names = [cell.lower() for cell in cells]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"{place}: {unknown_key(name, COLUMNS, 'an inventory')}")
        if names.count(name) > 1:
            raise UsageError(f"{place}: {name}: the column is there twice; remove one")
    for name in ("vm", "tenant"):
        if name not in names:
            raise UsageError(f"{place}: {name}: the column is missing; the first line is: {','.join(COLUMNS)}")
    return names


def _toml_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    given = parse_toml(text, path)
    for key in given:
        if key != "vm":
            raise UsageError(f"{path}: {unknown_key(key, ('vm',), 'an inventory')}")
    tables = given.get("vm")
    if not isinstance(tables, list):
        raise UsageError(f"{path}: vm: no list of VMs; begin each with a line [[vm]]; vm = [] is an inventory of none")
    for number, table in enumerate(tables, 1):
        place = f"{path}: vm number {number}"
        if not isinstance(table, dict):
            raise UsageError(f"{place}: vm: not a table; begin each VM with a line [[vm]]")
        yield place, table


# --- values --------------------------------------------------------------------------------------------------------


def _value(place: str, key: str, given: object) -> Any:
    """What a value means; None when it is empty."""
    try:
        text = _text(key, given)
        return _PARSE[key](text) if text else None
    except ValueError as error:
        raise UsageError(f"{place}: {key}: {error}") from None


def _text(key: str, given: object) -> str:
    if given is None:
        return ""
    if isinstance(given, str):
        return given.strip(" \t")
    number = key in ("vlan", "vni")
    if number and isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise ValueError("takes a whole number" if number else "takes text in quotes")


def _label(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{shown(text)} has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
    for character in () if text.isprintable() else text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"has the control character U+{ord(character):04X}; remove it")
    return text


def _name(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"{text!r} is a name that the sensor uses itself; choose another one")
    return _label(text)


def _address(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(_no_address(text)) from None
    first = network.network_address
    if "%" in text or first.is_multicast or (first in _NO_VMS and network.prefixlen == network.max_prefixlen):
        raise ValueError(f"{shown(text)} is no address that a VM can send from; give the VM's own")
    return network


_NO_VMS = tuple(ipaddress.ip_address(text) for text in ("0.0.0.0", "255.255.255.255", "::"))


def _no_address(text: str) -> str:
    try:
        meant = ipaddress.ip_interface(text)
    except ValueError:
        return f"{shown(text)} is no address; write for example 10.0.0.5, 10.0.0.0/24 or fd00::5"
    return f"{shown(text)} is an address in a prefix; write {meant.ip} for one VM, or {meant.network} for all of it"


def _mac(text: str) -> str:
    pairs = re.fullmatch(r"[0-9a-f]{2}(?:([:.-]?)[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", text.lower())
    fours = re.fullmatch(r"[0-9a-f]{4}([:.-])[0-9a-f]{4}\1[0-9a-f]{4}", text.lower())
    if not pairs and not fours:
        raise ValueError(f"{shown(text)} is no MAC address; write for example 52:54:00:12:34:56")
    digits = re.sub(r"[:.-]", "", text.lower())
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise ValueError(f"{shown(text)} is no MAC address of a network card; give the card's own")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _number(text: str, what: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"{shown(text)} is no {what}; write a number from {least} to {most}, or nothing")
    return int(text)


_PARSE: dict[str, Callable[[str], Any]] = {
    "vm": _name,
    "tenant": _name,
    "address": _address,
    "mac": _mac,
    "vlan": lambda text: _number(text, "VLAN", 1, 4094),
    "vni": lambda text: _number(text, "VNI", 0, 2**24 - 1),
    "host": _label,
    "role": _label,
}
