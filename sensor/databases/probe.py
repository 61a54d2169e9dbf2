"""What it takes to write, and nothing written."""

from __future__ import annotations

from urllib.parse import urlencode

from sensor.errors import DeliveryError
from sensor.sinks.influx import write_path
from sensor.sinks.servers import Http

_NO_POINT = b"# vmsensor influx check\n"


def try_v1_write(http: Http) -> None:
    """``/write`` with lines that hold no point. DeliveryError where writing is not allowed."""
    http.demand("POST", write_path(http.settings), _NO_POINT)


def try_v2_write(http: Http) -> None:
    """``/api/v2/write`` with the same; a server that wants a point has accepted the token by then."""
    settings = http.settings
    query = {"bucket": settings.bucket, "precision": "ns"} | ({"org": settings.org} if settings.org else {})
    try:
        http.demand("POST", f"/api/v2/write?{urlencode(query)}", _NO_POINT)
    except DeliveryError as error:
        if error.status != 400:
            raise
