"""A window's lines in as many requests as the server takes, without those that it refuses for what they are."""

from __future__ import annotations

import re
from collections import deque

from sensor.errors import DeliveryError
from sensor.sinks.influx import Writer
from sensor.sinks.lineprotocol import split
from sensor.sinks.rejects import Rejects

BATCH_LINES = 5000
"""Points of one request, as InfluxDB's makers advise."""

MOST_REQUESTS = 500
"""Spent on finding the bad lines of one window. What is still in doubt then is kept as refused, the good lines of it
too: those a server takes even when it complains of others (a partial write), so that nothing is missing there."""

_TOO_LARGE = 413
_BAD_DATA = (400, 422)
_ABOUT_LINES = re.compile(r"partial write|field type conflict|unable to parse|beyond retention", re.IGNORECASE)
_DROPPED = re.compile(r"dropped=(\d+)")


class Batches:
    """Writes by way of ``writer``. A server that wants smaller requests gets them from then on."""

    def __init__(self, writer: Writer, rejects: Rejects) -> None:
        self._writer = writer
        self._rejects = rejects
        self._limit = BATCH_LINES

    def send(self, lines: bytes) -> None:
        """Write all lines; DeliveryError when the server takes nothing now, and OutputError as of ``Rejects``."""
        pieces = deque(split(lines, self._limit))
        doubts = 0
        while pieces:
            piece = pieces.popleft()
            try:
                self._writer.write(piece)
                continue
            except DeliveryError as error:
                refusal = error
            count = sum(1 for _ in split(piece, 1))
            if refusal.status == _TOO_LARGE and count > 1:
                self._limit = min(self._limit, (count + 1) // 2)
            elif not _is_about_lines(refusal):
                raise refusal
            else:
                doubts += 1
                if count == 1 or _dropped(refusal) >= count or doubts > MOST_REQUESTS:
                    self._rejects.add(piece, count, refusal.reason)
                    continue
            pieces.extendleft(reversed(list(split(piece, (count + 1) // 2))))
        self._rejects.sync()


def _is_about_lines(refusal: DeliveryError) -> bool:
    """True when the server complains of these lines; else another time, or another setting, might do."""
    if refusal.status == _TOO_LARGE:
        return True
    return refusal.status in _BAD_DATA and _ABOUT_LINES.search(refusal.reason) is not None


def _dropped(refusal: DeliveryError) -> int:
    """How many lines it says it has not taken."""
    found = _DROPPED.search(refusal.reason)
    return int(found[1]) if found else 0
