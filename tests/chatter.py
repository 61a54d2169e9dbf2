"""Ordinary traffic between VMs of a lab: HTTP and DNS, at a human pace. Bounded in time; from a seed.

python -m tests.chatter serve ADDRESS SECONDS           an HTTP and a DNS server
python -m tests.chatter talk ADDRESS SECONDS SEED       a client of both
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import random
import socket
import sys
import threading
import time
import urllib.request

import dpkt

HTTP_PORT, DNS_PORT = 80, 53
MOST_SECONDS = 900.0


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with as many octets as the path says."""

    def do_GET(self) -> None:
        """Answer a request."""
        body = bytes(int(self.path.strip("/") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def answer_names(address: str, until: float) -> None:
    """A DNS server that knows every name; every tenth query is left without an answer, as it happens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, DNS_PORT))
        server.settimeout(0.2)
        number = 0
        while time.monotonic() < until:
            try:
                query, client = server.recvfrom(512)
            except TimeoutError:
                continue
            number += 1
            message = dpkt.dns.DNS(query)
            message.qr = dpkt.dns.DNS_R
            record = dpkt.dns.DNS.RR(name=message.qd[0].name, type=1, cls=1, ttl=60, ip=b"\x0a\x4d\0\1", rdata=b"")
            record.rdata = record.ip
            message.an.append(record)
            if number % 10:
                server.sendto(bytes(message), client)


def serve(address: str, seconds: float) -> None:
    """Both servers, for a while."""
    server = http.server.ThreadingHTTPServer((address, HTTP_PORT), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer_names(address, time.monotonic() + seconds)
    server.shutdown()


def talk(address: str, seconds: float, seed: int) -> None:
    """Look names up and get pages until the time is over."""
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    fetch = functools.partial(urllib.request.build_opener(urllib.request.ProxyHandler({})).open, timeout=5)
    while time.monotonic() < until:
        query = dpkt.dns.DNS(id=chance.getrandbits(16), qd=[dpkt.dns.DNS.Q(name=f"vm{chance.randrange(999)}.example")])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
            resolver.settimeout(0.5)
            resolver.sendto(bytes(query), (address, DNS_PORT))
            with contextlib.suppress(TimeoutError):
                resolver.recv(512)
        for _ in range(chance.randrange(1, 6)):
            with fetch(f"http://{address}/{chance.choice((0, 300, 5000, 80_000))}") as page:
                page.read()
        time.sleep(chance.expovariate(5))


if __name__ == "__main__":
    command, where, how_long, *rest = sys.argv[1:]
    bounded = min(float(how_long), MOST_SECONDS)
    if command == "serve":
        serve(where, bounded)
    else:
        talk(where, bounded, int(rest[0]))
