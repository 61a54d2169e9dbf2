"""A long cable between a VM and its switch: adds delay, jitter, loss and reordering, in user space, from a seed.

It can end in an access port of the switch: what the VM sends gets a VLAN tag, and only frames with it come to the VM.

`python -m tests.relay` runs in the switch's namespace. It makes a TAP device there and one in the VM's namespace and
carries frames between them until SIGTERM; then it prints what it did, as JSON. A test starts it through `relayed`.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.lab import NETNS, VM, Lab, command, wait_until

TO_VM, TO_SWITCH = 0, 1
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
FRAME = 2048
QUEUE = "20000"
"""Frames that wait for the relay: it delays, and drops none."""


@dataclass(frozen=True)
class Cable:
    """What the cable does to frames. `reordered` and `lost` are shares; a reordered frame is late by `late_ms`.

    `vlan` is that of the access port; 0: frames are as the VM knows them.
    """

    delay_ms: float
    jitter_ms: float = 0.0
    reordered_to_vm: float = 0.0
    reordered_to_switch: float = 0.0
    late_ms: float = 0.0
    lost_to_vm: float = 0.0
    lost_to_switch: float = 0.0
    vlan: int = 0


@dataclass
class Done:
    """What a relay did, in each direction: frames, median delay in us, how many were made late."""

    frames: tuple[int, int] = (0, 0)
    median_us: tuple[float, float] = (0.0, 0.0)
    late: tuple[int, int] = (0, 0)


@contextmanager
def relayed(lab: Lab, vm: VM, cable: Cable, seed: int) -> Iterator[Done]:
    """Replace a VM's cable by a relay; what it did is known once the block has ended."""
    switch, process = lab.switch, start(lab, vm, cable, seed)
    done = Done()
    try:
        connect(lab, vm)
        yield done
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
        vm.plug_in(switch.name)
    assert process.returncode == 0, errors
    for name, value in json.loads(output).items():
        setattr(done, name, tuple(value))


def start(lab: Lab, vm: VM, cable: Cable, seed: int) -> subprocess.Popen[str]:
    """Put a relay in the place of a VM's cable; it ends with the lab."""
    lab.switch.run(["ip", "link", "del", "dev", vm.port])
    arguments = ["--vm", vm.name, "--port", vm.port, "--seed", str(seed), "--cable", json.dumps(vars(cable))]
    return lab.switch.popen([sys.executable, "-m", "tests.relay", *arguments])


def connect(lab: Lab, vm: VM) -> None:
    """Wait for a VM's relay, and bring up both of its ends."""
    wait_until(lambda: command(["ip", "-n", vm.name, "link", "show", "dev", "eth0"]).returncode == 0, "the relay")
    vm.bring_up(lab.switch.name)
    for end, device in ((lab.switch, vm.port), (vm, "eth0")):
        end.run(["ip", "link", "set", "dev", device, "txqueuelen", QUEUE])


class Relay:
    """Two TAP devices and the frames that are on their way between them."""

    def __init__(self, descriptors: tuple[int, int], cable: Cable, seed: int) -> None:
        self.descriptors, self.cable, self.chance = descriptors, cable, random.Random(seed)
        self.waiting: list[tuple[int, int, int, int, bytes]] = []
        self.last = [0, 0]
        self.number = 0
        self.delays: tuple[list[int], list[int]] = ([], [])
        self.late = [0, 0]
        self.stopped = False

    def run(self) -> None:
        """Carry frames until told to stop."""
        switch, vm = self.descriptors
        while not self.stopped:
            timeout = max(self.waiting[0][0] - time.monotonic_ns(), 0) / 1e9 if self.waiting else 0.2
            readable, _, _ = select.select([switch, vm], [], [], timeout)
            for descriptor in readable:
                self._take(descriptor, TO_VM if descriptor == switch else TO_SWITCH)
            self._deliver()

    def _take(self, descriptor: int, way: int) -> None:
        now = time.monotonic_ns()
        while True:
            try:
                frame = os.read(descriptor, FRAME)
            except BlockingIOError:
                return
            passed = self._at_the_port(frame, way)
            if passed is None or self._is_lost(way):
                continue
            frame = passed
            self.number += 1
            heapq.heappush(self.waiting, (self._due(now, way), self.number, way, now, frame))

    def _at_the_port(self, frame: bytes, way: int) -> bytes | None:
        """The frame with the access port's tag, or without it; None where it is not for this port."""
        if not self.cable.vlan:
            return frame
        tag = struct.pack("!HH", 0x8100, self.cable.vlan)
        if way == TO_SWITCH:
            return frame[:12] + tag + frame[12:]
        return frame[:12] + frame[16:] if frame[12:16] == tag else None

    def _is_lost(self, way: int) -> bool:
        share = (self.cable.lost_to_vm, self.cable.lost_to_switch)[way]
        return share > 0 and self.chance.random() < share

    def _due(self, now: int, way: int) -> int:
        cable = self.cable
        due = now + int((cable.delay_ms + self.chance.uniform(0, cable.jitter_ms)) * 1e6)
        if self.chance.random() < (cable.reordered_to_vm, cable.reordered_to_switch)[way]:
            self.late[way] += 1
            return due + int(cable.late_ms * 1e6)
        self.last[way] = due = max(due, self.last[way])
        return due

    def _deliver(self) -> None:
        while self.waiting and self.waiting[0][0] <= time.monotonic_ns():
            _, _, way, arrived, frame = heapq.heappop(self.waiting)
            self.delays[way].append(time.monotonic_ns() - arrived)
            with suppress(OSError):  # EIO: that end is not up yet, and a frame to it is lost as on any cable
                os.write(self.descriptors[1 - way], frame)

    def done(self) -> dict[str, list[float]]:
        """What it did."""
        medians = [statistics.median(delays) / 1000 if delays else 0.0 for delays in self.delays]
        return {"frames": [len(delays) for delays in self.delays], "median_us": medians, "late": [*self.late]}


def open_tap(name: str) -> int:
    """A new TAP device in this namespace."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def main() -> None:
    """Make the devices, relay, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--vm", "--port", "--cable"):
        parser.add_argument(option, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    switch = open_tap(options.port)
    with open(NETNS / options.vm) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the VM's namespace")
    relay = Relay((switch, open_tap("eth0")), Cable(**json.loads(options.cable)), options.seed)
    signal.signal(signal.SIGTERM, lambda *_: setattr(relay, "stopped", True))
    relay.run()
    print(json.dumps(relay.done()))


if __name__ == "__main__":
    main()
