"""Outputs that fail, servers that do not answer, readers that leave, Ctrl-C: one clear line, and nothing is lost."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pcaps.generator.files import pcap
from sensor.errors import INTERRUPTED
from tests.command import (
    DAMAGED,
    DELIVERY,
    DEMO,
    INPUT,
    OK,
    OUTPUT,
    QUIET,
    SECONDS,
    TOTALS,
    USAGE,
    Done,
    command,
    complaint,
    environment,
    records,
    vmsensor,
    without,
)
from tests.needs import need_root, need_tool
from tests.servers import free_port
from tests.streams import MILLISECOND, SECOND, START, udp_frame

TOKEN = "s3cr3t-t0ken"
FRAMES = [(START + i * MILLISECOND, udp_frame("10.0.0.1", 40000 + i, "10.0.9.9", 53, ident=i)) for i in range(300)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demonstration in it; not to be changed."""
    directory = tmp_path_factory.mktemp("kept") / "store"
    assert vmsensor("read", DEMO, "--to", "store", "--store", directory).returncode == OK
    return directory


@pytest.fixture
def store(kept: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return Path(shutil.copytree(kept, tmp_path / "store"))


# ---- outputs


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A directory in which nothing can be made."""
    directory = tmp_path / "sealed"
    directory.mkdir(mode=0o555)
    return directory


@pytest.mark.parametrize(
    "output",
    [["--store", "{}/store"], ["--to", "store:{}/store"], ["--to", "json:{}/points"], ["--flows", "{}/flows"]],
    ids=["store", "to-store", "json", "flows"],
)
def test_an_unwritable_output(output: list[str], sealed: Path) -> None:
    """The place and the system's reason, before any packet is counted."""
    arguments = [argument.format(sealed) for argument in output]
    done = vmsensor("read", DEMO, *arguments, prefix=without("dac_override", "dac_read_search"))
    said = complaint(done, OUTPUT)
    assert str(sealed) in said
    assert "Permission denied" in said
    assert not TOTALS.search(done.stderr)


FULL = {"flows": ["--flows", "/dev/full", *QUIET], "json": ["--to", "json:/dev/full"]}


@pytest.mark.parametrize("output", FULL.values(), ids=FULL)
def test_a_full_disk(output: list[str]) -> None:
    """The output that failed is named; the packets are counted all the same."""
    done = vmsensor("read", DEMO, *output)
    said = complaint(done, OUTPUT)
    assert "/dev/full: " in said
    assert "No space left on device" in said
    assert "received 5373 = " in done.stderr


def test_a_full_disk_spares_other_outputs(tmp_path: Path) -> None:
    """One output fails, the others have everything."""
    sound, alone = tmp_path / "sound.json", tmp_path / "alone.json"
    complaint(vmsensor("read", DEMO, "--to", "json:/dev/full", "--to", f"json:{sound}"), OUTPUT)
    assert vmsensor("read", DEMO, "--to", f"json:{alone}").returncode == OK
    assert sound.read_bytes() == alone.read_bytes() != b""


@pytest.mark.parametrize("arguments", [["read", DEMO], ["show"], ["interfaces"], ["read", DEMO, "--to", "json:-"],
                                       ["read", DEMO, *QUIET, "--flows", "-"]],
                         ids=["table", "show", "interfaces", "json", "flows"])  # fmt: skip
def test_standard_output_on_a_full_disk(arguments: list[object], store: Path, tmp_path: Path) -> None:
    """Redirected to a disk that is full, every command says so."""
    arguments = [*arguments, store] if arguments == ["show"] else arguments
    with open("/dev/full", "wb") as full:
        done = vmsensor(*arguments, cwd=tmp_path, stdout=full)
    assert "No space left on device" in complaint(done, OUTPUT)


def test_a_store_on_a_full_disk(tmp_path: Path) -> None:
    """A real file system that fills up: said when it happens and at the end; what the store holds can be shown."""
    need_root()
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = (
        'mount -t tmpfs -o size=16k none "$1"; dir="$1"; shift; "$@"; status=$?\n'
        'cp -r "$dir/store" "$dir/../kept"; exit $status'
    )
    prefix = [need_tool("unshare"), "--mount", "sh", "-c", script, "sh", str(mounted)]
    done = vmsensor("read", DEMO, "--window", "1s", "--to", f"store:{mounted}/store", prefix=prefix)
    first, totals, last = done.stderr.splitlines()
    assert done.returncode == OUTPUT
    assert first == f"vmsensor: {mounted}/store: windows are lost: No space left on device; make room on the disk"
    assert totals.startswith("received 5373 = ")
    assert re.fullmatch(rf"vmsensor: {mounted}/store: \d+ windows are lost: the disk is full; make room", last)
    shown = vmsensor("show", tmp_path / "kept")
    assert (shown.returncode, shown.stderr) == (OK, "")


READERS_THAT_LEAVE = {
    "flows": ["--flows", "-", *QUIET],
    "json": ["--to", "json:-"],
    "table": ["--to", "table"],
}


@pytest.mark.parametrize("output", READERS_THAT_LEAVE.values(), ids=READERS_THAT_LEAVE)
def test_a_reader_that_leaves(output: list[str], tmp_path: Path) -> None:
    """`| head -1`: one line says that the reader has gone, the totals still come, and Python adds nothing."""
    done = _into_closed_pipe("read", DEMO, *output)
    complaint(done, OUTPUT)
    assert "received 5373 = " in done.stderr


@pytest.mark.parametrize("what", ["show", "interfaces", "version", "help"])
def test_a_reader_that_leaves_early(what: str, store: Path) -> None:
    """Commands that only print end silently when nobody reads."""
    arguments = {"show": ["show", store], "interfaces": ["interfaces"], "version": ["--version"], "help": ["--help"]}
    done = _into_closed_pipe(*arguments[what])
    assert (done.returncode, done.stderr) == (OK, "")


def _into_closed_pipe(*arguments: object) -> Done:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return vmsensor(*arguments, stdout=writing)
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", [["read", DEMO], ["read", DEMO, *QUIET, "--flows", "-"],
                                       ["read", DEMO, "--to", "json:-"], ["interfaces"]],
                         ids=["table", "flows", "json", "interfaces"])  # fmt: skip
def test_no_standard_output(arguments: list[object], tmp_path: Path) -> None:
    """Started with standard output closed (>&-), as some supervisors do: an error in one line, or nothing to say."""
    done = vmsensor(*arguments, cwd=tmp_path, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert "Traceback" not in done.stderr
    complaint(done, OUTPUT)


# ---- InfluxDB


def test_an_unreachable_server(tmp_path: Path) -> None:
    """The windows stay in the store, the line says where and how to send them, and the token is not in it."""
    url = f"http://127.0.0.1:{free_port()}"
    store = tmp_path / "store"
    done = vmsensor("read", DEMO, "--to", "influx", "--influx-url", url, "--store", store, INFLUXDB_V2_TOKEN=TOKEN)
    lines = [line for line in done.stderr.splitlines() if not TOTALS.match(line)]
    assert done.returncode == DELIVERY
    assert f"6 windows are kept in {store}, to send later with: vmsensor push {store}" in lines[-1]
    assert (TOKEN in done.stderr + done.stdout, "Traceback" in done.stderr) == (False, False)
    assert all(line.startswith("vmsensor: ") for line in lines)
    pushed = vmsensor("push", store, "--influx-url", url, INFLUXDB_V2_TOKEN=TOKEN)
    assert "6 windows are kept" in complaint(pushed, DELIVERY)


def test_push_and_show_need_a_store(tmp_path: Path) -> None:
    """A directory that is none, and one that is not there."""
    for arguments in (["show", tmp_path], ["push", tmp_path, "--influx-url", "http://127.0.0.1:1"]):
        assert "not a vmsensor store" in complaint(vmsensor(*arguments), INPUT)
    assert "no such directory" in complaint(vmsensor("show", tmp_path / "nosuch"), INPUT)
    assert list(tmp_path.iterdir()) == []


def test_push_needs_a_server(store: Path) -> None:
    """Without a URL there is nowhere to push to."""
    assert "give --influx-url" in complaint(vmsensor("push", store), USAGE)


def test_a_damaged_store_is_shown_as_far_as_it_goes(store: Path) -> None:
    """What is whole is in the summary; the damage is named, with its status."""
    segment = store / "00000001.lp"
    segment.write_bytes(segment.read_bytes()[:-20])
    done = vmsensor("show", store)
    assert str(segment) in complaint(done, DAMAGED)
    assert "5 windows" in done.stdout


def test_a_store_in_use(store: Path) -> None:
    """Two writers would spoil each other's windows: the second is told who is there."""
    arguments = command("read", "-", "--to", f"store:{store}")
    with subprocess.Popen(arguments, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        try:
            holder.stdin.write(pcap(FRAMES))
            holder.stdin.flush()
            wait_until(lambda: (store / "vmsensor.lock").read_text() == f"{holder.pid}\n")
            done = vmsensor("read", DEMO, "--to", f"store:{store}")
            holder.stdin.close()
            assert holder.wait(SECONDS) == OK
        finally:
            holder.kill()
    assert f"in use by another vmsensor (process {holder.pid})" in complaint(done, OUTPUT)


def wait_until(condition: Callable[[], bool]) -> None:
    """Give another process ten seconds."""
    limit = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)


# ---- Ctrl-C


def many_flows(count: int) -> bytes:
    """A capture of so many flows of one packet, a millisecond apart."""
    header, record = pcap([]), np.frombuffer(pcap([FRAMES[0]])[24:], np.uint8)
    packets = np.tile(record, (count, 1))
    number = np.arange(count, dtype=np.uint32)
    packets[:, 0:4] = (START // SECOND + number // 1000).astype("<u4")[:, None].view(np.uint8)
    packets[:, 4:8] = (number % 1000 * 1000).astype("<u4")[:, None].view(np.uint8)
    packets[:, 16 + 14 + 13 : 16 + 14 + 16] = number.astype(">u4")[:, None].view(np.uint8)[:, 1:]
    return header + packets.tobytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_in_the_middle(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C while a long read goes on: what was read is reported, in flows and in totals, and status 130 says so."""
    capture, flows, most = tmp_path / "long.pcap", tmp_path / "flows.json", 300_000
    capture.write_bytes(many_flows(most))
    arguments = command("read", capture, *QUIET, "--flows", flows, "--idle-timeout", "1ms")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            wait_until(lambda: flows.exists() and flows.stat().st_size > 0)
            process.send_signal(number)
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    done = Done([], process.returncode, flows.read_text(), said.decode())
    assert "interrupted" in complaint(done, INTERRUPTED)
    reported = sum(flow["c2s_packets"] + flow["s2c_packets"] for flow in records(done))
    assert f"received {reported} = {reported} in flows" in done.stderr
    assert 0 < reported < most


def test_interrupted_while_waiting_for_input() -> None:
    """Ctrl-C also ends a read whose pipe is silent, with what came before."""
    reading, writing = os.pipe()
    arguments = command("read", "-", *QUIET)
    with subprocess.Popen(arguments, env=environment(), stdin=reading, stderr=subprocess.PIPE) as process:
        try:
            os.close(reading)
            os.write(writing, pcap(FRAMES[:200]))
            wait_until(lambda: not left_in(writing))
            time.sleep(0.2)  # from the pipe into the table
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            os.close(writing)
    done = Done(arguments, process.returncode, "", said.decode())
    assert "interrupted" in complaint(done, INTERRUPTED)
    assert "received 200 = 200 in flows" in done.stderr


def left_in(pipe: int) -> int:
    """Octets in a pipe that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def test_a_memory_that_cannot_be_kept_is_refused_at_the_start(tmp_path: Path) -> None:
    """Before the first packet, as for every other output."""
    flows, place = tmp_path / "flows.jsonl", "/proc/nosuch/memory.json"
    said = complaint(vmsensor("read", DEMO, *QUIET, "--memory", place, "--flows", flows), OUTPUT)
    assert f"{place}: cannot keep what was learned: " in said
    assert flows.read_text() == ""
