"""The keeper: the one process that keeps privileges. It starts workers, makes the NIC ready, and puts it back.

    supervisor, no privileges  <--- requests ---  keeper: CAP_NET_RAW, CAP_NET_ADMIN
            ^                                       | forks
            '------------- windows ------------- worker: opens the interface, gives up the rest

The supervisor asks over a socket, in JSON, for nothing but these three things, of the interface that was named at the
start; it passes the ends of the pipes on which it will talk with a worker. The keeper sees when the supervisor is gone,
and then puts the NIC back and ends. It looks at no packet, and at nothing that a worker has made of packets.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from sensor import logs
from sensor.capturenic import CaptureNic
from sensor.config import Settings
from sensor.errors import PrivilegeError, SensorError
from sensor.nicclock import NicClock
from sensor.privileges import CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETPCAP, give_up, user_named
from sensor.workerprocess import Duty, worker_main

WORKER_EXIT_SECONDS = 10.0
"""A worker that was asked to stop has so long."""

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""The supervisor's alone: it passes on what they ask for."""

_MOST = 1 << 18
"""Octets of a request."""

_PR_SET_NAME = 15  # linux/prctl.h

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a keeper is told when it starts."""

    settings: Settings
    interface: str
    duties: Sequence[Duty]


class KeeperGone(SensorError):
    """The keeper was killed."""


class Keeper:
    """The keeper, as the supervisor sees it. Use as a context manager; it ends the keeper.

    The process that starts it may give up its privileges as soon as that is done.
    """

    def __init__(self, task: Task) -> None:
        self._interface = task.interface
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _start(theirs.fileno())
        self.socket = ours
        """Readable when the keeper is gone, as it says nothing unasked."""
        # What it has no use for, secrets above all, does not go there.
        settings = replace(task.settings, influx=None, monitored=(), limits={}, sinks=())
        ours.send(pickle.dumps(replace(task, settings=settings)))

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._process.wait()

    def await_ready(self) -> None:
        """PrivilegeError with what kept it from its work."""
        told = self._answer()
        if "error" in told:
            raise PrivilegeError(str(told["error"]))

    def start(self, worker: int, up: Connection, control: Connection) -> None:
        """Start a worker with its ends of the two pipes."""
        self._ask({"do": "start", "worker": worker}, [up.fileno(), control.fileno()])

    def end(self, worker: int, patience: float = WORKER_EXIT_SECONDS) -> int:
        """Make sure that a worker which was asked to stop has ended; how it did, negative by which signal.

        It has so many seconds before it is killed.
        """
        return int(self._ask({"do": "end", "worker": worker, "patience": patience})["status"])

    def prepare(self) -> None:
        """Switch off again what changes packets on their way."""
        self._ask({"do": "prepare"})

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        try:
            socket.send_fds(self.socket, [json.dumps(request).encode()], list(descriptors))
        except OSError:
            raise self.gone() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            octets = self.socket.recv(_MOST)
        except OSError:
            octets = b""
        if not octets:
            raise self.gone()
        return dict(json.loads(octets))

    def gone(self) -> KeeperGone:
        """What to say of it."""
        what = "the process that keeps the privileges is gone; its NIC settings stay as they are"
        return KeeperGone(f"{self._interface}: {what}; start the capture again")


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that nothing of the supervisor's memory is in it, with the supervisor's ``sys.path``."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from sensor.keeper import main; main({descriptor})"
    environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the mask is inherited: no signal comes too early
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[descriptor], env=environment, stdin=subprocess.DEVNULL
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- what runs in it


def main(descriptor: int) -> None:
    """The keeper."""
    _be_called("vms-keeper")
    with socket.socket(fileno=descriptor) as requests, ExitStack() as stack:
        task: Task = pickle.loads(requests.recv(_MOST))  # from who started this process, and has not begun to capture
        logs.setup(task.settings.log_format, task.settings.log_level)
        clock = NicClock(task.interface) if task.settings.timestamps != "host" else None
        try:
            account = user_named(task.settings.user) if os.geteuid() == 0 else None
            give_up(account, keep=(CAP_NET_RAW, CAP_NET_ADMIN, CAP_SETPCAP))
        except SensorError as error:
            with suppress(OSError):  # the supervisor is gone
                requests.send(json.dumps({"error": str(error)}).encode())
            return
        if account is not None and account.pw_uid != os.geteuid():
            log.info("root may not become %s here, for want of CAP_SETUID and CAP_SETGID, and stays", account.pw_name)
        nic = stack.enter_context(CaptureNic(task.interface, clock)) if task.settings.nic_setup else None
        family = _Family(task, clock)
        stack.callback(family.end_all)
        with suppress(OSError):  # the supervisor is gone
            requests.send(b"{}")
            _serve(requests, family, nic)


def _serve(requests: socket.socket, family: _Family, nic: CaptureNic | None) -> None:
    """Do what is asked, until the supervisor is gone."""
    while True:
        octets, descriptors, *_ = socket.recv_fds(requests, _MOST, 2)
        if not octets:
            return
        request, answer = json.loads(octets), {}
        if request["do"] == "start":
            if nic:
                nic.meet()
            family.start(request["worker"], *descriptors)
        elif request["do"] == "end":
            answer = {"status": family.end(request["worker"], request["patience"])}
        elif request["do"] == "prepare" and nic:
            nic.prepare()
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps(answer).encode())


def _be_called(name: str) -> None:
    """What ``ps`` and ``top`` show as the command."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


class _Family:
    """The workers, by number."""

    def __init__(self, task: Task, clock: NicClock | None) -> None:
        self._task = task
        self._clock = clock
        self._pids: dict[int, int] = {}

    def start(self, worker: int, up: int, control: int) -> None:
        """Fork one: this process has a single thread, and has imported what a worker needs."""
        duty = self._task.duties[worker]
        pid = os.fork()
        if pid == 0:
            _be_worker(self._task, duty, up, control, self._clock)
        self._pids[worker] = pid

    def end(self, worker: int, patience: float = WORKER_EXIT_SECONDS) -> int:
        """Wait for one, no longer than it may take."""
        pid = self._pids.pop(worker)
        over = time.monotonic() + patience
        while time.monotonic() < over:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def end_all(self) -> None:
        """The supervisor is gone, which they see as well."""
        for worker in list(self._pids):
            self.end(worker)


def _be_worker(task: Task, duty: Duty, up: int, control: int, clock: NicClock | None) -> NoReturn:
    """What goes on in the fork; it never returns into the keeper's code."""
    status = 1
    try:
        _be_called(f"vms-worker-{duty.number + 1}")
        kept = {0, 1, 2, up, control, *(clock.descriptors if clock else ())}
        for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
            if descriptor not in kept:
                with suppress(OSError):
                    os.close(descriptor)
        pipes = Connection(up, readable=False), Connection(control, writable=False)
        worker_main(task.settings, task.interface, duty, *pipes, clock)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)
