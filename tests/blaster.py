"""A wire with a sender at one end that is as fast as the machine lets it be, and the sensor's interface at the other.

    sender: blast -> out0 ========== span0 <- whoever captures        a network namespace each

All places where a packet of this wire can get lost, and who tells:

| where | told by |
| --- | --- |
| the receiving processor's backlog is full | sendmmsg refuses it (ENOBUFS); ``rx_dropped`` of span0, ``tx_dropped`` of out0, the second column of /proc/net/softnet_stat |
| the capture socket has no room | the socket (PACKET_STATISTICS): the sensor's "dropped by kernel" |
| the capture ends before it is read | the sensor's "unread" |

So what was offered is what was received and these, exactly. The backlog can only overflow where another processor than
the sender's takes packets off the wire (RPS); else the kernel takes each before the next one is sent.
"""  # noqa: E501 - a table

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Namespace, command
from tests.needs import ROOT, need_root, need_tool

SOURCE = ROOT / "tests" / "bench" / "blast.c"
PROGRAM = ROOT / "build" / "bench" / "blast"
ETH_P_ALL = 3
SENT = re.compile(r"offered (\d+) taken (\d+) refused (\d+) in ([\d.]+) s")
LIMIT_SECONDS = 300

HANDSHAKE, ROUND = 3, 3
REQUEST, ANSWER = 100, 400
"""As in blast.c."""
HEADERS = 40
"""Of IP and TCP."""


@dataclass(frozen=True)
class Sent:
    """What the sender says: it offered so many packets to the kernel, which took some and refused the others."""

    offered: int
    taken: int
    refused: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.offered / self.seconds


@dataclass(frozen=True)
class Conversation:
    """One of the sender's conversations, of which so many packets were sent: what each side has to have done."""

    packets: int

    @property
    def client(self) -> tuple[int, int, int]:
        """Packets and octets that the client sent, and how many of its segments the server has acknowledged."""
        requests, answers, acks = self._parts()
        packets = (self.packets > 0) + (self.packets > 2) + requests + acks
        return packets, packets * HEADERS + requests * REQUEST, answers

    @property
    def server(self) -> tuple[int, int, int]:
        """The same the other way."""
        _, answers, acks = self._parts()
        packets = (self.packets > 1) + answers
        return packets, packets * HEADERS + answers * ANSWER, acks

    def _parts(self) -> tuple[int, int, int]:
        """Requests, answers, acknowledgements."""
        rounds, rest = divmod(max(0, self.packets - HANDSHAKE), ROUND)
        return rounds + (rest > 0), rounds + (rest > 1), rounds


def conversations(offered: int, flows: int, syns: int = 0) -> list[Conversation]:
    """The conversations, in their order, after so many packets in all."""
    turns = -(-offered // (1 + syns))
    return [Conversation((turns - number + flows - 1) // flows) for number in range(flows)]


class Wire:
    """``with Wire() as wire``: the tap looks to a Sensor as a lab's does."""

    span_interface = "span0"

    def __init__(self, name: str = "wire") -> None:
        need_root()
        need_tool("ip")
        prefix = f"vmsensor-{os.getpid()}-{name}"
        self.sender, self.tap = Namespace(f"{prefix}-sender"), Namespace(f"{prefix}-tap")
        self._cleanup = ExitStack()

    def __enter__(self) -> Wire:
        built()
        with ExitStack() as cleanup:
            for namespace in (self.sender, self.tap):
                cleanup.callback(namespace.remove)
                namespace.create()
            add = f"link add out0 type veth peer name {self.span_interface} netns {self.tap.name}"
            for namespace, line in (
                (self.sender, add), (self.sender, "link set dev out0 up"),
                (self.tap, f"link set dev {self.span_interface} up"),
            ):  # fmt: skip
                done = command(["ip", "-n", namespace.name, *line.split()])
                assert done.returncode == 0, done.stderr
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def await_capture(self, process: subprocess.Popen[str], rings: int = 1, timeout: float = 15) -> None:
        """Wait until that many packet rings are mapped in the tap's namespace."""
        self.tap.await_capture(process, rings, timeout)

    def blasting(self, **options: int) -> subprocess.Popen[str]:
        """Start the sender, on the first processor: capturing goes on on the others, if there are any."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return self.sender.popen([str(PROGRAM), "out0", *words, "--cpu", str(min(os.sched_getaffinity(0)))])

    def blast(self, **options: int) -> Sent:
        """Send (options of blast.c: packets or seconds, rate, flows, syns) and wait until all is sent."""
        return sent(self.blasting(**options))

    @contextmanager
    def slow_backlog(self, sockets: int = 200) -> Iterator[None]:
        """Have the last processor take packets off the wire, slowed down by so many idle sockets that get them too."""
        queue = f"/sys/class/net/{self.span_interface}/queues/rx-0/rps_cpus"
        mask = f"{1 << max(os.sched_getaffinity(0)):x}"
        with ExitStack() as stack:
            for _ in range(sockets):
                stack.enter_context(self._idle())
            self.tap.run(["sh", "-c", f"echo {mask} > {queue}"])
            stack.callback(self.tap.run, ["sh", "-c", f"echo 0 > {queue}"])
            yield

    def _idle(self) -> socket.socket:
        opened = self.tap.socket(socket.AF_PACKET, socket.SOCK_RAW)
        opened.bind((self.span_interface, ETH_P_ALL))
        return opened


def sent(process: subprocess.Popen[str]) -> Sent:
    """What the sender says when it has sent all."""
    printed, errors = process.communicate(timeout=LIMIT_SECONDS)
    match = SENT.match(printed)
    assert match is not None, errors
    return Sent(int(match[1]), int(match[2]), int(match[3]), float(match[4]))


def built() -> Path:
    """The sender, compiled when its source is younger."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        fresh = PROGRAM.with_suffix(f".{os.getpid()}")
        subprocess.run([need_tool(os.environ.get("CC", "cc")), "-O2", "-o", str(fresh), str(SOURCE)], check=True)
        fresh.replace(PROGRAM)
    return PROGRAM
