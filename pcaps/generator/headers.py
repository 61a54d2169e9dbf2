"""Internet and transport headers with right checksums."""

from __future__ import annotations

import ipaddress
import struct

ICMP, IPIP, TCP, UDP, SIX_IN_IP, ROUTING, FRAGMENT, GRE = 1, 4, 6, 17, 41, 43, 44, 47
ESP, AH, ICMP6, DESTINATION, OSPF, SCTP = 50, 51, 58, 60, 89, 132
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def packed(address: str) -> bytes:
    """The address in network order: 4 or 16 octets."""
    return ipaddress.ip_address(address).packed


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_checksum(message: bytes, offset: int, pseudo: bytes = b"") -> bytes:
    """`message` with the checksum of `pseudo + message` written at `offset`, where it holds zero."""
    return message[:offset] + struct.pack(">H", checksum(pseudo + message)) + message[offset + 2 :]


def pseudo_header(src: str, dst: str, protocol: int, length: int) -> bytes:
    """What TCP, UDP and ICMPv6 checksums cover besides the message (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    addresses = packed(src) + packed(dst)
    if len(addresses) == 8:
        return addresses + struct.pack(">BBH", 0, protocol, length)
    return addresses + struct.pack(">II", length, protocol)


def ipv4(
    src: str, dst: str, protocol: int, payload: bytes, *, ident: int = 0, ttl: int = 64, fragment: int = DONT_FRAGMENT,
    options: bytes = b"",
) -> bytes:  # fmt: skip
    """An IPv4 packet (RFC 791). `fragment` is the whole flags and offset field."""
    length = 20 + len(options)
    header = struct.pack(
        ">BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), ident & 0xFFFF, fragment, ttl, protocol, 0
    )
    return with_checksum(header + packed(src) + packed(dst) + options, 10) + payload


def ipv6(src: str, dst: str, next_header: int, payload: bytes, *, hop_limit: int = 64) -> bytes:
    """An IPv6 packet (RFC 8200); extension headers are part of `payload`."""
    return struct.pack(">IHBB", 0x60000000, len(payload), next_header, hop_limit) + packed(src) + packed(dst) + payload


def ip(src: str, dst: str, protocol: int, payload: bytes, *, ident: int = 0, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet, as the addresses are."""
    if ":" in src:
        return ipv6(src, dst, protocol, payload, hop_limit=ttl)
    return ipv4(src, dst, protocol, payload, ident=ident, ttl=ttl)


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes) -> bytes:
    """A UDP datagram (RFC 768)."""
    length = 8 + len(payload)
    datagram = struct.pack(">HHHH", sport, dport, length, 0) + payload
    return with_checksum(datagram, 6, pseudo_header(src, dst, UDP, length))


def tcp(
    src: str, sport: int, dst: str, dport: int, *, seq: int, ack: int, flags: int, window: int, payload: bytes = b"",
    options: bytes = b"",
) -> bytes:  # fmt: skip
    """A TCP segment (RFC 9293); `options` come padded to whole words."""
    words = 5 + len(options) // 4
    fields = (sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, words << 4, flags, window, 0, 0)
    segment = struct.pack(">HHIIBBHHH", *fields) + options + payload
    return with_checksum(segment, 16, pseudo_header(src, dst, TCP, len(segment)))


def icmp(kind: int, code: int, rest: bytes, payload: bytes = b"") -> bytes:
    """An ICMP message (RFC 792); `rest` is the second word of its header."""
    return with_checksum(struct.pack(">BBH", kind, code, 0) + rest + payload, 2)


def icmp6(src: str, dst: str, kind: int, code: int, body: bytes) -> bytes:
    """An ICMPv6 message (RFC 4443)."""
    message = struct.pack(">BBH", kind, code, 0) + body
    return with_checksum(message, 2, pseudo_header(src, dst, ICMP6, len(message)))


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260 appendix A)."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp(sport: int, dport: int, tag: int, *chunks: bytes) -> bytes:
    """An SCTP packet; the CRC is the one field in little-endian order."""
    body = b"".join(chunks)
    crc = crc32c(struct.pack(">HHII", sport, dport, tag, 0) + body)
    return struct.pack(">HHI", sport, dport, tag) + struct.pack("<I", crc) + body


def sctp_chunk(kind: int, flags: int, value: bytes) -> bytes:
    """One chunk, padded to a whole word that its length does not count."""
    return struct.pack(">BBH", kind, flags, 4 + len(value)) + value + b"\0" * (-len(value) % 4)


def addresses(packet: bytes) -> tuple[str, str]:
    """Source and destination of an IP packet."""
    size, start = (4, 12) if packet[0] >> 4 == 4 else (16, 8)
    src, dst = packet[start : start + size], packet[start + size : start + 2 * size]
    return str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst))


def total_length(packet: bytes) -> int:
    """Octets of an IP packet by its own header."""
    if packet[0] >> 4 == 4:
        return int.from_bytes(packet[2:4], "big")
    return 40 + int.from_bytes(packet[4:6], "big")


def fragments(packet: bytes, size: int, ident: int) -> list[bytes]:
    """An IP packet cut into fragments that carry `size` octets each, a multiple of 8."""
    return (_fragments4 if packet[0] >> 4 == 4 else _fragments6)(packet, size, ident)


def _fragments4(packet: bytes, size: int, ident: int) -> list[bytes]:
    src, dst = addresses(packet)
    payload = packet[20:]
    return [
        ipv4(src, dst, packet[9], payload[at : at + size], ident=ident,
             fragment=at // 8 | (MORE_FRAGMENTS if at + size < len(payload) else 0))
        for at in range(0, len(payload), size)
    ]  # fmt: skip


def _fragments6(packet: bytes, size: int, ident: int) -> list[bytes]:
    src, dst = addresses(packet)
    payload = packet[40:]
    return [
        ipv6(src, dst, FRAGMENT,
             struct.pack(">BBHI", packet[6], 0, at | (at + size < len(payload)), ident) + payload[at : at + size])
        for at in range(0, len(payload), size)
    ]  # fmt: skip
