"""The embedded store: what was written is there again, whatever happened to the process or the disk."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sensor.errors import InputError, OutputError
from sensor.sinks.blocks import Block, Position, read_blocks
from sensor.sinks.delivered import Delivered
from sensor.sinks.lineprotocol import decode, encode
from sensor.sinks.spool import SpoolLimits, SpoolSink
from tests.needs import ROOT
from tests.reports import make_report


def fill(directory: Path, windows: range, segment_bytes: int = 1 << 20) -> None:
    """Write the windows in one run."""
    sink = SpoolSink(directory, SpoolLimits(segment_bytes=segment_bytes))
    sink.open()
    try:
        for window in windows:
            sink.write(make_report(window))
    finally:
        sink.close()


def windows_of(blocks: list[Block]) -> list[int]:
    """The numbers of the undamaged windows."""
    return [(block.start_ns - make_report(0).start_ns) // 10**10 for block in blocks if block.damage is None]


def stored(directory: Path) -> list[int]:
    """The numbers of the windows in the store."""
    return windows_of(list(read_blocks(directory)))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel refuses to let files grow past ``size``, as it does when a disk or a quota is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """A block holds its window's bounds, whether it is partial, and exactly the encoded points."""
    sink = SpoolSink(tmp_path / "new" / "store")
    sink.open()
    reports = [make_report(0, rows=5), make_report(1, rows=0), make_report(2, partial=True)]
    for report in reports:
        sink.write(report)
    sink.close()
    blocks = list(read_blocks(tmp_path / "new" / "store"))
    assert [(b.start_ns, b.end_ns, b.partial, b.lines, b.data, b.damage) for b in blocks] == [
        (r.start_ns, r.end_ns, r.partial, r.tables[0].rows, encode(r), None) for r in reports
    ]
    assert [block.next for block in blocks[:-1]] == [block.position for block in blocks[1:]]
    assert blocks[-1].next == sink.end


def test_a_segment_is_line_protocol_that_people_can_read(tmp_path: Path) -> None:
    """The headers are comments: the segment as a whole is valid line protocol, with each window's bounds in it."""
    fill(tmp_path, range(2))
    text = (tmp_path / "00000001.lp").read_bytes()
    assert len(list(decode(text))) == 6
    headers = [line for line in text.decode().splitlines() if line.startswith("#")]
    second = make_report(1)
    bounds = f"start_ns={second.start_ns} end_ns={second.end_ns}"
    pattern = rf"# vmsensor-window version=1 {bounds} partial=false lines=3 bytes=\d+ crc32=[0-9a-f]{{8}}"
    assert re.fullmatch(pattern, headers[1])


def test_segments_rotate_by_size(tmp_path: Path) -> None:
    """A segment that has grown past the limit is followed by the next; the windows stay in order."""
    fill(tmp_path, range(5), segment_bytes=600)
    assert sorted(path.name for path in tmp_path.glob("*.lp")) == ["00000001.lp", "00000002.lp", "00000003.lp"]
    assert stored(tmp_path) == [0, 1, 2, 3, 4]


def test_a_second_run_goes_on_in_the_same_segment(tmp_path: Path) -> None:
    """Short runs do not litter the directory with segments."""
    fill(tmp_path, range(2))
    fill(tmp_path, range(2, 4))
    assert [path.name for path in tmp_path.glob("*.lp")] == ["00000001.lp"]
    assert stored(tmp_path) == [0, 1, 2, 3]


def test_reading_can_start_at_any_block(tmp_path: Path) -> None:
    """A position that a block gave is a place to go on from, across segments too."""
    fill(tmp_path, range(5), segment_bytes=600)
    blocks = list(read_blocks(tmp_path))
    for number, block in enumerate(blocks):
        assert list(read_blocks(tmp_path, block.position)) == blocks[number:]
        assert list(read_blocks(tmp_path, block.next)) == blocks[number + 1 :]


def test_a_torn_tail_costs_only_its_window(tmp_path: Path) -> None:
    """Wherever a crash cut the last block, the ones before are there, and it counts as one damaged stretch."""
    fill(tmp_path, range(3))
    segment = tmp_path / "00000001.lp"
    whole = segment.read_bytes()
    last = list(read_blocks(tmp_path))[-1].position.offset
    for cut in range(last + 1, len(whole)):
        segment.write_bytes(whole[:cut])
        blocks = list(read_blocks(tmp_path))
        assert windows_of(blocks) == [0, 1]
        assert [block.damage is not None for block in blocks] == [False, False, True]
        assert str(segment) in str(blocks[-1].damage)


def test_a_writer_goes_on_behind_a_torn_tail(tmp_path: Path) -> None:
    """What a crash cut off stays as it is; new windows go to a new segment and all the whole ones are read."""
    fill(tmp_path, range(3))
    segment = tmp_path / "00000001.lp"
    segment.write_bytes(segment.read_bytes()[:-7])
    fill(tmp_path, range(3, 5))
    blocks = list(read_blocks(tmp_path))
    assert windows_of(blocks) == [0, 1, 3, 4]
    assert [block.position.segment for block in blocks] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("where", ["header", "data"])
def test_damage_in_the_middle_costs_only_its_window(tmp_path: Path, where: str) -> None:
    """A flipped bit is noticed by the checksum, and reading goes on at the next window."""
    fill(tmp_path, range(3))
    segment = tmp_path / "00000001.lp"
    data = bytearray(segment.read_bytes())
    second = list(read_blocks(tmp_path))[1]
    offset = second.position.offset + 45 if where == "header" else second.next.offset - 10
    data[offset] ^= 1
    segment.write_bytes(data)
    blocks = list(read_blocks(tmp_path))
    assert windows_of(blocks) == [0, 2]
    assert [block.damage is not None for block in blocks] == [False, True, False]
    assert (blocks[1].position, blocks[1].next) == (second.position, second.next)


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    """Every window whose write returned is whole in the store of a process that was killed."""
    program = (
        "import sys, itertools\n"
        "from sensor.sinks.spool import SpoolSink\n"
        "from tests.reports import make_report\n"
        "sink = SpoolSink(sys.argv[1])\n"
        "sink.open()\n"
        "for window in itertools.count():\n"
        "    sink.write(make_report(window))\n"
        "    print(window, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        returned = 5 + len(process.stdout.readlines())
    assert stored(tmp_path)[:returned] == list(range(returned))
    fill(tmp_path, range(1000, 1001))
    assert stored(tmp_path)[-1] == 1000


def test_only_one_writer(tmp_path: Path) -> None:
    """A second writer is told who has the store; once the first has closed it, the second may have it."""
    first, second = SpoolSink(tmp_path), SpoolSink(tmp_path)
    first.open()
    with pytest.raises(OutputError, match=rf"process {os.getpid()}\b") as caught:
        second.open()
    assert str(tmp_path) in str(caught.value)
    first.write(make_report(0))
    assert stored(tmp_path) == [0]
    first.close()
    second.open()
    second.write(make_report(1))
    second.close()
    assert stored(tmp_path) == [0, 1]


def test_what_is_no_store_is_an_input_error(tmp_path: Path) -> None:
    """A missing directory and one without segments are told apart; a store that is still empty is neither."""
    with pytest.raises(InputError, match="no such directory"):
        list(read_blocks(tmp_path / "missing"))
    (tmp_path / "notes.txt").write_text("no segment")
    with pytest.raises(InputError, match="not a vmsensor store"):
        list(read_blocks(tmp_path))
    fill(tmp_path, range(0))
    assert list(read_blocks(tmp_path)) == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A store of a later release is not taken for a damaged one."""
    fill(tmp_path, range(1))
    segment = tmp_path / "00000001.lp"
    segment.write_bytes(segment.read_bytes().replace(b"version=1", b"version=2"))
    with pytest.raises(InputError, match="newer"):
        list(read_blocks(tmp_path))


def test_an_impossible_directory_is_an_output_error(tmp_path: Path) -> None:
    """Where no directory can be made, opening says so in one line."""
    (tmp_path / "file").write_text("in the way")
    sink = SpoolSink(tmp_path / "file" / "store")
    with pytest.raises(OutputError, match="Not a directory") as caught:
        sink.open()
    sink.close()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file" / "store") in str(caught.value)


def test_a_full_disk_leaves_no_torn_block(tmp_path: Path) -> None:
    """A window that does not fit is refused in one line, and writing goes on cleanly once there is room."""
    sink = SpoolSink(tmp_path)
    sink.open()
    sink.write(make_report(0))
    with file_size_limit(sink.end.offset + 100), pytest.raises(OutputError, match="File too large") as caught:
        sink.write(make_report(1))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stored(tmp_path) == [0]
    sink.write(make_report(2))
    sink.close()
    blocks = list(read_blocks(tmp_path))
    assert windows_of(blocks) == [0, 2]
    assert all(block.damage is None for block in blocks)


def test_delivery_is_noted_per_server(tmp_path: Path) -> None:
    """Each server has its own position, which survives the process; the file is plain JSON."""
    Delivered(tmp_path).advance("http://a db", Position(1, 50))
    Delivered(tmp_path).advance("http://b db", Position(2, 0))
    Delivered(tmp_path).advance("http://a db", Position(1, 90))
    again = Delivered(tmp_path)
    assert [again.position(f"http://{server} db") for server in "abc"] == [(1, 90), (2, 0), (0, 0)]
    assert again.last_segment() == 2
    assert json.loads((tmp_path / "delivered.json").read_text())["http://a db"] == {"segment": 1, "offset": 90}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 5}', '{"a": {"segment": "x", "offset": 1}}'])
def test_a_broken_delivery_note_means_sending_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    """Losing the note loses no window, so it is only a warning."""
    (tmp_path / "delivered.json").write_text(content)
    assert Delivered(tmp_path).position("a") == (0, 0)
    assert "sent again" in caplog.text


def test_removed_segments_do_not_hide_new_windows(tmp_path: Path) -> None:
    """Someone who deletes old segments does not make new windows look delivered already."""
    fill(tmp_path, range(3))
    Delivered(tmp_path).advance("a", list(read_blocks(tmp_path))[-1].next)
    (tmp_path / "00000001.lp").unlink()
    fill(tmp_path, range(3, 4))
    assert windows_of(list(read_blocks(tmp_path, Delivered(tmp_path).position("a")))) == [3]
