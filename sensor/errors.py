"""Every way vmsensor can fail, each with its exit status.

The message is one line: what is wrong, where, and what to do next. ``cli.main`` prints it and exits; nothing else
prints errors or chooses exit statuses.
"""

from __future__ import annotations


class SensorError(Exception):
    """Base of all expected failures. ``exit_status`` is what the process returns."""

    exit_status = 1
    summary = "an unexpected failure"


class UsageError(SensorError):
    """An option, a configuration key or a BPF filter is wrong. The same status as click's own usage errors."""

    exit_status = 2
    summary = "a wrong option, configuration key or filter"


class InputError(SensorError):
    """A capture file or a store is missing, unreadable or not what it should be."""

    exit_status = 3
    summary = "an input is missing, unreadable or not a capture"


class DamagedInputError(SensorError):
    """A capture or a store is cut or damaged; everything that could be read has been reported."""

    exit_status = 4
    summary = "a capture or a store is cut or damaged; everything that could be read was reported"


class InterfaceError(SensorError):
    """The interface does not exist, is down, or stopped delivering: at ``since_ns``, if it had delivered before."""

    exit_status = 5
    summary = "the interface is unknown or failed"
    since_ns: int | None = None


class PrivilegeError(SensorError):
    """The process lacks a capability that live capture needs."""

    exit_status = 6
    summary = "a capability is missing"


class OutputError(SensorError):
    """A result could not be written to the local disk or to standard output."""

    exit_status = 7
    summary = "an output cannot be written"


class DeliveryError(SensorError):
    """InfluxDB is unreachable or refuses; the windows stay in the local store.

    ``status`` and ``reason`` are those of an HTTP answer; ``retry_after`` are seconds that the server asks to wait.
    """

    exit_status = 8
    summary = "InfluxDB did not take everything; the rest stays in the local store"
    status: int | None = None
    reason: str = ""
    retry_after: float = 0.0


class PolicyBroken(SensorError):
    """``policy check`` has found something that the policy does not allow."""

    exit_status = 9
    summary = "`policy check` has found what the policy does not allow"


class WorkerError(SensorError):
    """One of several processes that read a capture died, or could not be started; its share of the rest is missing."""

    exit_status = 10
    summary = "one of the processes of `read --workers` died; only windows that were told before are whole"


INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended early; not of ``capture``, for which that is the normal end."""

FAILURES: tuple[type[SensorError], ...] = (
    SensorError, UsageError, InputError, DamagedInputError, InterfaceError, PrivilegeError, OutputError, DeliveryError,
    PolicyBroken, WorkerError,
)  # fmt: skip
"""In order of exit status, for the documentation and its test."""
