"""The mirrors of this host, of every kind; and the one place that chooses which kind a source takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from sensor.errors import InterfaceError, UsageError
from sensor.mirror import Destination, Mirror, Mirrored
from sensor.openvswitch import OpenVSwitch


class Kind(Protocol):
    """A way to mirror. Failures are InterfaceErrors and PrivilegeErrors."""

    def knows(self, name: str) -> bool:
        """Whether it can mirror a source of this name."""

    def check(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> None:
        """Refuse, before anything is done, what cannot be mirrored or would do harm."""

    def add(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> list[Mirrored]:
        """Copy the frames of all sources, in place of what was mirrored of them before."""

    def listed(self) -> list[Mirrored]:
        """Everything that this program mirrors in this way."""

    def end(self, sources: Sequence[str]) -> None:
        """End the mirrors of these sources, and what was made for them alone."""

    def undone_on_failure(self) -> AbstractContextManager[None]:
        """A block, of which everything that was done in this way is taken back if it fails."""


class Mirrors:
    """What ``vmsensor mirror add``, ``list`` and ``remove`` work on. Use as a context manager."""

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self._open = ExitStack()

    def __enter__(self) -> Mirrors:
        # The first that knows a source has it: a port of Open vSwitch mostly is an interface of Linux too.
        self._kinds = [OpenVSwitch(), self._open.enter_context(Mirror())]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, sources: Sequence[str], destination: Destination, directions: Sequence[str]) -> list[Mirrored]:
        """Mirror all sources, or, if that fails, leave everything as it was."""
        shares = [(kind, share) for kind, share in self._shares(sources) if share]
        destination = _checked(destination, sources, [share for _, share in shares])
        for kind, share in shares:
            kind.check(share, destination, directions)
        added = []
        with ExitStack() as undo:
            for kind in self._kinds:
                undo.enter_context(kind.undone_on_failure())
            for kind, share in shares:
                added += kind.add(share, destination, directions)
                for other in self._kinds:
                    if other is not kind:
                        self._end(other, share)
        return added

    def listed(self) -> list[Mirrored]:
        """Everything that is mirrored by this program."""
        return [one for kind in self._kinds for one in kind.listed()]

    def remove(self, sources: Sequence[str]) -> list[Mirrored]:
        """End the mirrors of these sources, of all where none is named; what has ended.

        A source that is gone has taken its mirror with it.
        """
        ended = [one for one in self.listed() if not sources or one.source in sources]
        with ExitStack() as undo:
            for kind in self._kinds:
                undo.enter_context(kind.undone_on_failure())
            for kind in self._kinds:
                kind.end(list(dict.fromkeys(one.source for one in kind.listed() if one in ended)))
        return ended

    def knows(self, name: str) -> bool:
        """Whether there is such a source."""
        return any(kind.knows(name) for kind in self._kinds)

    def _shares(self, sources: Sequence[str]) -> list[tuple[Kind, list[str]]]:
        """Each kind, and the sources that it takes."""
        shares: list[tuple[Kind, list[str]]] = [(kind, []) for kind in self._kinds]
        for source in dict.fromkeys(sources):
            share = next((share for kind, share in shares if kind.knows(source)), None)
            if share is None:
                raise InterfaceError(f"{source}: no such interface; `vmsensor interfaces` lists them")
            share.append(source)
        return shares

    @staticmethod
    def _end(kind: Kind, sources: Sequence[str]) -> None:
        standing = [one.source for one in kind.listed() if one.source in sources]
        if standing:
            kind.end(standing)


def _checked(destination: Destination, sources: Sequence[str], shares: Sequence[Sequence[str]]) -> Destination:
    """The destination, its address as it is written commonly, if these sources can be mirrored to it together."""
    if destination.interface in sources:
        raise InterfaceError(f"{destination.interface}: cannot be mirrored to itself")
    if destination.interface is not None:
        return destination
    try:
        address = ipaddress.ip_address(destination.host)
    except ValueError:
        raise UsageError(f"--to-host {destination.host}: is no IP address; give the sensor's own") from None
    if address.is_unspecified or address.is_loopback or address.is_multicast or str(address) == "255.255.255.255":
        raise UsageError(f"--to-host {destination.host}: is no address of another host; give the sensor's own")
    if len(shares) > 1:
        switch, other = shares[0][0], shares[1][0]
        raise InterfaceError(
            f"{switch} is of Open vSwitch and {other} is not: two tunnels cannot be made at once; "
            "give --to an interface, or mirror the ones or the others"
        )
    return destination._replace(host=str(address))
