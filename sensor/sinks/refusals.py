"""Why a server did not take lines, in one line for whoever has to do something about it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import urllib3

from sensor.errors import DeliveryError

if TYPE_CHECKING:
    from sensor.sinks.servers import InfluxSettings

REASON_CHARACTERS = 200
"""A server may answer with a page of HTML; this much of it is shown."""


class Refused(Exception):
    """An HTTP answer other than success, with the reason that the server gives."""

    def __init__(self, status: int, reason: str, retry_after: str = "") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        """The header as it came: seconds or a date (RFC 9110 section 10.2.3)."""


@contextmanager
def explained(settings: InfluxSettings) -> Iterator[None]:
    """Turn whatever goes wrong with the server into a DeliveryError, without the exception that may hold the token."""
    try:
        yield
        return
    except Refused as error:
        reason = _quotable(error.reason, settings.token)
        failure = DeliveryError(f"{settings.url} {_refusal(settings, error.status, reason)}")
        failure.status, failure.reason = error.status, reason
        failure.retry_after = seconds_to_wait(error.retry_after)
    except (urllib3.exceptions.HTTPError, OSError, UnicodeDecodeError) as error:
        failure = DeliveryError(f"{settings.url} {_failure(settings, error)}")
    raise failure


def seconds_to_wait(retry_after: str) -> float:
    """What a Retry-After header asks for; 0 where there is none, or it is nonsense."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
    return max((until - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _refusal(settings: InfluxSettings, status: int, reason: str) -> str:
    """What an HTTP status other than success means, and what to do about it."""
    said = f"({status}{': ' if reason else ''}{reason})"
    if status in (401, 403):
        return f"refuses the token {said}; check INFLUXDB_V2_TOKEN or --influx-token-file, and its right to write"
    if status == 404:
        return f"{_not_found(settings, reason)} {said}"
    if status == 413:
        return f"takes no request that large {said}; raise the server's limit (InfluxDB 1: max-body-size)"
    if 300 <= status < 400:
        return f"redirects {said}; give the address it names to --influx-url"
    if status == 429 or status >= 500:
        return f"cannot take data now {said}; look at the server, or try again later"
    return f"does not accept the data {said}"


def _not_found(settings: InfluxSettings, reason: str) -> str:
    """404: which of the things that the request names is missing, and how to make it."""
    database = settings.bucket.partition("/")[0]
    if "database" in reason:
        return f"has no database {database}; make it with: influx -execute 'CREATE DATABASE \"{database}\"'"
    if "organization" in reason:
        return f"has no organization {settings.org or '(none given)'}; check --influx-org"
    if "bucket" in reason:
        return f"has no bucket {settings.bucket}; make it with: influx bucket create --name {settings.bucket}"
    return "has no InfluxDB write interface at this address; check --influx-url"


def _failure(settings: InfluxSettings, error: Exception) -> str:
    """No answer at all."""
    root: BaseException = error
    while (cause := root.__cause__ or root.__context__) is not None:
        root = cause
    if isinstance(root, ssl.SSLError):
        reason = getattr(root, "verify_message", "") or root.reason or "TLS failed"
        return f"cannot be trusted ({reason}); name its authority's certificate with --influx-ca-file"
    if isinstance(root, TimeoutError) or _is_timeout(error):
        reason = f"no answer within {settings.timeout:g} s"
    else:
        reason = _quotable(getattr(root, "strerror", None) or str(root) or type(root).__name__, settings.token)
    return f"cannot be reached ({reason}); check --influx-url and that the server runs"


def _is_timeout(error: Exception) -> bool:
    # In urllib3 1.26 a refused connection counts as a timeout, too.
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    return isinstance(error, urllib3.exceptions.TimeoutError) and not refused


def _quotable(text: str, token: str) -> str:
    """``text`` on one line, not too long, and without the token in any form that the server was sent it in."""
    for secret in (token, token.partition(":")[2], base64.b64encode(token.encode()).decode()):
        if secret:
            text = text.replace(secret, "[token]")
    return " ".join(text.split())[:REASON_CHARACTERS]
