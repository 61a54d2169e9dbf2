"""Real time-series servers on free loopback ports, started by the tests and stopped after them."""

from __future__ import annotations

import atexit
import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.needs import need_tool

START_SECONDS = 30


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on, and that no other process is given.

    It stays bound until the tests end: tests beside these ask for ports as well. Whoever sets SO_REUSEADDR, as servers
    do, can listen there all the same; a client is refused until one does.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    atexit.register(holder.close)
    return int(holder.getsockname()[1])


AnyServer = TypeVar("AnyServer", bound="Server")


class Server(ABC):
    """A server process on one port, which can be stopped and started again over the same data.

    ``with`` does not start it, but stops it in the end.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self: AnyServer) -> AnyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    def start(self) -> None:
        """Run the server and wait until it listens."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self.command()[0]} does not start: {(self.directory / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process, kindly first."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    @property
    def runs(self) -> bool:
        """True until it has been stopped or killed."""
        return self._process is not None

    def kill(self) -> None:
        """End the process as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def freeze(self) -> None:
        """Let the server hang: connections are still accepted by the kernel, and never answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # all its threads, which may be busy with a request

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class InfluxServer(Server):
    """Debian's InfluxDB 1.6; ``http_options`` are lines for the [http] section of its configuration."""

    def __init__(self, directory: Path, http_options: str = "") -> None:
        super().__init__(directory)
        self._influxd = need_tool("influxd")
        self._http_options = http_options
        self._context: ssl.SSLContext | None = None
        self._login: dict[str, str] = {}

    def trust(self, certificate: Path) -> None:
        """Ask over TLS, and trust this authority."""
        self.url = f"https://127.0.0.1:{self.port}"
        self._context = ssl.create_default_context(cafile=str(certificate))

    def log_in(self, user: str, password: str) -> None:
        """Ask as this user from now on."""
        self._login = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    def command(self) -> list[str]:
        """Run influxd over a configuration with everything below the directory."""
        configuration = self.directory / "influxdb.conf"
        configuration.write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n'
            f'[meta]\ndir = "{self.directory}/meta"\n'
            f'[data]\ndir = "{self.directory}/data"\nwal-dir = "{self.directory}/wal"\n'
            "[monitor]\nstore-enabled = false\n"
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\n{self._http_options}\n'
        )
        return [self._influxd, "-config", str(configuration)]

    def query(self, text: str, database: str = "", timeout: float = 10) -> list[dict[str, object]]:
        """The rows of an InfluxQL query, those of all series together, each with its tags; times in nanoseconds."""
        form = urllib.parse.urlencode({"q": text, "db": database, "epoch": "ns"}).encode()
        request = urllib.request.Request(f"{self.url}/query", form, self._login)
        with urllib.request.urlopen(request, timeout=timeout, context=self._context) as answer:
            (result,) = json.load(answer)["results"]
        assert "error" not in result, result
        return [
            dict(zip(series["columns"], values, strict=True)) | series.get("tags", {})
            for series in result.get("series", [])
            for values in series["values"]
        ]

    def create_database(self, name: str) -> str:
        """Make a database and give back its name."""
        self.query(f'CREATE DATABASE "{name}"')
        return name


class VictoriaServer(Server):
    """VictoriaMetrics, which keeps anything the tests write, however old."""

    def command(self) -> list[str]:
        """Run victoria-metrics with its data below the directory."""
        return [
            need_tool("victoria-metrics"),
            f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-storageDataPath={self.directory}/data",
            "-retentionPeriod=100y",
        ]

    def export(self, selector: str) -> list[dict[str, object]]:
        """All series that match, each with its labels, values and timestamps in milliseconds."""
        with urllib.request.urlopen(f"{self.url}/internal/force_flush", timeout=10):
            pass
        form = urllib.parse.urlencode({"match[]": selector}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/export", form, timeout=10) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]


@pytest.fixture(scope="session")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One InfluxDB for all tests; each makes a database of its own in it."""
    with InfluxServer(tmp_path_factory.mktemp("influxdb")) as server:
        server.start()
        yield server


@pytest.fixture(scope="session")
def victoriametrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaServer]:
    """One VictoriaMetrics for all tests; each writes series of its own to it."""
    with VictoriaServer(tmp_path_factory.mktemp("victoriametrics")) as server:
        server.start()
        yield server
