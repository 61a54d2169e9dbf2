"""The link layers of the dpkt oracle, and everything that stands between them and the network layer."""

from __future__ import annotations

import dpkt

from tests.oracles.headers import IP4, IP6, CutShort, Descent, Inside, Link, header, number

TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
MPLS = (0x8847, 0x8848)
PPPOE_SESSION, VN_TAG, LOWEST_ETHERTYPE = 0x8864, 0x8926, 0x0600
SNAP_ETHERNET = b"\xaa\xaa\x03\0\0\0"  # RFC 1042: an EtherType follows
PPP_NETWORKS, PPP_MPLS = {0x0021: IP4, 0x0057: IP6}, 0x0281
IP6_FAMILIES = {10, 24, 28, 30}  # AF_INET6 on Linux, NetBSD, FreeBSD, macOS


def ethernet(descent: Descent, octets: bytes) -> Inside | None:
    """An Ethernet frame; below 0x0600 its type field is the length of an 802.3 frame."""
    frame = header(dpkt.ethernet.Ethernet, octets)
    body = frame.data if frame.type >= LOWEST_ETHERTYPE else frame.data[: frame.type]
    return below(descent, frame.type, body)


def below(descent: Descent, ethertype: int, octets: bytes) -> Inside | None:
    """Goes on where an EtherType has named what follows."""
    if ethertype in (IP4, IP6):
        return Inside(ethertype, octets)
    if ethertype in TAGS:
        tag = header(dpkt.ethernet.VLANtag8021Q, octets)
        descent.vlans.append(tag.id)
        return below(descent, tag.type, octets[4:])
    if ethertype == VN_TAG:
        return below(descent, number("!4xH", octets), octets[6:])
    if ethertype in MPLS:
        return labelled(descent, octets)
    if ethertype == PPPOE_SESSION:
        return session(descent, octets)
    if ethertype < LOWEST_ETHERTYPE and octets.startswith(SNAP_ETHERNET):
        return below(descent, number("!6xH", octets), octets[8:])
    return None


def labelled(descent: Descent, octets: bytes) -> Inside | None:
    """MPLS: the label stack (RFC 3032) does not name its payload, the first nibble does (RFC 4928)."""
    bottom = False
    while not bottom:
        label = header(dpkt.ethernet.MPLSlabel, octets)
        bottom, octets = bool(label.s), octets[4:]
    if not octets:
        raise CutShort("MPLS payload")
    nibble = octets[0] >> 4
    if nibble in (4, 6):
        return raw(descent, octets)
    return ethernet(descent, octets[4:] if nibble == 0 else octets)  # a pseudowire's control word (RFC 4385)


def session(descent: Descent, octets: bytes) -> Inside | None:
    """A PPPoE session (RFC 2516): version 1, type 1, code 0."""
    frame = header(dpkt.pppoe.PPPoE, octets)
    return ppp(descent, frame.data[: frame.len]) if (frame.v, frame.type, frame.code) == (1, 1, 0) else None


def ppp(descent: Descent, octets: bytes) -> Inside | None:
    """PPP, perhaps with HDLC's address and control; the protocol may be one octet long (RFC 1661 section 6.5)."""
    octets = octets.removeprefix(b"\xff\x03")
    if not octets:
        raise CutShort("PPP header")
    width = 1 if octets[0] & 1 else 2
    number = int.from_bytes(octets[:width], "big")
    if number == PPP_MPLS:
        return labelled(descent, octets[width:])
    network = PPP_NETWORKS.get(number)
    return Inside(network, octets[width:]) if network else None


def cisco_hdlc(descent: Descent, octets: bytes) -> Inside | None:
    """Address, control, EtherType."""
    return below(descent, number("!2xH", octets), octets[4:])


def cooked(descent: Descent, octets: bytes) -> Inside | None:
    """Linux cooked capture."""
    frame = header(dpkt.sll.SLL, octets)
    return below(descent, frame.ethtype, frame.data)


def cooked_2(descent: Descent, octets: bytes) -> Inside | None:
    """Linux cooked capture, second version."""
    frame = header(dpkt.sll2.SLL2, octets)
    return below(descent, frame.ethtype, frame.data)


def raw(_: Descent, octets: bytes) -> Inside | None:
    """No link header: the IP version tells."""
    versions = {4: IP4, 6: IP6}
    network = versions.get(octets[0] >> 4) if octets else None
    return Inside(network, octets) if network else None


def loopback(_: Descent, octets: bytes) -> Inside | None:
    """BSD loopback: an address family, in the byte order of the host that captured."""
    either = {number("!I", octets), int.from_bytes(octets[:4], "little")}
    network = IP4 if 2 in either else IP6 if IP6_FAMILIES & either else None
    return Inside(network, octets[4:]) if network else None


LINKS: dict[int, Link] = {
    0: loopback, 1: ethernet, 9: ppp, 12: raw, 14: raw, 50: ppp, 51: session, 101: raw, 104: cisco_hdlc, 108: loopback,
    113: cooked, 219: labelled, 228: raw, 229: raw, 276: cooked_2,
}  # fmt: skip
"""By DLT or LINKTYPE value."""
