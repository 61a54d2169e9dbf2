"""The lab's cloud on Open vSwitch: its daemons and their database are the test's own, and end with it.

web     app     db            the first two on ovs0, a bridge of the user-space datapath (no kernel module is needed);
 |       |       |            the others stay on the Linux bridge
ovs0 - ovs0     br0
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import dpkt

from sensor.cli import vmsensor as program
from tests.lab import Lab, Namespace, wait_until
from tests.needs import need_tool

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
BRIDGE = "ovs0"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
PORT = 7777
ALL_PACKETS = 0x0003  # ETH_P_ALL
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h


class OvsLab(Lab):
    """``with OvsLab(["web", "app", "db"], directory) as lab``; the directory is for Open vSwitch's files."""

    def __init__(self, vms: Sequence[str], directory: Path) -> None:
        super().__init__(vms)
        self.environment = os.environ | {f"OVS_{kind}DIR": str(directory) for kind in ("RUN", "DB", "LOG")}
        self.directory = directory
        self.daemons: dict[str, subprocess.Popen[str]] = {}

    def _wire(self) -> None:
        super()._wire()
        self._start()
        self.vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
        for vm in list(self._vms.values())[:2]:
            self.switch.run(["ip", "link", "set", "dev", vm.port, "nomaster"])
            self.vsctl("add-port", BRIDGE, vm.port)

    def _start(self) -> None:
        """Both daemons in the switch's namespace, which ends what runs in it."""
        database, server = self.directory / "conf.db", f"unix:{self.directory / 'db.sock'}"
        subprocess.run([need_tool("ovsdb-tool"), "create", str(database), str(SCHEMA)], check=True)
        self._daemon(["ovsdb-server", f"--remote=p{server}", str(database)])
        wait_until((self.directory / "db.sock").exists, "ovsdb-server")
        self.vsctl("--no-wait", "init")
        self._daemon(["ovs-vswitchd", "--disable-system", server])

    def _daemon(self, command: list[str]) -> None:
        options = ["-vfile:off", "-vsyslog:off", f"--pidfile={self.directory / command[0]}.pid"]
        self.daemons[command[0]] = self.switch.popen([*command, *options], env=self.environment, **QUIET)

    def vsctl(self, *arguments: str) -> str:
        """What ``ovs-vsctl`` says; it has to succeed."""
        tool = [need_tool("ovs-vsctl"), "--timeout=10", *arguments]
        done = subprocess.run(tool, env=self.environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def mirrors(self) -> list[str]:
        """The names of all mirrors in the database."""
        return sorted(self.vsctl("--bare", "--columns=name", "list", "mirror").split())

    def ports(self, bridge: str = BRIDGE) -> list[str]:
        """The ports of a bridge."""
        return self.vsctl("list-ports", bridge).split()

    def vmsensor(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """The program on the host of the switch, to its end."""
        command = [*prefix, sys.executable, "-m", "sensor", *arguments]
        process = self.switch.popen(command, env=self.environment)
        output, errors = process.communicate(timeout=30)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def mirrored(self, *arguments: str) -> list[str]:
        """The lines of a ``vmsensor mirror`` command, run in this process to save time; its errors are raised."""
        said = io.StringIO()
        context = program.make_context("vmsensor", ["mirror", *arguments])
        with self.switch.inside(), patch.dict(os.environ, self.environment), redirect_stdout(said), context:
            program.invoke(context)
        return said.getvalue().splitlines()

    def exchange(
        self, source: str, to: str, where: Namespace | None = None, interface: str = "span0", count: int = 3
    ) -> Counter[tuple[str, str]]:
        """What comes out at the mirror of datagrams and their answers: how many from which address to which."""
        with ears(where or self.tap, interface) as listening:
            with (
                self.vm(source).socket(kind=socket.SOCK_DGRAM) as one,
                self.vm(to).socket(kind=socket.SOCK_DGRAM) as other,
            ):
                other.bind((self.vm(to).ipv4, PORT))
                for _ in range(count):
                    one.sendto(b"question", (self.vm(to).ipv4, PORT))
                    other.sendto(b"answer", other.recvfrom(64)[1])
                    assert one.recv(64) == b"answer"
            time.sleep(0.1)
            return heard(listening)


def ears(namespace: Namespace, interface: str) -> socket.socket:
    """A socket that keeps the frames that arrive at an interface."""
    with namespace.inside():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PACKETS))
        opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        opened.bind((interface, 0))
    opened.setblocking(False)
    return opened


def heard(listening: socket.socket) -> Counter[tuple[str, str]]:
    """The datagrams of `exchange` among the frames that have come, by their addresses."""
    found: Counter[tuple[str, str]] = Counter()
    while True:
        try:
            packet = dpkt.ethernet.Ethernet(listening.recv(2048)).data
        except BlockingIOError:
            return found
        datagram = packet.data if isinstance(packet, dpkt.ip.IP) else None
        if isinstance(datagram, dpkt.udp.UDP) and PORT in (datagram.sport, datagram.dport):
            found[socket.inet_ntoa(packet.src), socket.inet_ntoa(packet.dst)] += 1
