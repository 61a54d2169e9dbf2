"""A proxy in front of a real server that fails as told: refusals, requests cut in the middle, a limit of size."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fakes import Handler, serving

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Faults:
    """What the proxy does to the writes that come: each answer is given once, in order, in place of the server's.

    ``cut`` is how many more answers get lost on their way back although the server has done what was asked;
    ``largest`` the octets of a request (as sent, compressed) that are let through.
    """

    url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    cut: int = 0
    largest: int | None = None
    writes: int = 0
    before_answer: Callable[[], None] = lambda: None


class _Proxy(Handler):
    faults: Faults
    server_url: str

    def do_GET(self) -> None:
        """Pass on."""
        self._give(*self._pass_on(None))

    def do_POST(self) -> None:
        """A write: fail as told, else pass on."""
        faults = self.faults
        body = self.body()
        faults.writes += 1
        if faults.answers:
            self._give(*faults.answers.popleft())
        elif faults.largest is not None and len(body) > faults.largest:
            self._give(413, {}, b'{"error":"Request Entity Too Large"}')
        else:
            answer = self._pass_on(body)
            faults.before_answer()
            if faults.cut:
                faults.cut -= 1
                self.close_connection = True
            else:
                self._give(*answer)

    def _pass_on(self, body: bytes | None) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(self.server_url + self.path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()
        except OSError:
            return 502, {}, b'{"error":"no upstream"}'

    def _give(self, status: int, headers: dict[str, str], body: bytes) -> None:
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION}
        self.answer(status, body, kept)


_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection", "date", "server")


@contextmanager
def faulty(server_url: str) -> Iterator[Faults]:
    """A proxy to the server at ``server_url``; where it listens is in ``url``."""
    faults = Faults()
    handler = type("Proxy", (_Proxy,), {"faults": faults, "server_url": server_url, "protocol_version": "HTTP/1.1"})
    with serving(handler) as faults.url:
        yield faults
