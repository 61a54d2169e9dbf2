"""What a person sees at the end: top VM pairs with throughput, RTT and loss, and where the results are.

It is fed with points, so that ``read`` (from reports) and ``show`` (from a store) print the same.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sensor.grouping import group
from sensor.keys import Keys, Places, key_of, mix
from sensor.output import standard_output, write
from sensor.window import Labels, Report, Table, present

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDE = 118
"""Terminal columns that the whole table takes, addresses being IPv4."""

MOST_PAIRS = 20_000
"""Pairs kept apart; the traffic of further ones is added up in one."""

MOST_ALARMS, MOST_HELD = 10, 10_000
"""Events listed, and kept in order to choose from."""

DOUBTFUL = 0.95
"""A loss figure that rests on less than this part of the segments is marked."""

NumpyArray = npt.NDArray[Any]
_TAGS = ("src_vm", "src_tenant", "dst_vm", "dst_tenant", "scope", "service")
_OTHER = ("other", "other", "other", "other", "unknown", "other")
_SUMS = (
    "bytes",
    "packets",
    "data_packets",
    "retransmissions",
    "spurious",
    "upstream_losses",
    "tcp_points",
    "untold_segments",
)


@dataclass(frozen=True)
class Pair:
    """One direction of a VM pair and service, over all windows. None where nothing was measured."""

    src: str
    src_tenant: str
    dst: str
    dst_tenant: str
    scope: str
    service: str
    octets: int
    packets: int
    rtt_min_us: float | None
    worst_p95_us: float | None
    loss_ratio: float | None
    confidence: float


class Alarm(NamedTuple):
    """An event that somebody may have to look at."""

    severity: str
    kind: str
    subject: str
    object: str
    first_ns: int
    detail: str


class Summary:
    """Adds windows up, with bounded memory."""

    def __init__(self) -> None:
        self.events = 0
        self._alarms: dict[tuple[str, ...], Alarm] = {}
        self.windows = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.received = 0
        self.folded_octets = 0
        """In ``other`` for want of a series."""
        self._places = Places()
        self._pairs: list[tuple[str, ...]] = []
        self._sums = np.zeros((1024, len(_SUMS)), np.int64)
        self._least_rtt = np.full(1024, np.inf)
        self._worst_p95 = np.full(1024, -np.inf)

    def __len__(self) -> int:
        """Pairs that are kept apart."""
        return len(self._pairs)

    def add_report(self, report: Report) -> None:
        """Add one window."""
        self.windows += 1
        self.first_ns = report.start_ns if self.first_ns is None else min(self.first_ns, report.start_ns)
        self.last_ns = report.end_ns if self.last_ns is None else max(self.last_ns, report.end_ns)
        for table in report.tables:
            if table.measurement == "sensor":
                self.received += int(_filled(table, "received", 0).sum())
                self.folded_octets += int(_filled(table, "folded_bytes", 0).sum())
            elif table.measurement == "vm_traffic":
                self._add_pairs(table)
            elif table.measurement == "event":
                self._add_events(table)

    def alarms(self) -> list[Alarm]:
        """The gravest events, the latest first of equals."""
        ranked = sorted(self._alarms.values(), key=lambda alarm: (alarm.severity != "critical", -alarm.first_ns))
        return ranked[:MOST_ALARMS]

    def _add_events(self, table: Table) -> None:
        def text(name: str) -> list[str]:
            return (
                [str(value or "") for value in table.fields[name].values] if name in table.fields else [""] * table.rows
            )

        columns = (table.tags["severity"], table.tags["kind"], text("subject"), text("object"))
        for severity, kind, subject, thing, first, detail, state in zip(
            *columns, text("first_ns"), text("detail"), text("state"), strict=True
        ):
            self.events += state in ("open", "fact")
            if severity != "info":
                self._alarms[kind, subject, thing] = Alarm(severity, kind, subject, thing, int(first or 0), detail)
        while len(self._alarms) > MOST_HELD:
            del self._alarms[next(iter(self._alarms))]

    @property
    def seconds(self) -> float:
        """Length of the time that the windows cover."""
        return 0.0 if self.first_ns is None or self.last_ns is None else (self.last_ns - self.first_ns) / 1e9

    def top(self, most: int) -> list[Pair]:
        """The pairs with most octets, the heaviest first."""
        keys = self._pairs
        heaviest = np.lexsort((np.arange(len(keys)), -self._sums[: len(keys), _SUMS.index("bytes")]))[:most]
        return [self._pair(keys[row], row) for row in heaviest.tolist()]

    def _add_pairs(self, table: Table) -> None:
        rows = self._rows_of([table.tags.get(tag) or Labels.constant("", table.rows) for tag in _TAGS])
        same = group(rows)
        columns = [same.sum(_filled(table, name, 0).astype(np.int64)) for name in _SUMS]
        self._sums[rows[same.first]] += np.stack(columns, axis=1)
        np.minimum.at(self._least_rtt, rows, _filled(table, "rtt_min_us", np.inf))
        np.maximum.at(self._worst_p95, rows, _filled(table, "rtt_p95_us", -np.inf))

    def _rows_of(self, tags: list[Labels]) -> NumpyArray:
        """The row of each point's pair; all pairs beyond the most that are kept apart have the same."""
        keys = _keys_of(tags)
        rows = self._places.of(keys)
        new = np.flatnonzero(rows < 0)
        if not len(new):
            return rows
        first = new[np.sort(group(keys[new]).first)]  # in the order in which they came
        room = max(MOST_PAIRS - len(self._pairs), 0)
        self._enter([tag.take(first[:room]) for tag in tags])
        rest = [Labels.of([name]) for name in _OTHER]
        if len(first) > room and self._places.of(_keys_of(rest))[0] < 0:
            self._enter(rest)
        rows[new] = self._places.of(keys[new])
        return np.where(rows < 0, self._places.of(_keys_of(rest)), rows)

    def _enter(self, tags: list[Labels]) -> None:
        """Rows for pairs that have none."""
        before = len(self._pairs)
        self._pairs += zip(*tags, strict=True)
        self._places.add(_keys_of(tags), np.arange(before, len(self._pairs)))
        while len(self._pairs) > len(self._sums):
            more = len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
            self._least_rtt = np.concatenate([self._least_rtt, np.full(more, np.inf)])
            self._worst_p95 = np.concatenate([self._worst_p95, np.full(more, -np.inf)])

    def _pair(self, key: tuple[str, ...], row: int) -> Pair:
        sums = dict(zip(_SUMS, self._sums[row].tolist(), strict=True))
        sent = sums["data_packets"] + sums["upstream_losses"]
        lost = max(sums["retransmissions"] - sums["spurious"], 0) + sums["upstream_losses"]
        least, worst = float(self._least_rtt[row]), float(self._worst_p95[row])
        src, src_tenant, dst, dst_tenant, scope, service = key
        return Pair(
            src,
            src_tenant,
            dst,
            dst_tenant,
            scope,
            service,
            octets=sums["bytes"],
            packets=sums["packets"],
            rtt_min_us=least if np.isfinite(least) else None,
            worst_p95_us=worst if np.isfinite(worst) else None,
            loss_ratio=lost / sent if sent and sums["tcp_points"] else None,
            confidence=max(1 - sums["untold_segments"] / sums["data_packets"], 0) if sums["data_packets"] else 1,
        )


def _keys_of(tags: list[Labels]) -> Keys:
    """A key of each pair."""
    lists = {id(tag.names): tag.names for tag in tags}  # some tags have theirs in common
    keys = {number: np.array([key_of(name) for name in names], np.uint64) for number, names in lists.items()}
    words = [keys[id(tag.names)][tag.codes] for tag in tags]
    return mix(mix(*words[:3]), *words[3:])


def _filled(table: Table, name: str, absent: float) -> NumpyArray:
    """A column with its nulls replaced."""
    if name == "tcp_points":
        return present(table.fields["retransmissions"]) if "retransmissions" in table.fields else np.zeros(table.rows)
    if name not in table.fields:
        return np.full(table.rows, absent)
    column = table.fields[name]
    return np.where(present(column), column.values, absent)


@dataclass(frozen=True)
class Heading:
    """A column of the table. One that is not ``essential`` is left out on a narrow terminal."""

    name: str
    cell: Callable[[Pair, float], str]
    numeric: bool = True
    essential: bool = True


HEADINGS = (
    Heading("from", lambda pair, _: pair.src, numeric=False),
    Heading("to", lambda pair, _: pair.dst, numeric=False),
    Heading("tenant", lambda pair, _: tenants(pair.src_tenant, pair.dst_tenant), numeric=False),
    Heading("scope", lambda pair, _: pair.scope, numeric=False, essential=False),
    Heading("service", lambda pair, _: pair.service, numeric=False),
    Heading("throughput", lambda pair, seconds: scaled(pair.octets * 8 / seconds, "bit/s") if seconds else "-"),
    Heading("octets", lambda pair, _: scaled(pair.octets, "B"), essential=False),
    Heading("packets", lambda pair, _: f"{pair.packets:,}", essential=False),
    Heading("RTT min", lambda pair, _: latency(pair.rtt_min_us)),
    Heading("RTT p95", lambda pair, _: latency(pair.worst_p95_us)),
    Heading("loss", lambda pair, _: loss(pair.loss_ratio, pair.confidence)),
)


def console_for_people() -> Console:
    """Draws for standard output, in memory; where that is no terminal, as wide as the whole table."""
    from rich.console import Console  # here, because most commands print no table

    terminal = standard_output().isatty()
    width = shutil.get_terminal_size().columns if terminal else WIDE
    # No emoji: the address fd00:100::1 is none.
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, emoji=False)


def print_summary(summary: Summary, where: Iterable[str] = (), most: int = 15) -> None:
    """Print the top pairs as a table, and a line on each place that keeps the results."""
    write(summary_text(summary, console_for_people(), most) + "".join(f"{line}\n" for line in where))


def summary_text(summary: Summary, console: Console, most: int = 15) -> str:
    """The top pairs as a table that fits the console."""
    with console.capture() as text:
        if not len(summary):
            windows = count(summary.windows, "window")
            console.print(f"No VM traffic in {windows}; {summary.received:,} packets received.")
        else:
            console.print(_table(summary, most, console.width >= WIDE))
            console.print(_beneath(summary, most))
        if summary.alarms():
            console.print(_events(summary))
            hidden = summary.events - len(summary.alarms())
            console.print(f"[dim]{count(hidden, 'more event')} in the store. Times are UTC.[/dim]")
    return text.get()


def _table(summary: Summary, most: int, wide: bool) -> RichTable:
    from rich.markup import escape
    from rich.table import Table as RichTable

    title = f"Top VM pairs over {summary.seconds:,.0f} s, {count(summary.windows, 'window')}"
    table = RichTable(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    headings = [heading for heading in HEADINGS if wide or heading.essential]
    for heading in headings:
        table.add_column(heading.name, justify="right" if heading.numeric else "left", no_wrap=True)
    for pair in summary.top(most):
        table.add_row(*(escape(heading.cell(pair, summary.seconds)) for heading in headings))
    return table


def _events(summary: Summary) -> RichTable:
    """The gravest events, the latest first."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(title="Events", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in ("time", "severity", "event", "subject", "object", "evidence"):
        table.add_column(name, no_wrap=name != "evidence")
    for alarm in summary.alarms():
        when = time.strftime("%H:%M:%S", time.gmtime(alarm.first_ns / 1e9))
        cells = (when, alarm.severity, alarm.kind, alarm.subject, alarm.object, alarm.detail)
        table.add_row(*(escape(cell) for cell in cells), style="bold" if alarm.severity == "critical" else "")
    return table


def tenants(src: str, dst: str) -> str:
    """The tenants of a pair: one name where both are the same or one is outside."""
    known = [name for name in (src, dst) if name and name != "external"]
    return " > ".join(dict.fromkeys(known)) or "-"


def _beneath(summary: Summary, most: int) -> str:
    hidden = len(summary) - most
    more = "1 more pair is not shown. " if hidden == 1 else f"{hidden:,} more pairs are not shown. "
    if hidden < 1:
        more = ""
    doubtful = any(pair.loss_ratio is not None and pair.confidence < DOUBTFUL for pair in summary.top(most))
    doubt = f" ? rests on less than {DOUBTFUL:.0%} of the segments: see confidence." if doubtful else ""
    folded = ""
    if summary.folded_octets:
        folded = f" {scaled(summary.folded_octets, 'B')} are in other: light or new pairs beyond --series-budget."
    return (
        f"[dim]{more}Each line is one direction of a pair. RTT: from the tap to the second VM and back; p95: in the "
        "worst window. Loss: segments resent or lost before the tap / data segments. - is what was not measured."
        f"{doubt}{folded}[/dim]"
    )


def loss(ratio: float | None, confidence: float) -> str:
    """A loss ratio for people, with a question mark where it rests on too little; a dash for none."""
    if ratio is None:
        return "-"
    return f"{ratio:.2%}" + ("?" if confidence < DOUBTFUL else "")


def latency(us: float | None) -> str:
    """A time for people; a dash for none."""
    if us is None:
        return "-"
    return f"{us:,.0f} us" if us < 1000 else f"{us / 1000:,.1f} ms"


def scaled(value: float, unit: str) -> str:
    """Three digits and an SI prefix: ``12.3 Mbit/s``."""
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}" if abs(value) < 999.5 else f"{value:,.0f} T{unit}"


def count(number: int, thing: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
