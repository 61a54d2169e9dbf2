"""What packets carry, read within bounds: addresses, host names, and elements of type, length and value."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

BROADCAST = b"\xff" * 6

MOST_NAME_OCTETS = 255  # RFC 1035 section 2.3.4


class UnreadableError(Exception):
    """A packet that says nothing that can be true; it never leaves ``wire.Reader``."""


# ---- addresses


def address_text(packed: bytes) -> str:
    """An IP address of 4 or 16 octets as text."""
    if len(packed) == 4:
        return "%d.%d.%d.%d" % tuple(packed)  # noqa: UP031  (the fastest way, for the frequent ARP)
    return str(IPv6Address(packed))


def card_address(mac: bytes) -> bytes:
    """A MAC address that a card can have: no group's, not zero."""
    if len(mac) != 6 or mac[0] & 1 or not any(mac):
        raise UnreadableError
    return mac


def host_address(packed: bytes) -> str:
    """The text of an address that one host can have on the wire (RFC 1122 section 3.2.1.3, RFC 4291)."""
    if len(packed) == 4:
        fit = packed[0] not in (0, 127) and packed[0] >> 4 != 14 and packed != b"\xff\xff\xff\xff"
    else:
        fit = len(packed) == 16 and packed[0] != 0xFF and any(packed[:15])
    if not fit:
        raise UnreadableError
    return address_text(packed)


# ---- texts


def text_of(octets: bytes) -> str | None:
    """A text that can be shown: decodable, printable, not empty, at most 255 octets; trailing NULs are padding."""
    octets = octets.rstrip(b"\0")
    with contextlib.suppress(UnicodeDecodeError):
        text = octets.decode().strip()
        if text and len(octets) <= MOST_NAME_OCTETS and text.isprintable():
            return text
    return None


_NOBODY = {"localhost", "(none)", "external", "other", "multicast", "unspecified"}
"""Names that a system has before it is given one, and the sensor's own words for what is no VM."""


def host_name(octets: bytes) -> str | None:
    """A host name as DHCP carries it, cleaned; None for one that names nobody.

    A name that looks like an address is refused too: who has none is called by its address, and a VM must not be able
    to pass for another.
    """
    name = (text_of(octets) or "").rstrip(".").rstrip()
    if not name or name.lower() in _NOBODY or name.lower().startswith("localhost."):
        return None
    with contextlib.suppress(ValueError):
        ip_address(name)
        return None
    return name


def domain_name(encoded: bytes) -> bytes:
    """A name in DNS encoding (RFC 1035 section 3.1), perhaps partial: then without the empty label at its end."""
    labels, at = [], 0
    while at < len(encoded) and encoded[at]:
        label = encoded[at + 1 : at + 1 + encoded[at]]
        if encoded[at] > 63 or len(label) < encoded[at]:
            raise UnreadableError
        labels.append(label)
        at += 1 + len(label)
    return b".".join(labels)


# ---- elements: type, length, value


class Layout(NamedTuple):
    """How elements follow one another. ``measure`` makes of the head: type, and octets of the whole element."""

    head: struct.Struct
    measure: Callable[..., tuple[int, int]]
    padded: bool = False
    """Type 0 ends the elements: padding may follow."""


LLDP = Layout(struct.Struct(">H"), lambda word: (word >> 9, 2 + (word & 0x1FF)), padded=True)  # IEEE 802.1AB clause 8
CDP = Layout(struct.Struct(">HH"), lambda kind, size: (kind, size), padded=True)
ND = Layout(struct.Struct(">BB"), lambda kind, words: (kind, 8 * words))  # RFC 4861 section 4.6
DHCP6 = Layout(struct.Struct(">HH"), lambda code, size: (code, 4 + size))  # RFC 8415 section 21.1


def elements_of(layout: Layout, octets: bytes, at: int = 0) -> list[tuple[int, bytes]]:
    """The elements from an offset on. One that was cut ends them: what is not whole says nothing."""
    found = []
    head = layout.head
    while at + head.size <= len(octets):
        kind, size = layout.measure(*head.unpack_from(octets, at))
        if layout.padded and kind == 0:
            break
        if size < head.size:
            raise UnreadableError
        if at + size > len(octets):
            break
        found.append((kind, octets[at + head.size : at + size]))
        at += size
    return found


def first_of(elements: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """By type, the first of each."""
    return dict(reversed(elements))
