"""A small cloud on this machine, with a real mirror port: what the live tests capture from.

        web     app     db            a network namespace each, a veth pair as cable
         |       |       |
    +-- port0 - port1 - port2 --+     switch: a namespace with a Linux bridge
    |          br0        span -|---- span0    tap: the namespace of the sensor
    +---------------------------+

``tc`` copies the frames that enter a port to ``span``, as a switch's SPAN session does. Nothing is put into the
host's own namespace but the names of the new ones, which hold the process id, and they go away with the lab.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.needs import missing, need_root, need_tool

NETNS = Path("/run/netns")
# The classic BPF program "return everything". Unlike u32, which needs four bytes behind the link header to match on, it
# also takes the shortest frame.
EVERYTHING = 'bpf bytecode "1,6 0 0 4294967295"'
OFFLOADS = ("gro", "gso", "tso", "sg", "tx", "rx")
JUMBO_MTU = 9000
PATIENCE = 60
"""Seconds after which somebody hangs. It measures nothing: where others want the processors too, things take long."""
SENT, RECEIVED, BOTH = ("ingress",), ("egress",), ("ingress", "egress")
"""What a mirror copies of each VM's traffic, as the switch's ports see it."""

_serial = itertools.count()


def command(
    argv: Sequence[str], timeout: float = PATIENCE, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep what it printed. Ctrl-C does not reach it: cleaning up is not cut short."""
    path = [need_tool(argv[0]), *argv[1:]]
    while True:
        done = subprocess.run(
            path, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, start_new_session=True
        )
        if done.returncode != -signal.SIGINT:  # which came before the program had begun, and a session of its own
            return done


def wait_until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Poll until the condition holds; a TimeoutError that says what was waited for, otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout} s still waiting for {what}")
        time.sleep(0.01)


@dataclass(frozen=True)
class LinkCounters:
    """What an interface has received and sent since it was made."""

    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int


class Namespace:
    """A network namespace: a place to start programs and to open sockets in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started: list[subprocess.Popen[str]] = []

    def run(self, argv: Sequence[str], timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace to its end and keep what it printed."""
        return command(self._entering(argv), timeout)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program in the namespace, its output in pipes; what still runs when the lab ends is killed.

        Ctrl-C does not reach it: whoever has started it ends it.
        """
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        process = subprocess.Popen(self._entering(argv), **(pipes | options))
        self._started.append(process)
        return process

    def _entering(self, argv: Sequence[str]) -> list[str]:
        # `ip netns exec` replaces itself, so the process is the program's own and takes its signals.
        return [need_tool("ip"), "netns", "exec", self.name, need_tool(argv[0]), *argv[1:]]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move the calling thread into the namespace: sockets opened now belong to it for good."""
        with open("/proc/thread-self/ns/net") as home, open(NETNS / self.name) as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, timeout: float = 5) -> socket.socket:
        """A socket of the namespace, for use by any thread of this process."""
        with self.inside():
            opened = socket.socket(family, kind)
        opened.settimeout(timeout)
        return opened

    def pids(self) -> list[int]:
        """The processes that run in the namespace."""
        return [int(pid) for pid in command(["ip", "netns", "pids", self.name]).stdout.split()]

    def await_capture(self, process: subprocess.Popen[str], rings: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until that many packet rings are mapped in the namespace: from then on no packet is missed."""

        def capturing() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the capture ended with status {process.returncode}: {process.communicate()[1]}")
            return sum(_packet_rings(pid) for pid in self.pids()) >= rings

        wait_until(capturing, "the capture to start", timeout)
        time.sleep(0.1)  # libpcap installs its filter after it has mapped the ring, and drops what came before

    def create(self) -> None:
        """Make the namespace, its loopback up and without IPv6 on the interfaces to come."""
        _checked(["ip", "netns", "add", self.name])
        with self.inside():
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        _checked(["ip", "-n", self.name, "link", "set", "dev", "lo", "up"])

    def remove(self) -> None:
        """End what runs in the namespace and delete it; never fails, so that the rest of the lab goes too."""
        for process in self._started:
            process.kill()  # it may have left the namespace, or not have entered it yet
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            with suppress(ValueError, subprocess.TimeoutExpired):  # its pipes are closed, or others hold them
                process.communicate(timeout=10)
        command(["ip", "netns", "del", self.name])


class VM(Namespace):
    """A virtual machine: a namespace with one network card, ``eth0``."""

    def __init__(self, name: str, namespace: str, number: int, host: int | None = None) -> None:
        super().__init__(namespace)
        host = number + 1 if host is None else host
        self.vm_name = name
        self.port = f"port{number}"
        self.ipv4 = f"10.77.0.{host}"
        self.ipv6 = f"fd77::{host:x}"
        self.mac = f"02:77:00:00:00:{number + 1:02x}"

    def address(self, family: int) -> str:
        """The VM's address of that family."""
        return self.ipv6 if family == socket.AF_INET6 else self.ipv4

    def plug_in(self, switch: str) -> None:
        """Connect the VM to the switch; addresses are usable at once."""
        with self.inside():  # no router to ask for, no wait for duplicate address detection
            ipv6 = Path("/proc/sys/net/ipv6/conf/default")
            for key, value in {"disable_ipv6": "0", "accept_dad": "0", "router_solicitations": "0"}.items():
                (ipv6 / key).write_text(value)
        _batch(switch, [f"link add name {self.port} type veth peer name eth0 netns {self.name}"])
        self.bring_up(switch)
        # A virtual cable carries super-packets without checksums unless told otherwise; a real one cannot.
        settings = [word for offload in OFFLOADS for word in (offload, "off")]
        _checked(self._entering(["ethtool", "-K", "eth0", *settings]))

    def bring_up(self, switch: str) -> None:
        """Put the switch's end of the cable on the bridge, and give the VM's end its addresses."""
        _batch(switch, [f"link set dev {self.port} master br0 up"])
        _batch(self.name, [f"link set dev eth0 address {self.mac}", f"addr add {self.ipv4}/24 dev eth0",
                           f"addr add {self.ipv6}/64 dev eth0 nodad", "link set dev eth0 up"])  # fmt: skip


class Lab:
    """The cloud: ``with Lab(["web", "app"]) as lab``. The mirror is off until asked for.

    ``hosts`` are the last parts of the VMs' addresses, by name; two may be the same where cables keep them apart.
    """

    span_interface = "span0"

    def __init__(self, vms: Sequence[str], hosts: Mapping[str, int] | None = None) -> None:
        need_root()
        for tool in ("ip", "tc", "ethtool"):
            need_tool(tool)
        prefix = f"vmsensor-{os.getpid()}-{next(_serial)}"
        self.switch = Namespace(f"{prefix}-switch")
        self.tap = Namespace(f"{prefix}-tap")
        self._vms = {
            name: VM(name, f"{prefix}-vm-{name}", number, (hosts or {}).get(name)) for number, name in enumerate(vms)
        }
        self._cleanup = ExitStack()

    def __enter__(self) -> Lab:
        with ExitStack() as cleanup:  # undoes the part that was built when building fails
            for namespace in (self.switch, self.tap, *self._vms.values()):
                cleanup.callback(namespace.remove)
                namespace.create()
            self._wire()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._cleanup.close()

    def _wire(self) -> None:
        """Build the switch, its SPAN port and the cables."""
        _batch(self.switch.name, ["link add name br0 type bridge mcast_snooping 0", "link set dev br0 up"])
        span = f"link add name span type veth peer name {self.span_interface} netns {self.tap.name}"
        _batch(self.switch.name, [span, "link set dev span up"])
        _batch(self.tap.name, [f"link set dev {self.span_interface} up"])
        for vm in self._vms.values():
            vm.plug_in(self.switch.name)

    @property
    def tap_namespace(self) -> str:
        """Name of the namespace that the SPAN port ends in."""
        return self.tap.name

    def vm(self, name: str) -> VM:
        """The virtual machine of that name."""
        return self._vms[name]

    @contextmanager
    def mirror(self, hooks: Sequence[str] = SENT) -> Iterator[None]:
        """Mirror what the VMs send or what they are sent, each frame once, or both, each frame twice.

        Before and after, the SPAN port is silent: its counters then tell exactly what the mirror delivered.
        """
        ports = [vm.port for vm in self._vms.values()]
        lines = [f"qdisc add dev {port} clsact" for port in ports] + [
            f"filter add dev {port} {hook} protocol all {EVERYTHING} action mirred egress mirror dev span"
            for port in ports for hook in hooks
        ]  # fmt: skip
        try:
            added = command(["tc", "-n", self.switch.name, "-batch", "-"], stdin="\n".join(lines) + "\n")
            if added.returncode:
                missing(f"tc cannot mirror here: {added.stderr.strip()}")
            yield
            time.sleep(0.05)  # connections that were closed last still exchange their ACKs
        finally:
            for port in ports:
                command(["tc", "-n", self.switch.name, "qdisc", "del", "dev", port, "clsact"])

    def interface_counters(self, namespace: str, device: str) -> LinkCounters:
        """The kernel's own counters of an interface."""
        shown = _checked(["ip", "-n", namespace, "-s", "-j", "link", "show", "dev", device]).stdout
        sides = json.loads(shown)[0]["stats64"]
        names = itertools.product(("rx", "tx"), ("packets", "bytes", "dropped"))
        return LinkCounters(**{f"{side}_{name}": sides[side][name] for side, name in names})

    def span_counters(self) -> LinkCounters:
        """What the sensor's end of the SPAN port has received."""
        return self.interface_counters(self.tap.name, self.span_interface)

    def take_jumbo_frames(self) -> None:
        """Give both ends of the SPAN port room for the longest frames that captures hold."""
        for namespace, device in ((self.switch, "span"), (self.tap, self.span_interface)):
            _batch(namespace.name, [f"link set dev {device} mtu {JUMBO_MTU}"])

    def await_capture(self, process: subprocess.Popen[str], rings: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until that many packet rings are mapped in the tap namespace: from then on no packet is missed."""
        self.tap.await_capture(process, rings, timeout)


def _packet_rings(pid: int) -> int:
    """How many packet rings a process has mapped; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/maps").read_text().count("socket:[")
    except OSError:
        return 0


def _checked(argv: Sequence[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that has to succeed."""
    done = command(argv, stdin=stdin)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done


def _batch(namespace: str, lines: Sequence[str]) -> None:
    """Run several ``ip`` commands in a namespace."""
    _checked(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _enter(descriptor: int) -> None:
    """setns(2) for network namespaces; in Python's own library since 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
