"""The screen of ``vmsensor top``, drawn from a board: as wide as it may be, and never wider."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from sensor.summary import Alarm, count, latency, loss, scaled, tenants
from sensor.views.top import Board, Choice, Row, Window

GAP = 2
SHORT = 16
"""Names are cut to this many columns before a whole column is left out."""

HEAD, FOOT = 5, 2
"""Lines above the rows, and those of the keys."""

EVENTS, ROWS_FIRST = 5, 5
"""Events shown at most, and rows that go before the first of them."""

LOSS_YELLOW, LOSS_RED = 0.01, 0.05
SEVERITIES = {"critical": "bold red", "warning": "yellow"}

ALWAYS = {"dropped_kernel": "kernel", "dropped_nic": "NIC"}
WHEN_ANY = {
    "fate_overflow": "table full",
    "flows_evicted": "flows evicted",
    "records_folded": "flows folded",
    "notices_lost": "notices",
    "nic_rx_errors": "damaged",
    "windows_lost": "windows, busy",
    "flow_records_lost": "flow records",
    "output_lost_windows": "windows, output",
    "spool_lost_windows": "windows, disk",
    "rejected_points": "points refused",
    "delivery_failures": "failed deliveries",
    "worker_deaths": "worker deaths",
    "interface_losses": "interface gone",
}
"""What was lost, by the sensor's fields: what is always said, and what only where there was any."""


@dataclass(frozen=True)
class Field:
    """A column. The one with the lowest ``keep`` is left out first where there is no room for all."""

    heading: str
    cell: Callable[[Row], str]
    keep: int
    least: int = 0
    """Columns at least, so that numbers of another size move nothing."""
    sort: str = ""
    is_name: bool = False


FIELDS = (
    Field("from", lambda row: row.src, 9, is_name=True),
    Field("to", lambda row: row.dst, 9, is_name=True),
    Field("tenant", lambda row: tenants(row.src_tenant, row.dst_tenant), 6, is_name=True),
    Field("service", lambda row: row.service or row.protocol, 8, is_name=True),
    Field("scope", lambda row: row.scope, 2, is_name=True),
    Field("throughput", lambda row: scaled(row.throughput_bps, "bit/s"), 9, 11, "throughput"),
    Field("packets/s", lambda row: rate(row.packets_per_s), 3, 9, "packets"),
    Field("RTT p50", lambda row: latency(row.rtt_p50_us), 4, 7),
    Field("RTT p95", lambda row: latency(row.rtt_p95_us), 8, 7, "rtt"),
    Field("loss", lambda row: loss(row.loss_ratio, row.confidence), 8, 7, "loss"),
    Field("answer p95", lambda row: latency(row.response_p95_us), 5, 10, "response"),
    Field("handshake", lambda row: latency(row.handshake_us), 1, 9),
)

KEYS = {"t": "throughput", "p": "packets", "r": "rtt", "l": "loss", "a": "response"}
"""What a key orders by."""

SHOWN = {"throughput": "throughput", "packets": "packets", "rtt": "RTT", "loss": "loss", "response": "answer"}


# ---- the whole


def once(board: Board, choice: Choice, width: int | None, now_ns: int) -> list[Text]:
    """Everything, for a printout; ``width`` None: as wide as it is."""
    if board.window is None:
        return []
    lines = [*heading(board, board.window, now_ns), *table(choice.of(board.window.rows), width, choice.sort)]
    alarms = board.events
    lines += [Text(), *map(event_line, alarms)] if alarms else []
    return [_cut(line, width) for line in lines] if width else lines


@dataclass(frozen=True)
class Page:
    """The rows in their order, the first of them that is seen, and the size of the terminal."""

    rows: Sequence[Row]
    first: int
    width: int
    height: int


def screen(board: Board, window: Window, choice: Choice, page: Page, now_ns: int) -> list[Text]:
    """As many lines as the terminal has; events and keys stand at its foot."""
    seen = page.rows[page.first : page.first + room_for_rows(board, page.height)]
    lines = [*heading(board, window, now_ns), *table(seen, page.width, choice.sort)]
    alarms = board.events[: _room_for_events(board, page.height)]
    below = [Text(), *map(event_line, alarms)] if alarms else []
    below += [Text(), footer(choice, page, len(seen))]
    lines += [Text()] * (page.height - len(lines) - len(below))
    return [_cut(line, page.width) for line in [*lines, *below][: page.height]]


def room_for_rows(board: Board, height: int) -> int:
    """Rows that a terminal of this height shows."""
    alarms = _room_for_events(board, height)
    return max(height - HEAD - FOOT - (alarms + 1 if alarms else 0), 1)


def _room_for_events(board: Board, height: int) -> int:
    return min(EVENTS, max(height - HEAD - FOOT - ROWS_FIRST, 0), len(board.events))


def waiting(directory: Path, width: int, height: int) -> list[Text]:
    """What is said before there is a window."""
    what = "the first window" if directory.is_dir() else "the store to be made"
    text = Text.assemble(("vmsensor top", "bold"), f"  waiting for {what}: ", (plain(str(directory)), "bold"))
    lines = [text, Text(), Text("A sensor writes there with --store, or without it to vmsensor-data.", "dim")]
    lines += [Text()] * (height - len(lines) - 1) + [Text.assemble(("q", "bold"), " quit")]
    return [_cut(line, width) for line in lines[:height]]


# ---- the head


def heading(board: Board, window: Window, now_ns: int) -> list[Text]:
    """Who has measured when, how much, and what was lost; and a line for what is wrong with that, mostly empty."""
    return [_whose(window, now_ns), _totals(window), _losses(window), _warning(board, window, now_ns)]


def _whose(window: Window, now_ns: int) -> Text:
    sensor, interface = (plain(str(window.sensor.get(name, "-"))) for name in ("sensor", "interface"))
    age = f"{since((now_ns - window.end_ns) / 1e9)} ago"
    part = ", a part of it" if window.partial else ""
    times = f"{clock(window.start_ns)} to {clock(window.end_ns)} UTC ({window.seconds:g} s{part})"
    return Text.assemble((sensor, "bold"), f" on {interface}   ", (age, "dim"), f"   {times}")


def _warning(board: Board, window: Window, now_ns: int) -> Text:
    if not board.is_overdue(now_ns):
        return Text()
    age = since((now_ns - window.end_ns) / 1e9)
    return Text(f"No window for {age}: the sensor seems to have stopped.", "bold red")


def _totals(window: Window) -> Text:
    def said(name: str) -> str:
        number = window.count(name)
        return "-" if number is None else f"{number:,}"

    octets, received = window.count("ip_bytes"), window.count("received")
    throughput = scaled(octets * 8 / window.seconds, "bit/s") if octets is not None and window.seconds else "-"
    per_second = f" ({rate(received / window.seconds)}/s)" if received is not None and window.seconds else ""
    parts = [
        ("throughput", throughput),
        ("packets", said("received") + per_second),
        ("flows", said("flows")),
        ("duplicates", f"{said('fate_mirror_duplicate')} ({percent(window.ratio('mirror_duplicate_ratio'))})"),
    ]
    return Text("   ").join(Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in parts)


def _losses(window: Window) -> Text:
    """What is missing in the numbers above, red where there is any; a dash where it cannot be known."""
    parts = [_lost(name, window.count(field)) for field, name in ALWAYS.items()]
    unseen = window.ratio("unseen_ratio")
    parts.append(Text.assemble(("mirror (TCP) ", "dim"), (percent(unseen), "bold red" if unseen else "bold")))
    parts += [_lost(name, window.count(field)) for field, name in WHEN_ANY.items() if window.count(field)]
    behind = window.count("spool_windows")
    if behind and behind > 1:
        parts.append(Text(f"{behind:,} windows not in InfluxDB yet", "yellow"))
    return Text.assemble(("lost   ", "dim"), Text("   ").join(parts))


def _lost(name: str, number: int | None) -> Text:
    value = "-" if number is None else f"{number:,}"
    return Text.assemble((f"{name} ", "dim"), (value, "bold red" if number else "bold"))


# ---- the table


def table(rows: Sequence[Row], width: int | None, sort: str) -> list[Text]:
    """A head and the rows."""
    cells = [[plain(field.cell(row)) for row in rows] for field in FIELDS]
    natural = [
        max([cell_len(field.heading), field.least, *map(cell_len, column)])
        for field, column in zip(FIELDS, cells, strict=True)
    ]
    widths = fitted(natural, width)
    head = Text((" " * GAP).join(_fit(FIELDS[i].heading, width, FIELDS[i]) for i, width in widths.items()), "bold")
    for i in widths:
        if FIELDS[i].sort == sort:
            head.highlight_words([FIELDS[i].heading], "reverse")
    if not rows:
        return [head, Text("no pair to show in this window", "dim")]
    return [head, *(_line(row, [column[n] for column in cells], widths) for n, row in enumerate(rows))]


def fitted(natural: Sequence[int], width: int | None) -> dict[int, int]:
    """Which columns are shown, and how wide: names are cut a little, then columns left out, then names cut more."""
    widths = dict(enumerate(natural))
    if width is None or _sum(widths) <= width:
        return widths
    for i, field in enumerate(FIELDS):
        widths[i] = min(widths[i], SHORT) if field.is_name else widths[i]
    while _sum(widths) > width and len(widths) > 1:
        least = min(widths, key=lambda i: FIELDS[i].keep)
        if FIELDS[least].keep == max(field.keep for field in FIELDS):
            break
        del widths[least]
    return _widened(widths, natural, width)


def _widened(widths: dict[int, int], natural: Sequence[int], width: int) -> dict[int, int]:
    """The names' columns by turns one wider, as long as there is room, or narrower, as long as there is none."""
    names = [i for i in widths if FIELDS[i].is_name]
    while _sum(widths) > width and max(widths[i] for i in names) > 4:
        widths[max(names, key=widths.__getitem__)] -= 1
    while _sum(widths) < width and (cut := [i for i in names if widths[i] < natural[i]]):
        widths[min(cut, key=widths.__getitem__)] += 1
    return widths


def _sum(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _line(row: Row, cells: Sequence[str], widths: dict[int, int]) -> Text:
    line = Text()
    for i, width in widths.items():
        if line:
            line.append(" " * GAP)
        line.append(_fit(cells[i], width, FIELDS[i]), _style(row, FIELDS[i], cells[i]))
    return line


def _style(row: Row, field: Field, cell: str) -> str:
    if cell == "-":
        return "dim"
    if field.sort == "loss" and row.loss_ratio is not None and not cell.endswith("?"):
        return "bold red" if row.loss_ratio >= LOSS_RED else "yellow" if row.loss_ratio >= LOSS_YELLOW else ""
    if field.heading == "scope":
        return "magenta" if cell == "inter-tenant" else "dim"
    return ""


def _fit(text: str, width: int, field: Field) -> str:
    """Exactly so many columns of the terminal."""
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    return text + " " * (width - size) if field.is_name else " " * (width - size) + text


# ---- below


def event_line(alarm: Alarm) -> Text:
    """One event."""
    whom = " > ".join(filter(None, (alarm.subject, alarm.object)))
    head = f"{clock(alarm.first_ns)}  {alarm.severity:<8}  "
    style = SEVERITIES.get(alarm.severity, "dim")
    return Text.assemble((head, style), (f"{alarm.kind}  ", "bold"), plain(f"{whom}  {alarm.detail}"))


def footer(choice: Choice, page: Page, seen: int) -> Text:
    """Which rows are seen, and the keys."""
    shown = count(len(page.rows), "pair")
    if seen < len(page.rows):
        shown = f"{page.first + 1:,}-{page.first + seen:,} of {len(page.rows):,}"
    only = [name for name in (choice.tenant and f"tenant {choice.tenant}", choice.scope) if name]
    line = Text(plain(", ".join([shown, *only])), "dim").append("   ")
    line = Text.assemble(line, ("q", "bold"), " quit")
    for key, sort in KEYS.items():
        line.append("  ").append(key, "bold").append(" ").append(SHOWN[sort], "reverse" if sort == choice.sort else "")
    return line.append("  arrows scroll", "dim") if seen < len(page.rows) else line


# ---- numbers and names


def clock(time_ns: int) -> str:
    """The time of day (UTC)."""
    return time.strftime("%H:%M:%S", time.gmtime(time_ns / 1e9))


def since(seconds: float) -> str:
    """How long, in the largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def rate(value: float) -> str:
    """Per second: with a decimal where it is small."""
    return f"{value:,.1f}" if value < 99.95 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A part of all; a dash for none."""
    return "-" if value is None else f"{value:.1%}"


def plain(text: str) -> str:
    """Names come from the wire: nothing in them may move the cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
