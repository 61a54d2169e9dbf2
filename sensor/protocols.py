"""Protocol numbers and the words for them in records and tags."""

from __future__ import annotations

ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMP6: "icmp6", SCTP: "sctp"}
PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
WITH_PORTS = (TCP, UDP, SCTP)


def protocol_name(number: int) -> str:
    """``tcp``, ``udp``, ``icmp``, ``icmp6``, ``sctp``, else the number."""
    return PROTOCOLS.get(number, str(number))
