"""A value that changes over time, with since when and until when it held."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

MOST_SPANS = 8
"""Spans kept of one history; the oldest are forgotten."""

Value = TypeVar("Value", bound=Hashable)


@dataclass
class Span(Generic[Value]):
    """``value`` was first seen at ``from_ns`` and last at ``to_ns``."""

    value: Value
    from_ns: int
    to_ns: int


class History(Generic[Value]):
    """The spans of one thing, in the order of time; the last one is that of now."""

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: list[Span[Value]] = []

    @property
    def now(self) -> Span[Value] | None:
        """The latest span."""
        return self.spans[-1] if self.spans else None

    def at(self, time_ns: int) -> Value | None:
        """The value at a time: of the latest span that had begun; None before the first."""
        for span in reversed(self.spans):
            if span.from_ns <= time_ns:
                return span.value
        return None

    def see(self, value: Value, time_ns: int) -> Span[Value] | None:
        """Note that the value holds at this time; the span that it ends, if it is another one."""
        last = self.now
        if last is not None and last.value == value:
            last.to_ns = max(last.to_ns, time_ns)
            return None
        if last is not None and time_ns < last.to_ns:
            return None  # news from before what is known already: a late packet changes nothing
        self.spans.append(Span(value, time_ns, time_ns))
        del self.spans[:-MOST_SPANS]
        return last

    def to_json(self) -> list[list[Any]]:
        """As lists that JSON can hold, if the values are strings."""
        return [[span.value, span.from_ns, span.to_ns] for span in self.spans]

    @classmethod
    def of(cls, spans: Iterator[Span[Value]]) -> History[Value]:
        """A history with these spans."""
        history = cls()
        history.spans = list(spans)[-MOST_SPANS:]
        return history
