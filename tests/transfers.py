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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab import VM

THINK_SECONDS = 0.004
# Offsets in struct tcp_info of linux/tcp.h, which only ever grows at its end (bytes_sent: since Linux 4.19).
_TOTAL_RETRANS, _MIN_RTT, _DATA_SEGS_OUT, _BYTES_SENT = (("=I", 100), ("=I", 148), ("=I", 156), ("=Q", 200))
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
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    fields = (_BYTES_SENT, _DATA_SEGS_OUT, _TOTAL_RETRANS, _MIN_RTT)
    return KernelAccount(*(struct.unpack_from(layout, info, offset)[0] for layout, offset in fields))


@contextmanager
def _one_processor() -> Iterator[None]:
    """Keep the calling thread, and the threads it starts, on one processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
