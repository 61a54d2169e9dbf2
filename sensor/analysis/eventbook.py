"""Findings of many windows as few events: each opens, is updated now and then, and closes; none floods the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sensor.analysis.findings import Finding, Severity
from sensor.analysis.limit import Limit, in_ns

State = Literal["fact", "open", "update", "close"]

LIMITS = (
    Limit("event_quiet", 60, "seconds", "An event of which nothing was found for so long closes."),
    Limit("event_update", 300, "seconds", "An open event is written again after so long, with its sums so far."),
    Limit("events_per_window", 100, "count", "More events than these are not opened in a window; the rest are counted "
          "in one event of kind `suppressed`."),
    Limit("events_held", 10_000, "count", "More events than these are not open at the same time; the rest are counted "
          "likewise."),
)  # fmt: skip

RANK: Mapping[Severity, int] = {"info": 0, "warning": 1, "critical": 2}
SUPPRESSED = "suppressed"

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Event:
    """What is written. ``count`` windows have shown it since it opened; ``evidence`` is their counts, summed.

    ``first_ns`` is when it began, ``last_ns`` until when it was found. A ``fact`` is over at once: no other event of it
    follows.
    """

    kind: str
    severity: Severity
    tenant: str
    subject: str
    object: str
    state: State
    detail: str
    first_ns: int
    last_ns: int
    count: int
    evidence: dict[str, int]


@dataclass
class _Held:
    """An open event, the worst that was found of it, and until when it was written."""

    finding: Finding
    first_ns: int
    last_ns: int
    written_ns: int
    windows: int = 0
    evidence: Counter[str] = field(default_factory=Counter)


class EventBook:
    """The open events of a sensor. The same kind, tenant, subject and object are one event."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.suppressed = 0
        """Findings that did not become an event, over the run."""
        self._limits = limits
        self._open: dict[Key, _Held] = {}

    def take(self, findings: Iterable[Finding], start_ns: int, end_ns: int) -> list[Event]:
        """What is to be written of a window: what closes, what goes on, then what is new, the worst of it first."""
        facts, states = _apart(findings)
        closed = self._close(states.keys(), start_ns, end_ns)
        events = [self._go_on(key, states.pop(key), end_ns) for key in sorted(self._open.keys() & states.keys())]
        fresh = sorted([*facts, *states.values()], key=_worst_first)
        written, held_back = self._begin(fresh, start_ns, end_ns)
        return [*closed, *(event for event in events if event), *written, *_suppressed(held_back, start_ns, end_ns)]

    def close_all(self, end_ns: int) -> list[Event]:
        """At the end of a run: each open event once more with its sums.

        Its state is ``update``: the run is over, which says nothing about whether the attack is.
        """
        for held in self._open.values():
            held.written_ns = end_ns
        return [_event(self._open[key], "update") for key in sorted(self._open)]

    def _begin(self, fresh: list[Finding], start_ns: int, end_ns: int) -> tuple[list[Event], list[Finding]]:
        """As many new events as there is room for, and the findings that found none."""
        written: list[Event] = []
        held_back: list[Finding] = []
        for finding in fresh:
            if len(written) >= int(self._limits["events_per_window"]) or not (
                finding.once or len(self._open) < int(self._limits["events_held"])
            ):
                held_back.append(finding)
                continue
            held = _Held(finding, _since(finding, start_ns), end_ns, end_ns)
            _add(held, finding)
            if finding.once:
                held.last_ns = held.first_ns
            else:
                self._open[_key(finding)] = held
            written.append(_event(held, "fact" if finding.once else "open"))
        self.suppressed += len(held_back)
        return written, held_back

    def _go_on(self, key: Key, finding: Finding, end_ns: int) -> Event | None:
        """Written again if it has become worse, or if it was written long ago."""
        held = self._open[key]
        worse = RANK[finding.severity] > RANK[held.finding.severity]
        held.finding = replace(finding, severity=finding.severity if worse else held.finding.severity)
        held.last_ns = end_ns
        _add(held, finding)
        if not worse and abs(end_ns - held.written_ns) < in_ns(self._limits, "event_update"):
            return None
        held.written_ns = end_ns
        return _event(held, "update")

    def _close(self, found: Collection[Key], start_ns: int, end_ns: int) -> list[Event]:
        """What has been quiet until now, or until this window if it is found again in it.

        Time that has stepped back by as much closes an event as well, or it could stay open for ever.
        """
        quiet = [
            key
            for key, held in self._open.items()
            if abs((start_ns if key in found else end_ns) - held.last_ns) >= in_ns(self._limits, "event_quiet")
        ]
        return [_event(self._open.pop(key), "close") for key in sorted(quiet)]


def _apart(findings: Iterable[Finding]) -> tuple[list[Finding], dict[Key, Finding]]:
    """Facts, and states: of the same one twice in a window, the worse with the counts of both."""
    facts: list[Finding] = []
    states: dict[Key, Finding] = {}
    for finding in findings:
        if finding.once:
            facts.append(finding)
            continue
        key = _key(finding)
        other = states.get(key)
        if other is not None:
            worse = finding if RANK[finding.severity] > RANK[other.severity] else other
            counts = Counter(other.counts)
            counts.update(finding.counts)
            finding = replace(worse, counts=dict(counts))
        states[key] = finding
    return facts, states


def _key(finding: Finding) -> Key:
    """The tenant belongs to it: tenants may use the same names and addresses."""
    return finding.kind, finding.tenant, finding.subject, finding.object


def _worst_first(finding: Finding) -> tuple[int, Key, int, str]:
    return -RANK[finding.severity], _key(finding), finding.time_ns or 0, finding.detail


def _since(finding: Finding, start_ns: int) -> int:
    return start_ns if finding.time_ns is None else finding.time_ns


def _add(held: _Held, finding: Finding) -> None:
    held.windows += 1
    held.evidence.update(finding.counts)


def _event(held: _Held, state: State) -> Event:
    said = held.finding
    return Event(
        said.kind, said.severity, said.tenant, said.subject, said.object, state, said.detail,
        held.first_ns, held.last_ns, held.windows, dict(held.evidence),
    )  # fmt: skip


def _suppressed(findings: list[Finding], start_ns: int, end_ns: int) -> list[Event]:
    """One event that says what was held back."""
    if not findings:
        return []
    kinds = Counter(finding.kind for finding in findings)
    named = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    severity = max((finding.severity for finding in findings), key=RANK.__getitem__)
    detail = f"{len(findings)} findings did not become events in this window: {named}"
    return [
        Event(SUPPRESSED, severity, "", "sensor", "", "fact", detail, start_ns, end_ns, 1, dict(sorted(kinds.items())))
    ]
