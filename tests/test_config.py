"""Options: what their texts mean, where they come from and which one wins, and what never shows."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sensor import cli
from sensor.analysis.limits import DEFAULTS
from sensor.config import (
    OPTIONS,
    PRIVATE_NETWORKS,
    Settings,
    build,
    load_file,
    options_of,
    parse_count,
    parse_duration,
    parse_network,
    parse_sink,
    parse_size,
    read_token,
)
from sensor.errors import InputError, UsageError
from sensor.sinks.servers import ServerKind

TOKEN = "s3cr3t-t0ken"
SECOND = 10**9


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a server configured."""
    for name in ("URL", "ORG", "TOKEN"):
        monkeypatch.delenv(f"INFLUXDB_V2_{name}", raising=False)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """Write a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "vmsensor.toml"
        path.write_text(text)
        return path

    return write


# ---- texts


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10s", 10 * SECOND), ("10", 10 * SECOND), ("500ms", SECOND // 2), ("250us", 250_000), ("1ns", 1),
        ("1.5m", 90 * SECOND), ("2h", 7200 * SECOND), ("3650d", 3650 * 86400 * SECOND), (" 5 s ", 5 * SECOND),
        ("0.1s", 10**8),
    ],
)  # fmt: skip
def test_durations(text: str, ns: int) -> None:
    """A number and a unit; without a unit, seconds."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1s", "1e3", "ten", "10 sec", "1,5s", "s", "0.1ns", "99999999d", "nan"]
)
def test_no_durations(text: str) -> None:
    """What is not above zero, not below 146 years, or no number is refused with the text quoted."""
    with pytest.raises(ValueError, match=r"is no duration|is out of range") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("64MiB", 2**26), ("2GB", 2 * 10**9), ("64KiB", 2**16), ("100KB", 10**5), ("1GiB", 2**30), ("65536", 2**16),
     ("70000B", 70000), ("3 MiB", 3 * 2**20)],
)  # fmt: skip
def test_sizes(text: str, octets: int) -> None:
    """Binary and decimal units; without a unit, octets."""
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "64M iB", "64Mib", "-1", "1.5GiB", "64MiBs", "MiB"])
def test_no_sizes(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "1B", "63KiB", "2GiB", "99999999GiB"])
def test_sizes_that_no_kernel_gives(text: str) -> None:
    """A capture buffer is not empty, and libpcap counts its octets in an int."""
    with pytest.raises(ValueError, match="is out of range"):
        parse_size(text)


def test_counts() -> None:
    """Whole numbers above zero, their digits grouped or not."""
    assert (parse_count("1"), parse_count("1_000_000"), parse_count(" 7 ")) == (1, 1_000_000, 7)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e6", "1__0", "1_", "0x10", "many"])
def test_no_counts(text: str) -> None:
    """Anything else is refused in the same words."""
    with pytest.raises(ValueError, match="is no whole number above zero"):
        parse_count(text)


def test_prefixes() -> None:
    """IPv4 and IPv6; an address stands for itself, and bits behind the mask are dropped."""
    assert parse_network("10.1.2.3/8") == ipaddress.ip_network("10.0.0.0/8")
    assert parse_network("192.0.2.7") == ipaddress.ip_network("192.0.2.7/32")
    assert parse_network("fd00::/8") == ipaddress.ip_network("fd00::/8")
    for text in ("", "10.0.0.0/33", "fd00::/129", "10.0.0", "example.org"):
        with pytest.raises(ValueError, match="is no address prefix"):
            parse_network(text)


def test_sinks() -> None:
    """Kinds with and without their target; a colon in the target belongs to it."""
    texts = ("store", "store:/var/lib/x", "influx", "json:-", "json:a:b", "table", "none")
    assert [parse_sink(text) for text in texts] == [
        ("store", ""), ("store", "/var/lib/x"), ("influx", ""), ("json", "-"), ("json", "a:b"), ("table", ""),
        ("none", ""),
    ]  # fmt: skip
    for text in ("", "kafka", "json", "json:", "table:x", "influx:http://x", "none:x", "Store"):
        with pytest.raises(ValueError, match=r"is no sink|takes"):
            parse_sink(text)


# ---- the file


def example(name: str) -> tuple[str, Any]:
    """A TOML value for each option, and what it becomes in the settings."""
    return {
        "filter": ("'tcp port 80'", "tcp port 80"),
        "window": ("'1m'", 60 * SECOND),
        "snaplen": ("96", 96),
        "max_flows": ("5000", 5000),
        "idle_timeout": ("7", 7 * SECOND),
        "tcp_idle_timeout": ("0.5", SECOND // 2),
        "active_timeout": ("'1h'", 3600 * SECOND),
        "duplicate_horizon": ("'5ms'", 5_000_000),
        "keep_duplicates": ("true", 0),
        "no_vlan_key": ("true", False),
        "monitored": ("['192.0.2.0/24', 'fd00::/8']", tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "fd00::/8")))),
        "external": ("'prefix'", "prefix"),
        "inventory": ("'vms.csv'", Path("vms.csv")),
        "policy": ("'policy.toml'", Path("policy.toml")),
        "bad_networks": ("'bad.txt'", Path("bad.txt")),
        "memory": ("'known.json'", Path("known.json")),
        "flows": ("'flows.json'", "flows.json"),
        "to": ("['store:x', 'table']", (("store", "x"), ("table", ""))),
        "store": ("'/var/lib/vmsensor'", Path("/var/lib/vmsensor")),
        "store_size": ("'2GiB'", 2 * 2**30),
        "store_age": ("'1h'", 3600 * SECOND),
        "store_sync": ("'segment'", "segment"),
        "sensor_name": ("'tap-7'", "tap-7"),
        "series_budget": ("5000", 5000),
        "influx_url": ("'http://influx:8086'", "http://influx:8086"),
        "influx_org": ("'lab'", "lab"),
        "influx_bucket": ("'traffic'", "traffic"),
        "influx_token_file": ("'{}/token'", TOKEN),
        "influx_ca_file": ("'{}/ca.pem'", "{}/ca.pem"),
        "influx_no_verify": ("true", False),
        "influx_server": ("'influxdb-2'", ServerKind.INFLUXDB_2),
        "influx_timeout": ("'3s'", 3.0),
        "influx_no_gzip": ("true", False),
        "log_format": ("'json'", "json"),
        "log_level": ("'info'", "info"),
        "duration": ("'1h'", 3600 * SECOND),
        "packets": ("100", 100),
        "buffer_size": ("'1MiB'", 2**20),
        "direction": ("'both'", "both"),
        "source": ("'libpcap'", "libpcap"),
        "timestamps": ("'host'", "host"),
        "workers": ("3", 3),
        "user": ("'daemon'", "daemon"),
        "no_nic_setup": ("true", False),
        "cpus": ("'0'", (0,)),
        "link_speed": ("'2.5G'", 2_500_000_000),
        "health_port": ("9465", 9465),
        "no_promiscuous": ("true", False),
    }[name]


SETTING = {
    "keep_duplicates": "duplicate_horizon", "no_vlan_key": "vlan_in_key", "to": "sinks",
    "no_promiscuous": "promiscuous",
    "no_nic_setup": "nic_setup", "influx_token_file": "influx.token", "influx_no_verify": "influx.verify",
    "influx_no_gzip": "influx.gzip",
}  # fmt: skip
"""What an option is called in the settings, where that is not its own name."""


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_a_key(option: Any, toml: Callable[[str], Path], tmp_path: Path) -> None:
    """Each option can stand in the file, arrives in the settings, and differs there from its default."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "ca.pem").write_text("")
    text, value = example(option.name)
    lines = f"{option.name} = {text.format(tmp_path)}\n"
    if option.name.startswith("influx_") and option.name != "influx_url":
        lines += "influx_url = 'http://influx:8086'\n"
    settings = build("capture", {}, toml(lines))
    setting = SETTING.get(option.name, option.name.replace("influx_", "influx."))
    assert _get(settings, setting) == (value.format(tmp_path) if isinstance(value, str) else value)
    if not setting.startswith("influx."):
        assert _get(settings, setting) != _get(build("capture", {}), setting)


def _get(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_a_file_serves_both_commands(toml: Callable[[str], Path]) -> None:
    """What only capture takes is passed over by read."""
    path = toml("duration = '5s'\nwindow = '1s'\n")
    assert load_file(path, "read") == {"window": "1s", "limits": {}}
    assert build("read", {}, path).duration is None
    assert build("capture", {}, path).duration == 5 * SECOND


@pytest.mark.parametrize("given", [{"filter": "tcp"}, {"source": "libpcap"}])
def test_what_goes_through_libpcap_is_stamped_by_the_host(given: dict[str, str]) -> None:
    """So no NIC is asked to stamp what nobody would take."""
    assert build("capture", given).timestamps == "host"
    assert build("capture", {}).timestamps == "auto"


def test_limits_stand_in_a_table_of_their_own(toml: Callable[[str], Path]) -> None:
    """What the file says instead of the defaults; every other limit has its default."""
    limits = build("capture", {}, toml("window = '1s'\n[limits]\nvm_silence = 60\n")).limits
    assert limits == {**DEFAULTS, "vm_silence": 60.0}
    assert build("read", {}).limits == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits = 3", r"\[limits\] is a table"),
        ("[limits]\nvm_silense = 3", r"\[limits\]: unknown limit 'vm_silense'; did you mean 'vm_silence'\?"),
        ("[limits]\nvm_silence = 'long'", r"\[limits\]: vm_silence takes a number, not 'long'"),
        ("[limits]\nscan_theta1 = 0", r"\[limits\]: scan_theta1 has to be less than scan_theta0, and both between"),
        ("[limits]\nscan_beta = 1", r"\[limits\]: scan_alpha has to be less than scan_beta, and both between 0 and 1"),
        ("[limits]\nvm_silence = -1", r"\[limits\]: vm_silence takes a number, not -1"),
        ("windw = '1s'", r"unknown key 'windw'; did you mean 'window'\?"),
        ("xyzzy = 1", "unknown key 'xyzzy'$"),
        ("[influx]\nurl = 'x'", "unknown key 'influx'"),
        ("window = true", "window takes a string or a number"),
        ("window = 1979-05-27", "window takes a string or a number"),
        ("keep_duplicates = 1", "keep_duplicates takes true or false"),
        ("to = 'store'", "to takes a list"),
        ("to = ['kafka']", "to in .*: 'kafka' is no sink"),
        ("window = 'soon'", "window in .*: 'soon' is no duration"),
        ("window = 0", "window in .*: '0' is out of range"),
        ("max_flows = 0", "max_flows in .*: '0' is no whole number"),
        ("max_flows = 1.5", "max_flows in .*: '1.5' is no whole number"),
        ("window = nan", "window in .*: 'nan' is no duration"),
        ("window", "not valid TOML"),
    ],
)
def test_a_wrong_file(text: str, message: str, toml: Callable[[str], Path]) -> None:
    """File, key and what is wrong with it."""
    path = toml(text)
    with pytest.raises(UsageError, match=message) as caught:
        build("capture", {}, path)
    assert str(path) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that is named has to be there, and to be one."""
    for path in (tmp_path / "nosuch.toml", tmp_path):
        with pytest.raises(InputError, match="cannot read the configuration file"):
            build("read", {}, path)


# ---- which one wins


def test_precedence(toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line before file before environment before default."""
    path = toml("influx_url = 'http://file:1'\nwindow = '2s'\nmonitored = ['192.0.2.0/24']\nto = ['none']\n")
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://environment:1")
    monkeypatch.setenv("INFLUXDB_V2_ORG", "environment")
    given = {"influx_url": "http://line:1", "window": "3s", "monitored": ("198.51.100.0/24",), "to": ("table",)}

    def picked(given: dict[str, Any], file: Path | None) -> tuple[Any, ...]:
        settings = build("read", given, file)
        assert settings.influx is not None
        monitored, sink = str(settings.monitored[0]), settings.sinks[0][0]
        return settings.influx.url, settings.influx.org, settings.window, monitored, sink

    assert picked(given, path) == ("http://line:1", "environment", 3 * SECOND, "198.51.100.0/24", "table")
    assert picked({}, path) == ("http://file:1", "environment", 2 * SECOND, "192.0.2.0/24", "none")
    assert picked({}, None) == ("http://environment:1", "environment", 10 * SECOND, "10.0.0.0/8", "store")
    monkeypatch.delenv("INFLUXDB_V2_URL")
    assert build("read", {}).influx is None


def test_an_empty_text_on_the_command_line_wins(toml: Callable[[str], Path]) -> None:
    """--filter '' takes the file's filter away: it was given."""
    assert not build("read", {"filter": ""}, toml("filter = 'tcp'")).filter


def test_defaults() -> None:
    """What the program does when nothing is said."""
    settings = build("capture", {})
    assert (settings.window, settings.max_flows, settings.monitored) == (10 * SECOND, 1_000_000, PRIVATE_NETWORKS)
    assert (settings.sinks, settings.store) == ((("store", ""), ("table", "")), Path("vmsensor-data"))
    assert (settings.vlan_in_key, settings.promiscuous, settings.direction) == (True, True, "in")
    assert settings.sensor_name


@pytest.mark.parametrize("command", ["capture", "read"])
def test_help_shows_every_option(command: str) -> None:
    """Each option of a command, its default and its environment variable."""
    said = CliRunner().invoke(cli.vmsensor, [command, "--help"], terminal_width=200).output
    for option in options_of(command):
        assert option.switch in said
        assert option.env is None or option.env in said
        assert option.default is None or f"[default: {option.default}]" in " ".join(said.split())


# ---- the token


def test_the_token_comes_from_its_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, where one is named; white space around the token is none of it."""
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", " from-environment\n")
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    assert (read_token(path), read_token(None)) == (TOKEN, "from-environment")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o601])
def test_a_token_file_is_its_owners(mode: int, tmp_path: Path) -> None:
    """Any right of others is refused, with what mends it."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        read_token(path)


def test_a_credential_of_systemd_has_an_access_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mask stands where the group's bits are (0440); others have no right there either, and none elsewhere."""
    path = tmp_path / "influx-token"
    path.write_text(TOKEN)
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_token(path) == TOKEN
    path.chmod(0o444)
    with pytest.raises(UsageError, match="can be read by others"):
        read_token(path)
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "of another service"))
    with pytest.raises(UsageError, match="can be read by others"):
        read_token(path)


def test_no_token_file(tmp_path: Path) -> None:
    """One that is named has to be there, to be a file, and to hold text."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o700)
    for path in (tmp_path / "nosuch", directory):
        with pytest.raises(InputError, match="cannot read the token file"):
            read_token(path)
    with pytest.raises((InputError, UsageError), match="token"):
        read_token(binary)


def test_the_token_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can be printed, logged and compared without it."""
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", TOKEN)
    settings = build("read", {"influx_url": "http://influx:8086", "to": ("influx",)})
    assert settings.influx is not None
    assert settings.influx.token == TOKEN
    for shown in (repr(settings), str(settings), f"{settings}", repr(settings.influx), str(settings.influx)):
        assert TOKEN not in shown


def test_settings_are_frozen() -> None:
    """Nobody changes them behind the others' back."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        build("read", {}).window = 1  # type: ignore[misc]
