"""What runs inside a VM of the lab: small servers and their clients, over the kernel's real TCP and UDP.

`python -m tests.cloud.traffic --http 8080 --ask-database 10.77.0.3` serves, and asks the database for every answer;
`--get` and `--resolve` are clients, `--scan` knocks on the ports of a VM once. It runs until it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import random
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable

from tests.fakes import Handler

DATABASE, DNS = 5432, 53
TIMEOUT = 5
SCANNED = range(9000, 9060)
"""Ports that nobody listens on."""


# ---- servers


class Pages(Handler):
    """Answers `/N` with N octets, after a look into the database where there is one."""

    protocol_version = "HTTP/1.1"
    database: Database | None = None

    def do_GET(self) -> None:
        """One page."""
        if self.database is not None:
            self.database.ask(self.path)
        time.sleep(random.uniform(0.001, 0.004))
        self.answer(200, bytes(int(self.path.strip("/") or 0)))


class Rows(socketserver.StreamRequestHandler):
    """A database: a question and an answer, each behind its length, many on one connection."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """All questions of one client."""
        while len(head := self.rfile.read(4)) == 4:
            self.rfile.read(*struct.unpack("!I", head))
            time.sleep(random.uniform(0.0005, 0.003))
            rows = bytes(random.randrange(200, 6000))
            self.wfile.write(struct.pack("!I", len(rows)) + rows)


class Names(socketserver.DatagramRequestHandler):
    """A name server that knows one address for every name (RFC 1035)."""

    def handle(self) -> None:
        """One question."""
        question = self.packet
        if len(question) < 17:
            return
        head = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
        answer = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("10.77.0.2")
        self.wfile.write(head + question[12:] + answer)


class Server(socketserver.ThreadingTCPServer):
    """Of the database."""

    allow_reuse_address = True
    daemon_threads = True


# ---- clients


class Database:
    """The client's side of it, with a connection for each thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._kept = threading.local()

    def ask(self, question: str) -> None:
        """One question and its answer; a connection that broke is opened anew with the next."""
        try:
            connection = getattr(self._kept, "connection", None) or socket.create_connection(
                (self._address, DATABASE), TIMEOUT
            )
            self._kept.connection = connection
            text = f"select page from pages where path = '{question}'".encode()
            connection.sendall(struct.pack("!I", len(text)) + text)
            left = 4 + int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big") - 4
            connection.recv(left, socket.MSG_WAITALL)
        except OSError:
            self._kept.connection = None


def get(address: str, sizes: tuple[int, int], pause: float) -> None:
    """Pages of these sizes over connections that are kept for a while."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), TIMEOUT)
    with contextlib.closing(connection):
        for _ in range(random.randrange(5, 40)):
            connection.request("GET", f"/{random.randrange(*sizes)}")
            connection.getresponse().read()
            time.sleep(random.uniform(0.5, 1.5) * pause)


def resolve(address: str) -> None:
    """Ask for a name."""
    labels = b"".join(bytes([len(part)]) + part for part in (b"api-1", b"globex", b"example"))
    question = (
        struct.pack("!6H", random.randrange(2**16), 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)
    )
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT)
        asking.sendto(question, (address, DNS))
        asking.recv(512)
    time.sleep(random.uniform(0.1, 0.3))


def scan(address: str, after: float) -> None:
    """Knock on many ports of a VM."""
    time.sleep(after)
    for port in SCANNED:
        with socket.socket() as knocking:
            knocking.settimeout(0.2)
            knocking.connect_ex((address, port))


def again(what: Callable[[], object]) -> None:
    """For ever, also where the network fails."""
    while True:
        try:
            what()
        except (OSError, http.client.HTTPException):
            time.sleep(0.3)


# ---- a VM


def main() -> None:
    """Start what the options say, each in a thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--http", "--database", "--dns"):
        parser.add_argument(option, type=int)
    for option in ("--ask-database", "--get", "--resolve", "--scan"):
        parser.add_argument(option)
    parser.add_argument("--sizes", type=int, nargs=2, default=(500, 12000))
    parser.add_argument("--pause", type=float, default=0.03)
    parser.add_argument("--after", type=float, default=0.0)
    given = parser.parse_args()
    jobs: list[Callable[[], object]] = []
    if given.http:
        Pages.database = Database(given.ask_database) if given.ask_database else None
        jobs.append(http.server.ThreadingHTTPServer(("", given.http), Pages).serve_forever)
    if given.database:
        jobs.append(Server(("", given.database), Rows).serve_forever)
    if given.dns:
        jobs.append(socketserver.UDPServer(("", given.dns), Names).serve_forever)
    if given.get:
        jobs += [lambda: again(lambda: get(given.get, tuple(given.sizes), given.pause))] * 2
    if given.resolve:
        jobs.append(lambda: again(lambda: resolve(given.resolve)))
    if given.scan:
        jobs.append(lambda: scan(given.scan, given.after))
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
