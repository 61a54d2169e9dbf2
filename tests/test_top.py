"""``vmsensor top``: rows and their order, what fits a terminal, how a store is followed, keys, and how it ends."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from rich.cells import cell_len

from sensor.commands.store import TOP_SORTS, top_command
from sensor.errors import INTERRUPTED
from sensor.identity.parties import SCOPES
from sensor.sinks.blocks import START, Block, Position, pack, read_blocks, read_segment, segment_path
from sensor.sinks.follow import Follower
from sensor.sinks.spool import SpoolLimits, SpoolSink
from sensor.views import topscreen
from sensor.views.top import SORTS, Board, Choice, Row, Window, window_of
from sensor.window import Report
from tests.command import DEMO, INPUT, command, complaint, vmsensor
from tests.reports import make_report
from tests.terminal import HOME_SCREEN, OTHER_SCREEN, Terminal

SECOND = 1_000_000_000
ALL = ("from", "to", "tenant", "service", "scope", "throughput", "packets/s", "RTT p50", "RTT p95", "loss",
       "answer p95", "handshake")  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The windows of the demonstration, as `read` keeps them."""
    path = tmp_path_factory.mktemp("store")
    assert vmsensor("read", DEMO, "--to", f"store:{path}").returncode == 0
    return path


@pytest.fixture(scope="module")
def window(store: Path) -> Window:
    """The newest of them."""
    return window_of(list(read_blocks(store))[-1])


# ---- rows


@pytest.mark.parametrize("sort", SORTS)
def test_rows_are_in_order(window: Window, sort: str) -> None:
    """Each order has the largest first and what was not measured last, and loses no row."""
    rows = Choice(sort).of(window.rows)
    values = [SORTS[sort](row) for row in rows]
    measured = [value for value in values if value is not None]
    assert values == [*sorted(measured, reverse=True), *[None] * (len(values) - len(measured))]
    assert sorted(row.name for row in rows) == sorted(row.name for row in window.rows)
    assert len(measured) > 2


def test_rows_are_the_points_of_the_newest_window(store: Path, window: Window) -> None:
    """A row has what the point has; a rate is per second of the window."""
    (row,) = (row for row in window.rows if (row.src, row.service) == ("10.0.0.11", "https"))
    assert (row.src_tenant, row.dst, row.scope, row.protocol) == ("vlan10", "external", "north-south", "tcp")
    assert (row.throughput_bps, row.packets_per_s, row.loss_ratio) == (38452.0, 3.4, 0.0)
    assert row.rtt_p95_us == pytest.approx(40894.464)
    assert sum(row.throughput_bps for row in window.rows) * window.seconds / 8 == window.count("ip_bytes")


def test_tenant_and_scope_choose(window: Window) -> None:
    """A tenant may be either side; a scope is one of four."""
    assert {row.src for row in Choice(tenant="vlan10", scope="north-south").of(window.rows)} == {
        "10.0.0.11",
        "external",
    }
    assert Choice(tenant="nobody").of(window.rows) == []


def test_the_choices_are_those_of_the_code() -> None:
    """What the command line offers is what there is."""
    scopes = next(option.type for option in top_command.params if option.name == "scope")
    assert set(TOP_SORTS) == set(SORTS) == set(topscreen.KEYS.values())
    assert set(getattr(scopes, "choices", ())) == set(SCOPES)


# ---- what is printed


def test_once(store: Path) -> None:
    """Without a terminal one table is printed with every column, without colours; what is not measured is a dash."""
    said = vmsensor("top", store)
    assert (said.returncode, said.stderr, vmsensor("top", store, "--once").stdout) == (0, "", said.stdout)
    head, totals, lost, warning, columns, *rows = said.stdout.splitlines()
    assert "/demo.pcap   " in head
    assert head.endswith("ago   00:00:50 to 00:01:00 UTC (10 s, a part of it)")
    assert totals == "throughput 72.7 kbit/s   packets 123 (12.3/s)   flows 6   duplicates 0 (0.0%)"
    assert lost == "lost   kernel -   NIC -   mirror (TCP) 0.0%"
    assert warning.endswith("the sensor seems to have stopped.")
    assert columns.split() == " ".join(ALL).split()
    assert rows[-1].split() == ["10.0.0.12", "10.0.0.2", "vlan10", "dns", "east-west", "48", "bit/s", "0.1",
                                *"---", "184", "us", "-"]  # fmt: skip


def test_a_store_is_only_read(store: Path) -> None:
    """Looking changes nothing in the directory, not even its time."""
    before = {path: path.stat().st_mtime_ns for path in (store, *store.iterdir())}
    assert vmsensor("top", store).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (store, *store.iterdir())} == before


def test_once_without_a_store(tmp_path: Path) -> None:
    """A directory that is missing or none is said; one without a window yet is no failure."""
    assert "no such directory" in complaint(vmsensor("top", tmp_path / "none"), INPUT)
    (tmp_path / "file").write_text("")
    assert "no such directory" in complaint(vmsensor("top", tmp_path / "file"), INPUT)
    SpoolSink(tmp_path / "new").open()
    assert vmsensor("top", tmp_path / "new").stdout == f"{tmp_path}/new: no window yet\n"


def row(name: str = "web-1", loss: float | None = None, confidence: float = 1) -> Row:
    """A row without measurements."""
    return Row(
        name, "acme", "db-1", "acme", "east-west", "http", "tcp", 1e6, 10, None, None, None, None, loss, confidence
    )


def test_doubt_is_marked() -> None:
    """A loss that rests on too little has the summary's question mark, and no alarming colour."""
    _, sure, unsure = topscreen.table([row(loss=0.1), row(loss=0.1, confidence=0.5)], None, "loss")
    assert ("10.00%  " in sure.plain, "10.00%?  " in unsure.plain) == (True, True)
    assert "bold red" in {span.style for span in sure.spans}
    assert "bold red" not in {span.style for span in unsure.spans}


def test_every_width_fits(window: Window) -> None:
    """No line is wider than the terminal; who, how much, how late and with what loss is there at 60 columns."""
    board = Board()
    board.window = window
    rows = [*window.rows, row("a-very-long-name-of-a-machine-with-its-domain.example.net"), row("\x1b[2J 東京")]
    for width in range(20, 260):
        lines = topscreen.screen(board, window, Choice(), topscreen.Page(rows, 0, width, 30), 0)
        assert len(lines) == 30
        assert max(cell_len(line.plain) for line in lines) <= width
        assert "\x1b" not in "".join(line.plain for line in lines)
        shown = [name for name in ALL if name in lines[4].plain]
        assert width < 60 or {"from", "to", "throughput", "RTT p95", "loss"} <= set(shown)
        assert width < 200 or shown == list(ALL)


@pytest.mark.parametrize("height", range(5, 40))
def test_every_height_fits(window: Window, height: int) -> None:
    """The screen is never higher than the terminal, and shows as many rows as there is room for."""
    board = Board()
    board.take(iter([event("critical", "open", kind=str(number)) for number in range(9)]))
    lines = topscreen.screen(board, window, Choice(), topscreen.Page(window.rows, 0, 100, height), 0)
    assert len(lines) == height
    assert sum("bit/s" in line.plain for line in lines[5:]) == min(
        topscreen.room_for_rows(board, height), len(window.rows), max(height - 5, 0)
    )


# ---- events


def event(severity: str, state: str, second: int = 0, kind: str = "port_scan") -> Block:
    """A window with one event."""
    line = f'event,kind={kind},severity={severity},tenant=acme subject="web-1",object="db-1",state="{state}",detail="x"'
    start = second * SECOND
    return Block(START, START, start, start + 10 * SECOND, data=f"{line},first_ns={start}i {start}\n".encode())


def test_events_that_are_open_stay(window: Window) -> None:
    """Open ones stay until they close, the gravest first; facts go after a while; so does what was left open."""
    board = Board()
    board.take(
        iter([event("warning", "open"), event("critical", "fact", 10, "flood"), event("info", "fact", 20, "seen")])
    )
    assert [alarm.kind for alarm in board.events] == ["flood", "port_scan", "seen"]
    board.take(iter([event("info", "fact", 400, "later")]))
    assert [alarm.kind for alarm in board.events] == ["port_scan", "later"]
    board.take(iter([event("critical", "update", 410), event("warning", "open", 420, "other")]))
    assert [(alarm.kind, alarm.severity) for alarm in board.events][:2] == [
        ("port_scan", "critical"),
        ("other", "warning"),
    ]
    board.take(iter([event("critical", "close", 430)]))
    assert [alarm.kind for alarm in board.events] == ["other", "later"]
    board.take(iter([event("info", "fact", 9000, "end")]))
    assert [alarm.kind for alarm in board.events] == ["end"]


def test_losses_are_named_and_red() -> None:
    """What the sensor lost is red and named; what is nothing is not; what cannot be known is a dash."""
    data = b"sensor,interface=eth1,sensor=tap received=9i,dropped_kernel=3i,flows_evicted=0i,spool_lost_windows=2i 0\n"
    board = Board()
    board.take(iter([Block(START, START, 0, 10 * SECOND, data=data)]))
    assert board.window is not None
    _, _, lost, warning = topscreen.heading(board, board.window, 39 * SECOND)
    assert lost.plain == "lost   kernel 3   NIC -   mirror (TCP) -   windows, disk 2"
    red = [lost.plain[span.start : span.end] for span in lost.spans if span.style == "bold red"]
    assert red == ["3", "2"]
    assert warning.plain == ""
    assert topscreen.heading(board, board.window, 41 * SECOND)[3].plain.startswith("No window for 31 s")


# ---- following a store


def starts(follower: Follower) -> list[int]:
    """The windows that are new, by their seconds."""
    return [block.start_ns // SECOND for block in follower.fresh()]


def test_a_store_is_followed_from_before_it_is_there(tmp_path: Path) -> None:
    """Missing, empty, then each window once as it is written; also over a change of segments."""
    follower, sink = Follower(tmp_path / "store"), SpoolSink(tmp_path / "store", SpoolLimits(segment_bytes=1))
    assert starts(follower) == []
    sink.open()
    assert starts(follower) == []
    for number in range(3):
        report = make_report(window=number, rows=2)
        sink.write(report)
        assert starts(follower) == [report.start_ns // SECOND]
        assert starts(follower) == []
    segment_path(tmp_path / "store", 1).unlink()
    assert starts(follower) == []
    sink.close()
    shutil.rmtree(tmp_path / "store")
    assert starts(follower) == []
    with_one = SpoolSink(tmp_path / "store")
    with_one.open()
    with_one.write(make_report(window=9))
    with_one.close()
    assert len(starts(follower)) == 1


def block_of(report: Report) -> bytes:
    """As it stands in a segment."""
    return b"".join(pack(report))


def test_a_half_written_window_is_waited_for(tmp_path: Path) -> None:
    """Whatever part of a block is on the disk, it is not shown before it is whole, and then once."""
    whole, next_one = block_of(make_report(window=1, rows=3)), block_of(make_report(window=2, rows=3))
    for cut in (1, 30, len(next_one) // 2, len(next_one) - 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        path = segment_path(directory, 1)
        path.write_bytes(whole + next_one[:cut])
        follower = Follower(directory)
        assert len(starts(follower)) == 1
        assert starts(follower) == []
        path.write_bytes(whole + next_one)
        assert len(starts(follower)) == 1


def test_damage_is_passed_over(tmp_path: Path) -> None:
    """What a crash cut off ends nothing: the window behind it comes."""
    block = block_of(make_report(window=1, rows=3))
    segment_path(tmp_path, 1).write_bytes(block[:-9])
    follower = Follower(tmp_path)
    assert starts(follower) == []
    segment_path(tmp_path, 2).write_bytes(block_of(make_report(window=2)))
    assert len(starts(follower)) == 1


def test_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first the last two segments, later what has been added; nothing while nothing has changed."""
    sink = SpoolSink(tmp_path, SpoolLimits(segment_bytes=1))
    sink.open()
    for number in range(6):
        sink.write(make_report(window=number))
    read: list[Position] = []

    def noted(directory: Path, start: Position) -> object:
        read.append(start)
        return read_segment(directory, start)

    monkeypatch.setattr("sensor.sinks.follow.read_segment", noted)
    follower = Follower(tmp_path)
    assert len(starts(follower)) == 2
    assert [position.segment for position in read] == [5, 6]
    starts(follower)
    end, read[:] = sink.end, []
    assert starts(follower) == []
    assert read == []
    sink.write(make_report(window=7))
    assert len(starts(follower)) == 1
    assert read[0] == end
    sink.close()


# ---- on a terminal


def names_in(lines: list[str]) -> list[tuple[str, ...]]:
    """The first two columns of the rows on a screen."""
    rows = [line.split() for line in lines if "bit/s" in line and not line.startswith("throughput")]
    return [tuple(words[:2]) for words in rows]


def in_order(window: Window, sort: str) -> list[tuple[str, ...]]:
    """What they should be."""
    return [(row.src, row.dst) for row in Choice(sort).of(window.rows)]


def test_keys(store: Path, window: Window) -> None:
    """Keys change the order, arrows scroll, another size is drawn at once, and q ends with status 0."""
    with Terminal(command("top", store, "--sort", "loss"), 120, 30) as terminal:
        terminal.await_screen(lambda lines: names_in(lines) == in_order(window, "loss"))
        for key, sort in topscreen.KEYS.items():
            terminal.press(key)
            terminal.await_screen(lambda lines, sort=sort: names_in(lines) == in_order(window, sort))
        terminal.press("t")
        terminal.resize(70, 12)
        order = in_order(window, "throughput")
        screen = terminal.await_screen(lambda lines: len(lines) == 12 and names_in(lines) == order[:5])
        assert max(map(len, screen)) <= 70
        terminal.press("\x1b[B\x1b[B")
        assert terminal.await_screen(lambda lines: names_in(lines) == order[2:7])[-1].startswith("3-7 of 12   q quit")
        terminal.press("\x1b[F")
        terminal.await_screen(lambda lines: names_in(lines) == order[-5:])
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_as_before()
        assert OTHER_SCREEN in terminal.said


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM"])
def test_the_terminal_is_given_back(store: Path, how: str) -> None:
    """Ctrl-C and SIGTERM leave the terminal as it was, with the status of an interruption."""
    with Terminal(command("top", store)) as terminal:
        terminal.await_screen(names_in)
        assert not terminal.is_as_before()
        if how == "ctrl-c":
            terminal.press("\x03")
        assert terminal.end(signal.SIGTERM if how == "SIGTERM" else None) == INTERRUPTED
        assert terminal.is_as_before()
        assert terminal.said.rpartition(HOME_SCREEN)[2].strip().endswith("vmsensor: interrupted")


def test_it_waits_for_a_store_and_for_windows(tmp_path: Path) -> None:
    """Started before the sensor it says what it waits for; each window appears; a failure gives the terminal back."""
    with Terminal(command("top", tmp_path / "store"), 100, 20) as terminal:
        terminal.await_screen(lambda lines: "waiting for the store to be made" in lines[0])
        assert vmsensor("read", DEMO, "--to", f"store:{tmp_path}/store").returncode == 0
        terminal.await_screen(lambda lines: any("00:00:50 to 00:01:00" in line for line in lines))
        (segment,) = (tmp_path / "store").glob("*.lp")
        with segment.open("ab") as file:
            file.write(block_of(make_report(window=3)).replace(b"version=1", b"version=2"))
        assert terminal.end() == INPUT
        assert terminal.is_as_before()
        assert "newer than this vmsensor reads" in terminal.said.rpartition(HOME_SCREEN)[2]
