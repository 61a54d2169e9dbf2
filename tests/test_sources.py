"""Capture files as a source: order, formats, pipes, damage, progress; with the program where the whole way counts."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcaps.generator.files import Frame, pcap, pcapng
from sensor.captures import FILE_BATCH, FileSource, first_timestamp
from sensor.errors import InputError, UsageError
from sensor.sources import Drops, Progress
from tests.command import SECONDS, command, environment, records, vmsensor
from tests.needs import PCAPS
from tests.streams import MILLISECOND, SECOND, START, table_of, udp_frame

QUIET = ("--to", "none", "--flows", "-")


def packets(count: int, *, start: float = 0, port: int = 40000) -> list[Frame]:
    """Datagrams of one flow, a millisecond apart."""
    begin = START + round(start * SECOND)
    return [
        (begin + i * MILLISECOND, udp_frame("10.0.0.1", port, "10.0.0.2", 53, ident=i & 0xFFFF)) for i in range(count)
    ]


def drain(source: FileSource, window_ns: int = 3600 * SECOND) -> dict[str, int]:
    """Read everything and return the table's counters."""
    table = table_of(window_ns=window_ns)
    source.open(table)
    try:
        while (progress := source.poll(table)) is not Progress.END:
            if progress is Progress.HELD:
                table.roll()
        return table.counters()
    finally:
        source.close()


def written(path: Path, content: bytes) -> str:
    """The path of a new file."""
    path.write_bytes(content)
    return str(path)


# ---- formats

FORMATS: dict[str, Callable[[list[Frame]], bytes]] = {
    "pcap": pcap,
    "big-endian": lambda frames: pcap(frames, order=">"),
    "nanosecond": lambda frames: pcap(frames, nanoseconds=True),
    "pcapng": pcapng,
    "pcap.gz": lambda frames: gzip.compress(pcap(frames)),
    "pcapng.gz": lambda frames: gzip.compress(pcapng(frames)),
    "two gzip members": lambda frames: gzip.compress(pcap(frames)[:999]) + gzip.compress(pcap(frames)[999:]),
}


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form: str, tmp_path: Path) -> None:
    """The same packets in any format are the same count, whatever the file is called."""
    path = written(tmp_path / "capture.bin", FORMATS[form](packets(50)))
    source = FileSource([path])
    counted = drain(source)
    assert (counted["received"], counted["fate_flow"], source.damage) == (50, 50, None)
    assert first_timestamp(path) == START / SECOND


def test_formats_make_the_same_records(tmp_path: Path) -> None:
    """Flow records do not depend on the container, but for what its timestamps can hold."""
    found = []
    for form in ("pcap", "pcapng.gz", "big-endian"):
        path = written(tmp_path / form, FORMATS[form](packets(50)))
        found.append(vmsensor("read", path, *QUIET).stdout)
    assert found == [found[0]] * len(found)
    assert found[0].count("\n") == 1


@pytest.mark.parametrize("count", [FILE_BATCH - 1, FILE_BATCH, FILE_BATCH + 1, 2 * FILE_BATCH])
def test_batches_end_where_they_may(count: int, tmp_path: Path) -> None:
    """Files of exactly a batch, one more and one less."""
    assert drain(FileSource([written(tmp_path / "a", pcap(packets(count)))]))["received"] == count


def test_link_types_may_differ(tmp_path: Path) -> None:
    """Files with different link types go into one table."""
    raw = [(time_ns, frame[14:]) for time_ns, frame in packets(5, port=2)]
    paths = [written(tmp_path / "a", pcap(packets(7))), written(tmp_path / "b", pcap(raw, 101))]
    assert drain(FileSource(paths))["fate_flow"] == 12


# ---- order


def test_files_are_read_in_order_of_time(tmp_path: Path) -> None:
    """Names and the order of arguments mean nothing: one flow in three files is one, and no window is opened twice."""
    names = {"c.pcap": 0, "a.pcap": 20, "b.pcapng.gz": 40}
    for name, start in names.items():
        form = "pcapng.gz" if name.endswith("gz") else "pcap"
        written(tmp_path / name, FORMATS[form](packets(3, start=start)))
    points = tmp_path / "points.json"
    done = vmsensor("read", *sorted(tmp_path.iterdir()), "--to", f"json:{points}", "--flows", "-")
    (flow,) = records(done)
    assert (flow["c2s_packets"], flow["start_ns"]) == (9, START)
    assert flow["end_ns"] == START + 40 * SECOND + 2 * MILLISECOND
    assert f'"time_ns": {START + 1},' not in points.read_text()  # a revision


def test_first_timestamps(tmp_path: Path) -> None:
    """What cannot be told comes last: no packets, no capture, standard input."""
    assert first_timestamp(written(tmp_path / "a", pcap(packets(1, start=1.5)))) == START / SECOND + 1.5
    for path in (written(tmp_path / "b", pcap([])), written(tmp_path / "c", b"no capture"), "-", str(tmp_path / "d")):
        assert first_timestamp(path) == float("inf")


def test_every_file_is_looked_at_before_any_is_counted(tmp_path: Path) -> None:
    """One wrong name among many is found before the work begins."""
    paths = [written(tmp_path / "a", pcap(packets(5))), str(tmp_path / "nosuch")]
    table = table_of()
    with pytest.raises(InputError, match="nosuch: cannot read it: No such file"):
        FileSource(paths).open(table)
    assert table.counters()["received"] == 0


# ---- filters


def test_a_filter(tmp_path: Path) -> None:
    """Only what matches reaches the table, in each file."""
    paths = [written(tmp_path / name, pcap(packets(5, port=port))) for name, port in (("a", 1), ("b", 2))]
    assert drain(FileSource(paths, "udp src port 2"))["received"] == 5
    with pytest.raises(UsageError, match="--filter 'prot 2': "):
        FileSource(paths, "prot 2").open(table_of())


# ---- damage


def pcapng_with_a_broken_block(before: int, after: int) -> bytes:
    """A pcapng whose middle block has an impossible length."""
    whole, head = pcapng(packets(before + after)), pcapng(packets(before))
    at = len(head) - 24  # the statistics block that ends a file
    return whole[: at + 4] + b"\xff\xff\xff\x7f" + whole[at + 8 :]


@pytest.mark.parametrize("before", [0, 1, FILE_BATCH - 1, FILE_BATCH, FILE_BATCH + 5])
def test_a_corrupt_length_in_the_middle(before: int, tmp_path: Path) -> None:
    """Everything before the damage is counted, wherever in a batch it stands."""
    content = pcap(packets(before)) + b"\0" * 8 + b"\xff\xff\xff\xff" * 2 + pcap(packets(50))[24:]
    source = FileSource([written(tmp_path / "a", content)])
    assert drain(source)["received"] == before
    assert str(tmp_path / "a") in str(source.damage)


@pytest.mark.parametrize("before", [0, 1, 200])
def test_a_broken_block_of_pcapng(before: int, tmp_path: Path) -> None:
    """The same for pcapng."""
    source = FileSource([written(tmp_path / "a", pcapng_with_a_broken_block(before, 50))])
    assert drain(source)["received"] == before
    assert source.damage is not None


@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_damaged_gzip(name: str, tmp_path: Path) -> None:
    """Flipped bits that only the checksum tells: all packets are counted, and the damage is told."""
    packed = bytearray(gzip.compress(pcap(packets(30)), compresslevel=0, mtime=0))
    packed[-8] ^= 1
    source = FileSource([written(tmp_path / name, bytes(packed))])
    assert drain(source)["received"] == 30
    assert "crc error" in str(source.damage)


def test_the_first_damage_is_kept_and_the_rest_is_read(tmp_path: Path) -> None:
    """Two damaged files around a sound one."""
    paths = [
        written(tmp_path / "a", pcap(packets(10))[:-1]),
        written(tmp_path / "b", pcap(packets(10, start=1))),
        written(tmp_path / "c", pcap(packets(10, start=2))[:-1]),
    ]
    source = FileSource(paths)
    assert drain(source)["received"] == 9 + 10 + 9
    assert paths[0] in str(source.damage)


def test_cuts_anywhere_are_harmless(tmp_path: Path) -> None:
    """A capture cut after any octet: the whole packets before are counted, or it is refused; never anything else."""
    content = pcap(packets(3))
    size = (len(content) - 24) // 3
    for end in range(len(content)):
        source = FileSource([written(tmp_path / "cut", content[:end])])
        if end < 24:
            with pytest.raises(InputError, match="not a capture file"):
                source.open(table_of())
            continue
        assert drain(source)["received"] == (end - 24) // size
        assert (source.damage is None) == ((end - 24) % size == 0)


# ---- the source's manners


def test_progress_adds_up(tmp_path: Path) -> None:
    """The octets told are those of the file, but for its header."""
    told: list[int] = []
    path = written(tmp_path / "a", pcap(packets(1000)))
    drain(FileSource([path], progress=told.append))
    assert sum(told) == os.path.getsize(path) - 24
    assert all(octets >= 0 for octets in told)


def test_held_packets_are_kept(tmp_path: Path) -> None:
    """Packets of a batch that lie in later windows wait for the roll; none is lost."""
    path = written(tmp_path / "a", pcap(packets(500)))
    assert drain(FileSource([path]), window_ns=7 * MILLISECOND)["received"] == 500


def test_a_file_knows_no_drops(tmp_path: Path) -> None:
    """Null, not zero."""
    assert FileSource([written(tmp_path / "a", pcap([]))]).drops() == Drops(None, None)


def test_closing_twice_and_closing_early(tmp_path: Path) -> None:
    """Close may come in the middle, and again; a gzip that is not read to its end leaves no process behind."""
    source = FileSource([written(tmp_path / "a.gz", gzip.compress(pcap(packets(20_000))))])
    table = table_of()
    source.open(table)
    assert source.poll(table) in (Progress.READ, Progress.HELD)
    source.close()
    source.close()
    assert "gzip" not in _children()


def _children() -> str:
    pids = [child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]
    return " ".join(Path("/proc", pid, "comm").read_text() for pid in pids if Path("/proc", pid).exists())


# ---- pipes


def test_standard_input() -> None:
    """`-` reads a pipe: the same records as from the file."""
    content = (PCAPS / "demo.pcap").read_bytes()
    piped, read = vmsensor("read", "-", *QUIET, stdin=content), vmsensor("read", PCAPS / "demo.pcap", *QUIET)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, read.stdout, read.stderr)


def test_standard_input_beside_files(tmp_path: Path) -> None:
    """It comes after the files."""
    path = written(tmp_path / "a", pcap(packets(3)))
    done = vmsensor("read", "-", path, *QUIET, stdin=pcap(packets(4, start=1)))
    assert done.returncode == 0
    assert "received 7 = 7 in flows" in done.stderr


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_fifo(form: str, tmp_path: Path) -> None:
    """A named pipe, as process substitution makes it, can be opened once only: nothing of it may be lost."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    result: list[Any] = []

    def read() -> None:
        try:
            arguments = command("read", fifo, *QUIET)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            result.append(
                subprocess.run(arguments, env=environment(), text=True, timeout=SECONDS, check=False, **pipes)  # type: ignore[call-overload]
            )
        except subprocess.TimeoutExpired as hung:
            result.append(hung)

    writer = [sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(open(sys.argv[2], 'rb').read())"]
    reader = threading.Thread(target=read)
    reader.start()
    source = written(tmp_path / "source", FORMATS[form](packets(30)))
    with subprocess.Popen([*writer, str(fifo), source], stderr=subprocess.DEVNULL) as process:
        reader.join()
        process.kill()
    assert not isinstance(result[0], subprocess.TimeoutExpired), "hangs on a FIFO"
    assert (result[0].returncode, result[0].stderr) == (
        0, "received 30 = 30 in flows + 0 overflow; dropped by kernel -, by NIC -\n",
    )  # fmt: skip
