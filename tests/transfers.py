"""Real TCP connections between the VMs of a lab, and what the kernels at both ends say about them (TCP_INFO).

The kernel counts what it put on the wire, resent segments included, so its account equals the sensor's even when the
machine is too busy for a clean run.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab import VM, wait_until

THINK_SECONDS = 0.004
CROWD_SECONDS = 60
# Offsets in struct tcp_info of linux/tcp.h, which only ever grows at its end (bytes_sent: since Linux 4.19).
_UNACKED, _TOTAL_RETRANS, _MIN_RTT, _DATA_SEGS_OUT = (("=I", 24), ("=I", 100), ("=I", 148), ("=I", 156))
_BYTES_SENT = ("=Q", 200)
_TCP_INFO_SIZE = 208


@dataclass(frozen=True)
class KernelAccount:
    """What one end of a connection sent."""

    payload_bytes: int
    data_segments: int
    retransmissions: int
    min_rtt_us: int


@dataclass(frozen=True)
class Transfer:
    """One connection: requests from the client, each answered by the server after a short think."""

    client: tuple[str, int]
    server: tuple[str, int]
    exchanges: int
    client_account: KernelAccount
    server_account: KernelAccount
    started_ns: int
    established_ns: int

    @property
    def ends(self) -> tuple[str, int, str, int]:
        """Client and server, address and port, as a flow record names them."""
        return (*self.client, *self.server)


def transfers(client: VM, server: VM, family: int, port: int, count: int, seed: int) -> list[Transfer]:
    """Open ``count`` connections one after the other, with requests and answers of random sizes."""
    rng = random.Random(seed)
    address = (server.address(family), port)
    # On one processor the kernel keeps the segments in order. On several they can overtake each other in its queues,
    # and TCP resends.
    with _one_processor(), server.socket(family) as listener, ThreadPoolExecutor(1) as pool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return [_transfer(client, listener, pool, rng) for _ in range(count)]


def _transfer(client: VM, listener: socket.socket, pool: ThreadPoolExecutor, rng: random.Random) -> Transfer:
    sizes = [(rng.randint(1, 30_000), rng.randint(1, 300_000)) for _ in range(rng.randint(1, 3))]
    with client.socket(listener.family) as connection:
        started_ns = time.time_ns()
        connection.connect(listener.getsockname())
        accepted, peer = listener.accept()
        established_ns = time.time_ns()
        serving = pool.submit(_serve, accepted, sizes)
        for request, answer in sizes:
            connection.sendall(bytes(request))
            _receive(connection, answer)
        account = _account(connection)  # the answers have acknowledged all requests
        connection.shutdown(socket.SHUT_WR)
        server_account = serving.result(timeout=10)
        if connection.recv(1):
            raise AssertionError("the server sent more than it was asked for")
    server = listener.getsockname()
    return Transfer(peer[:2], server[:2], len(sizes), account, server_account, started_ns, established_ns)


def _serve(connection: socket.socket, sizes: list[tuple[int, int]]) -> KernelAccount:
    with connection:
        connection.settimeout(5)
        for request, answer in sizes:
            _receive(connection, request)
            time.sleep(THINK_SECONDS)
            connection.sendall(bytes(answer))
        if connection.recv(1):  # the client's FIN has acknowledged all answers
            raise AssertionError("the client sent more than was agreed")
        return _account(connection)


def _receive(connection: socket.socket, size: int) -> None:
    while size:
        data = connection.recv(min(size, 65536))
        if not data:
            raise AssertionError(f"the connection ended with {size} bytes to come")
        size -= len(data)


def _account(connection: socket.socket) -> KernelAccount:
    fields = (_BYTES_SENT, _DATA_SEGS_OUT, _TOTAL_RETRANS, _MIN_RTT)
    return KernelAccount(*(_tcp_info(connection, *field) for field in fields))


def _tcp_info(connection: socket.socket, layout: str, offset: int) -> int:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    return int(struct.unpack_from(layout, info, offset)[0])


# ---- many at a time


@dataclass(frozen=True)
class Crowd:
    """Many connections side by side: how often, and how much."""

    connections: int
    exchanges: int
    request: int
    answer: int
    pause_seconds: float = 0.0


def crowd(client: VM, server: VM, port: int, what: Crowd, calm: Callable[[], None]) -> list[KernelAccount]:
    """Let them all talk, then ``calm`` the network, and read the account of both ends of each before they close."""
    address = (server.ipv4, port)
    with server.socket(timeout=CROWD_SECONDS) as listener, ThreadPoolExecutor(2 * what.connections) as pool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(what.connections)
        serving = [pool.submit(_answer, listener, what) for _ in range(what.connections)]
        asking = [pool.submit(_ask, client, address, what) for _ in range(what.connections)]
        sockets = [future.result(timeout=CROWD_SECONDS) for future in (*asking, *serving)]
        calm()
        with ExitStack() as closing:
            for opened in sockets:
                closing.enter_context(opened)
            wait_until(lambda: not any(_tcp_info(opened, *_UNACKED) for opened in sockets), "all to be ACKed")
            return [_account(opened) for opened in sockets]


def _ask(client: VM, address: tuple[str, int], what: Crowd) -> socket.socket:
    connection = client.socket(timeout=CROWD_SECONDS)
    connection.connect(address)
    for _ in range(what.exchanges):
        connection.sendall(bytes(what.request))
        _receive(connection, what.answer)
        time.sleep(what.pause_seconds)
    return connection


def _answer(listener: socket.socket, what: Crowd) -> socket.socket:
    connection, _ = listener.accept()
    connection.settimeout(CROWD_SECONDS)
    for _ in range(what.exchanges):
        _receive(connection, what.request)
        connection.sendall(bytes(what.answer))
    return connection


@contextmanager
def _one_processor() -> Iterator[None]:
    """Keep the calling thread, and the threads it starts, on one processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
