"""What applications say: HTTP, TLS records, PostgreSQL, DNS. Only as real as a dissector needs."""

from __future__ import annotations

import ipaddress
import struct

FILLER = b"the quick brown fox jumps over the lazy dog "
TLS_RECORD = 16384


def filler(size: int) -> bytes:
    """`size` octets of text."""
    return (FILLER * (size // len(FILLER) + 1))[:size]


def http_request(path: str, size: int = 0) -> bytes:
    """A GET, or a POST with `size` octets of body."""
    head = f"{'POST' if size else 'GET'} {path} HTTP/1.1\r\nHost: app.example\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + filler(size)


def http_response(size: int) -> bytes:
    """A 200 with `size` octets of body."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n".encode() + filler(size)


def tls_records(size: int) -> bytes:
    """Application data of `size` octets in as many TLS records as it needs."""
    sizes = [min(TLS_RECORD, size - at) for at in range(0, size, TLS_RECORD)]
    return b"".join(b"\x17\x03\x03" + struct.pack(">H", part) + filler(part) for part in sizes)


def postgres_query(text: str) -> bytes:
    """A simple query."""
    query = text.encode() + b"\0"
    return b"Q" + struct.pack(">I", 4 + len(query)) + query


def postgres_answer(size: int) -> bytes:
    """One row of one column of `size` octets, command complete, ready."""
    row = b"D" + struct.pack(">IHI", 10 + size, 1, size) + filler(size)
    return row + b"C\x00\x00\x00\x0dSELECT 1\0" + b"Z\x00\x00\x00\x05I"


def dns(ident: int, name: str, answer: str | None = None) -> bytes:
    """A query for an A record, or with `answer` (an IPv4 address) the response to it."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
    question = labels + struct.pack(">HH", 1, 1)
    if answer is None:
        return struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0) + question
    record = struct.pack(">HHHIH", 0xC00C, 1, 1, 300, 4) + ipaddress.IPv4Address(answer).packed
    return struct.pack(">HHHHHH", ident, 0x8580, 1, 1, 0, 0) + question + record
