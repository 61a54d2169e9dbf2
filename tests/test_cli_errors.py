"""Bad input, as a user meets it: one clear line on standard error, the documented status, nothing lost before it."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pcaps.generator.files import pcap, pcapng
from tests.command import (
    DAMAGED,
    DEMO,
    INPUT,
    INTERFACE,
    OK,
    PRIVILEGE,
    QUIET,
    TOTALS,
    USAGE,
    Done,
    complaint,
    records,
    vmsensor,
    without,
)
from tests.needs import PCAPS, need_root
from tests.streams import MILLISECOND, START, udp_frame

TOKEN = "s3cr3t-t0ken"

FRAMES = [
    (START + i * MILLISECOND, udp_frame(f"10.0.0.{i % 7}", 40000 + i, "10.0.9.9", 53, b"x" * (i % 50), ident=i))
    for i in range(300)
]


def flows_of(done: Done) -> dict[str, int]:
    """Packets by flow."""
    return {flow["community_id"]: flow["c2s_packets"] + flow["s2c_packets"] for flow in records(done)}


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


@pytest.mark.parametrize("bpf", ["tcp prot 80", "net 10.0.0.0/99", "("])
def test_an_invalid_filter(bpf: str) -> None:
    """The message is libpcap's, with the filter beside it."""
    assert f"--filter {bpf!r}: " in complaint(vmsensor("read", DEMO, "--filter", bpf, *QUIET), USAGE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--window", "soon"], "--window: 'soon' is no duration; write for example 10s"),
        (["--window", "0s"], "--window: '0s' is out of range"),
        (["--max-flows", "0"], "--max-flows: '0' is no whole number above zero"),
        (["--max-flows", str(2**40)], "max"),
        (["--max-flows", str(2**62)], "max"),
        (["--max-flows", str(10**20)], "max"),
        (["--monitored", "10.0.0.0/33"], "--monitored: '10.0.0.0/33' is no address prefix"),
        (["--to", "kafka"], "--to: 'kafka' is no sink; choose from store, influx, json, table, none"),
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
    """A command that is unknown or not complete: one line, status 2."""
    said = complaint(vmsensor(*arguments), USAGE)
    assert re.search("No such command|Missing argument|requires an argument", said)


def test_who_asks_for_nothing_gets_the_help() -> None:
    """It says what there is, in many lines, and no failure."""
    said = vmsensor("mirror")
    assert "Usage: vmsensor mirror [OPTIONS] COMMAND" in said.stdout + said.stderr
    assert "vmsensor: " not in said.stderr


NAMES = {"markup": b"[bold]", "bracket": b"[", "tag": b"tag=a,b c", "line": b"two\nlines", "octets": b"\xff\xfe"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_strange_names(name: bytes, tmp_path: Path) -> None:
    """Any file name that the system allows can be read and kept under."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
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
        (b"\xff\xfe", "text: not UTF-8; save the file as UTF-8"),
        (b"window = [", "not valid TOML"),
        (b"window = 0", "window in"),
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
    server = ("--to", "influx", "--influx-url", "http://127.0.0.1:1")
    said = complaint(vmsensor("read", DEMO, *server, "--influx-token-file", token), USAGE)
    assert f"chmod 600 {token}" in said
    assert TOKEN not in said


def test_a_token_file_that_holds_no_text(tmp_path: Path) -> None:
    """Octets that are no text are refused in one line."""
    token = tmp_path / "token"
    token.write_bytes(b"\xff\xfe\x00")
    token.chmod(0o600)
    server = ("--to", "influx", "--influx-url", "http://127.0.0.1:1")
    done = vmsensor("read", DEMO, *server, "--influx-token-file", token, cwd=tmp_path)
    assert str(token) in complaint(done, done.returncode)
    assert done.returncode in (USAGE, INPUT)
