"""Bad input, as a user meets it: one clear line on standard error, the documented status, and nothing lost before it."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pcaps.generator.files import pcap, pcapng
from sensor.errors import INTERRUPTED
from tests.command import DEMO, TOTALS, Done, command, complaint, environment, records, vmsensor, without
from tests.needs import PCAPS, need_root, need_tool
from tests.servers import free_port
from tests.streams import MILLISECOND, SECOND, START, udp_frame

OK, UNEXPECTED, USAGE, INPUT, DAMAGED, INTERFACE, PRIVILEGE, OUTPUT, DELIVERY = range(9)
QUIET = ("--to", "none")
TOKEN = "s3cr3t-t0ken"

FRAMES = [
    (START + i * MILLISECOND, udp_frame(f"10.0.0.{i % 7}", 40000 + i, "10.0.9.9", 53, b"x" * (i % 50), ident=i))
    for i in range(300)
]


def flows_of(done: Done) -> dict[str, int]:
    """Packets by flow."""
    return {flow["community_id"]: flow["c2s_packets"] + flow["s2c_packets"] for flow in records(done)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the demonstration in it."""
    assert vmsensor("read", DEMO, "--to", "store", "--store", tmp_path / "store").returncode == OK
    return tmp_path / "store"


# ---- inputs


def test_a_missing_file(tmp_path: Path) -> None:
    """It is named, and no other file is read before that is found out."""
    said = complaint(vmsensor("read", DEMO, tmp_path / "nosuch.pcap", *QUIET), INPUT)
    assert f"{tmp_path}/nosuch.pcap: " in said
    assert "No such file" in said


def test_a_directory(tmp_path: Path) -> None:
    """A directory is no capture."""
    assert "Is a directory" in complaint(vmsensor("read", tmp_path, *QUIET), INPUT)


def test_an_unreadable_file(tmp_path: Path) -> None:
    """The reason is the system's."""
    capture = tmp_path / "locked.pcap"
    capture.write_bytes(pcap(FRAMES))
    capture.chmod(0)
    done = vmsensor("read", capture, *QUIET, prefix=without("dac_override", "dac_read_search"))
    assert f"{capture}: cannot read it: Permission denied" in complaint(done, INPUT)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xd4\xc3\xb2\xa1", b"not a capture at all, only a line of text\n" * 9, gzip.compress(b"nor this one"),
     gzip.compress(b""), b"\x1f\x8b", gzip.compress(pcap(FRAMES))[:12], b"\x1f\x8b" + b"\xff" * 50],
    ids=["nothing", "octet", "magic", "text", "gzip-text", "gzip-nothing", "gzip-magic", "gzip-cut", "gzip-garbage"],
)  # fmt: skip
def test_no_capture(content: bytes, tmp_path: Path) -> None:
    """What has no capture's header is refused by name, gzipped or not."""
    path = tmp_path / "strange.pcap"
    path.write_bytes(content)
    assert f"{path}: not a capture file: " in complaint(vmsensor("read", path, *QUIET), INPUT)


def test_no_capture_on_standard_input() -> None:
    """The same for a pipe."""
    assert "not a capture file" in complaint(vmsensor("read", "-", *QUIET, stdin=b"neither is this"), INPUT)


def test_an_empty_capture() -> None:
    """A capture without packets is sound: totals of zero."""
    done = vmsensor("read", PCAPS / "empty.pcap", *QUIET)
    assert (done.returncode, done.stderr) == (
        OK, "received 0 = 0 in flows + 0 overflow; dropped by kernel -, by NIC -\n",
    )  # fmt: skip


# ---- damage


def cut_pcap() -> tuple[bytes, int]:
    """A pcap that ends in its 200th packet."""
    return pcap(FRAMES[:200])[:-7], 199


def cut_pcapng() -> tuple[bytes, int]:
    """The same for pcapng: the packet block of packet 200 is cut."""
    without_end = len(pcapng(FRAMES[:199])) - len(pcapng([])) + len(pcapng([])) - 24
    return pcapng(FRAMES)[: without_end + 30], 199


def cut_gzip() -> tuple[bytes, int]:
    """A gzip file cut in the middle of its only stored block: libpcap sees the end in the middle of a packet."""
    plain = pcap(FRAMES)
    packed = gzip.compress(plain, compresslevel=0, mtime=0)
    return packed[: len(packed) - len(plain) + len(pcap(FRAMES[:250])) - 8 - 5], 249


def cut_gzip_between_packets() -> tuple[bytes, int]:
    """A gzip file whose end is missing, but no octet of a packet."""
    return gzip.compress(pcap(FRAMES), mtime=0)[:-6], 300


def corrupt_length() -> tuple[bytes, int]:
    """A pcap in whose middle a record says that it is gigantic."""
    sound = pcap(FRAMES[:120])
    return sound + b"\0" * 8 + b"\xff" * 8 + pcap(FRAMES[120:])[24:], 120


DAMAGES = (cut_pcap, cut_pcapng, cut_gzip, cut_gzip_between_packets, corrupt_length)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_everything_before_the_damage_is_reported(damage: Callable[[], tuple[bytes, int]], tmp_path: Path) -> None:
    """The flows are those of the packets before the damage, all of them; status and line say that there was one."""
    content, sound = damage()
    damaged, whole = tmp_path / "damaged.pcap", tmp_path / "whole.pcap"
    damaged.write_bytes(content)
    whole.write_bytes(pcap(FRAMES[:sound]))
    done, expected = (vmsensor("read", path, *QUIET, "--flows", "-") for path in (damaged, whole))
    said = complaint(done, DAMAGED)
    assert f"{damaged}: " in said
    assert "everything before" in said
    assert flows_of(done) == flows_of(expected)
    assert f"received {sound} = {sound} in flows" in done.stderr


def test_damage_does_not_end_the_job(tmp_path: Path) -> None:
    """The files after a damaged one are still read."""
    first, second = tmp_path / "1.pcap", tmp_path / "2.pcap"
    first.write_bytes(pcap(FRAMES[:100])[:-1])
    second.write_bytes(pcap(FRAMES[100:]))
    done = vmsensor("read", first, second, *QUIET)
    assert str(first) in complaint(done, DAMAGED)
    assert "received 299 = 299 in flows" in done.stderr


def test_damage_with_a_filter(tmp_path: Path) -> None:
    """Only packets that match count, before the damage as elsewhere."""
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(pcap(FRAMES)[:-1])
    done = vmsensor("read", damaged, *QUIET, "--filter", "src host 10.0.0.3")
    complaint(done, DAMAGED)
    assert f"received {sum(i % 7 == 3 for i in range(299))} = " in done.stderr


def test_damage_on_standard_input() -> None:
    """A pipe cannot be read twice: what is missing is said, not hidden."""
    done = vmsensor("read", "-", *QUIET, stdin=pcap(FRAMES)[:-1])
    assert "not counted" in complaint(done, DAMAGED)


# ---- what was asked for


def test_an_unknown_interface() -> None:
    """It is named, with the command that lists them."""
    need_root()
    said = complaint(vmsensor("capture", "nosuch0", *QUIET), INTERFACE)
    assert "nosuch0" in said
    assert "vmsensor interfaces" in said


def test_no_permission_to_capture() -> None:
    """The missing capability and how to grant it."""
    done = vmsensor("capture", "lo", *QUIET, "--duration", "1s", prefix=without("net_raw"))
    said = complaint(done, PRIVILEGE)
    assert "CAP_NET_RAW" in said
    assert "setcap" in said


@pytest.mark.parametrize("bpf", ["tcp prot 80", "host", "net 10.0.0.0/99", "(", "nosuchword"])
def test_an_invalid_filter(bpf: str) -> None:
    """The message is libpcap's, with the filter beside it."""
    assert f"--filter {bpf!r}: " in complaint(vmsensor("read", DEMO, "--filter", bpf, *QUIET), USAGE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--window", "soon"], "--window: 'soon' is no duration; write for example 10s"),
        (["--window", "0s"], "--window: '0s' is out of range"),
        (["--window", "-3s"], "--window: '-3s' is no duration"),
        (["--max-flows", "0"], "--max-flows: '0' is no whole number above zero"),
        (["--max-flows", "many"], "--max-flows: 'many'"),
        (["--max-flows", str(2**40)], "max"),
        (["--max-flows", str(2**62)], "max"),
        (["--max-flows", str(10**20)], "max"),
        (["--monitored", "10.0.0.0/33"], "--monitored: '10.0.0.0/33' is no address prefix"),
        (["--to", "kafka"], "--to: 'kafka' is no sink; choose from store, influx, json, table, none"),
        (["--to", "json"], "takes a path"),
        (["--to", "none", "--to", "table"], "--to none means no other sink"),
        (["--to", "influx"], "give --influx-url, or set INFLUXDB_V2_URL"),
        (["--to", "influx", "--influx-url", "localhost:8086"], "not a URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_option(arguments: list[str], expected: str, tmp_path: Path) -> None:
    """What is wrong and what would be right, in one line, before anything is read or made."""
    done = vmsensor("read", DEMO, *arguments, cwd=tmp_path)
    assert expected in complaint(done, USAGE)
    assert not TOTALS.search(done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--duration", "5s"], ["--packets", "9"], ["--buffer-size", "1MiB"], ["--no-promiscuous"],
     ["--direction", "in"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_read_takes_no_capture_options(arguments: list[str]) -> None:
    """An option of capture is unknown to read, and said so."""
    done = vmsensor("read", DEMO, *QUIET, *arguments)
    assert done.returncode == USAGE
    assert "No such option" in done.stderr
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["read"], ["nosuch"], ["capture"], ["show"], ["read", "--filter"]], ids=" ".join)
def test_a_wrong_command(arguments: list[str]) -> None:
    """A command that is unknown or not complete: usage, status 2."""
    done = vmsensor(*arguments)
    assert done.returncode == USAGE
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["[bold]", "[", "tag=a,b c", "two\nlines", b"\xff\xfe"], ids=["markup", "bracket", "tag", "line", "octets"])
def test_strange_names(name: str | bytes, tmp_path: Path) -> None:
    """Any file name that the system allows can be read and kept under."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + (name if isinstance(name, bytes) else name.encode())))
    directory = directory / "b] x"
    directory.mkdir(parents=True)
    capture = directory / directory.parent.name
    capture.write_bytes(pcap(FRAMES))
    done = vmsensor("read", capture, "--store", directory / "store")
    assert (done.returncode, "Traceback" in done.stderr) == (OK, False), done.stderr[-500:]
    shown = vmsensor("show", directory / "store")
    assert (shown.returncode, shown.stderr) == (OK, "")
    assert os.fsencode(directory) in shown.stdout.encode(errors="surrogateescape")


# ---- configuration and token


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A configuration file that is not there is an input error."""
    said = complaint(vmsensor("read", DEMO, *QUIET, "--config", tmp_path / "nosuch.toml"), INPUT)
    assert f"{tmp_path}/nosuch.toml: cannot read the configuration file" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"windw = '10s'", "unknown key 'windw'; did you mean 'window'?"),
        (b"window = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"window = [1]", "window takes a string or a number"),
        (b"window = 0", "window in"),
        (b"max_flows = 0", "max_flows in"),
        (b"no_vlan_key = 'yes'", "no_vlan_key takes true or false"),
        (b"monitored = '10.0.0.0/8'", "monitored takes a list"),
    ],
)
def test_a_wrong_configuration(content: bytes, expected: str, tmp_path: Path) -> None:
    """File, key and what would be right."""
    config = tmp_path / "vmsensor.toml"
    config.write_bytes(content)
    said = complaint(vmsensor("read", DEMO, *QUIET, "--config", config), USAGE)
    assert str(config) in said
    assert expected in said


def test_a_token_file_that_others_can_read(tmp_path: Path) -> None:
    """Refused with the command that mends it; the token is not shown."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    said = complaint(
        vmsensor("read", DEMO, "--to", "influx", "--influx-url", "http://127.0.0.1:1", "--influx-token-file", token), USAGE
    )  # fmt: skip
    assert f"chmod 600 {token}" in said
    assert TOKEN not in said


def test_a_token_file_that_holds_no_text(tmp_path: Path) -> None:
    """Octets that are no text are refused in one line."""
    token = tmp_path / "token"
    token.write_bytes(b"\xff\xfe\x00")
    token.chmod(0o600)
    done = vmsensor("read", DEMO, "--to", "influx", "--influx-url", "http://127.0.0.1:1", "--influx-token-file", token,
                    cwd=tmp_path)  # fmt: skip
    assert "token" in complaint(done, USAGE)


# ---- outputs


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A directory in which nothing can be made."""
    directory = tmp_path / "sealed"
    directory.mkdir(mode=0o555)
    return directory


@pytest.mark.parametrize(
    "output", [["--store", "{}/store"], ["--to", "store:{}/store"], ["--to", "json:{}/points"], ["--flows", "{}/flows"]],
    ids=["store", "to-store", "json", "flows"],
)  # fmt: skip
def test_an_unwritable_output(output: list[str], sealed: Path) -> None:
    """The place and the system's reason, before any packet is counted."""
    arguments = [argument.format(sealed) for argument in output]
    done = vmsensor("read", DEMO, *arguments, prefix=without("dac_override", "dac_read_search"))
    said = complaint(done, OUTPUT)
    assert str(sealed) in said
    assert "Permission denied" in said
    assert not TOTALS.search(done.stderr)


@pytest.mark.parametrize("output", [["--flows", "/dev/full", *QUIET], ["--to", "json:/dev/full"]], ids=["flows", "json"])
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
    """A real file system that fills up: the store says so, and what it holds can be shown."""
    need_root()
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = 'mount -t tmpfs -o size=16k none "$1"; dir="$1"; shift; "$@"; status=$?; cp -r "$dir/store" "$dir/../kept"; exit $status'
    prefix = [need_tool("unshare"), "--mount", "sh", "-c", script, "sh", str(mounted)]
    done = vmsensor("read", DEMO, "--window", "1s", "--to", f"store:{mounted}/store", prefix=prefix)
    said = complaint(done, OUTPUT)
    assert f"{mounted}/store: cannot write to the store: No space left on device" in said
    assert "received 5373 = " in done.stderr
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
    holder = subprocess.Popen(
        command("read", "-", "--to", f"store:{store}"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    with holder:
        assert holder.stdin is not None
        try:
            holder.stdin.write(pcap(FRAMES))
            holder.stdin.flush()
            done = _until(lambda: vmsensor("read", DEMO, "--to", f"store:{store}"), OUTPUT)
            assert f"in use by another vmsensor (process {holder.pid})" in complaint(done, OUTPUT)
        finally:
            holder.stdin.close()
            holder.wait(10)
    assert holder.returncode == OK


def _until(attempt: Callable[[], Done], status: int) -> Done:
    for _ in range(20):
        done = attempt()
        if done.returncode == status:
            return done
    return done


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
            deadline = time.monotonic() + 10
            while not (flows.exists() and flows.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    done = Done([], process.returncode, flows.read_text(), said.decode())
    assert "interrupted" in complaint(done, INTERRUPTED)
    reported = sum(flow["c2s_packets"] + flow["s2c_packets"] for flow in records(done))
    assert f"received {reported} = {reported} in flows" in done.stderr
    assert 0 < reported < most


def test_interrupted_while_waiting_for_input() -> None:
    """Ctrl-C also ends a read whose pipe is silent, with what came before."""
    arguments = command("read", "-", *QUIET)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, env=environment(), **pipes) as process:  # type: ignore[call-overload]
        try:
            process.stdin.write(pcap(FRAMES))
            process.stdin.flush()
            time.sleep(1)  # nothing tells from outside that the packets have been taken
            process.send_signal(signal.SIGINT)
            status = process.wait(10)
        finally:
            process.kill()
            process.stdin.close()
        done = Done(arguments, status, "", process.stderr.read().decode())
    assert "interrupted" in complaint(done, INTERRUPTED)
    assert "received 300 = 300 in flows" in done.stderr
