"""Options of ``capture`` and ``read``, one row each: command line, configuration file and documentation follow.

All validation happens here; what comes out is frozen.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sensor import logs
from sensor.errors import InputError, UsageError
from sensor.textfiles import parse_toml, read_text

if TYPE_CHECKING:
    from sensor.sinks.servers import InfluxSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BOTH = ("capture", "read")
SECOND_NS = 1_000_000_000
LIMITS_KEY = "limits"
"""The table of a configuration file that holds the detectors' thresholds."""

LIVE_SNAPLEN = 512
"""Room for headers in tunnels, and for the host name in a DHCP message."""

DEFAULT_SERIES = 100_000
DEFAULT_USER = "nobody"
LIVE_SETTINGS = (
    "duration", "packets", "buffer_size", "direction", "source", "timestamps", "cpus", "user", "link_speed",
    "health_port",
)  # fmt: skip
"""Options of ``capture`` alone, which are fields of the settings as they are."""

SYNCS = ("window", "segment", "never")
SERVERS = ("auto", "influxdb-1", "influxdb-1.8", "influxdb-2", "influxdb-3", "victoriametrics")
"""``auto``, and the values of ``ServerKind``, which a test holds equal; not imported, because it takes time to load."""

MOST_WORKERS = 128
MOST_CONFIGURATION = 2**20
MOST_OCTETS = 262_144
"""libpcap's own bound on a packet (MAXIMUM_SNAPLEN)."""

MOST_FLOWS = 1_000_000_000
"""``VMS_FLOWS_MOST``, which a test holds equal; not imported, because most commands need no table."""

_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS,
             "d": 86400 * SECOND_NS}  # fmt: skip
_SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9,
          "TB": 10**12}  # fmt: skip


def parse_duration(text: str) -> int:
    """``"10s"``, ``"500ms"``, ``"1.5m"`` or plain seconds, in ns."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h|d)?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration; write for example 10s, 500ms, 5m or 2h")
    ns = round(float(match[1]) * _UNITS_NS[match[2] or "s"])
    if not 0 < ns < 2**62:
        raise ValueError(f"{text!r} is out of range; a duration is above zero and below 146 years")
    return ns


def parse_size(text: str) -> int:
    """``"64MiB"``, ``"1GB"`` or plain bytes; a size that the kernel can give a capture buffer."""
    return _octets(text, 2**16, 2**31, "a buffer has from 64KiB to just below 2GiB")


def parse_store_size(text: str) -> int:
    """The same of a store, which has to hold a few segments."""
    return _octets(text, 2**20, 2**60, "a store has at least 1MiB")


def _octets(text: str, least: int, below: int, bounds: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMGT]i?B|B)?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size; write for example 64MiB")
    size = int(match[1]) * _SIZES[match[2] or ""]
    if not least <= size < below:
        raise ValueError(f"{text!r} is out of range; {bounds}")
    return size


def parse_count(text: str) -> int:
    """A whole number above zero; underscores may group the digits."""
    if not re.fullmatch(r"\d+(_\d+)*", text.strip()) or not int(text):
        raise ValueError(f"{text!r} is no whole number above zero")
    return int(text)


def parse_workers(text: str) -> int:
    """How many processes share the packets."""
    workers = parse_count(text)
    if workers > MOST_WORKERS:
        raise ValueError(f"{text!r} is more workers than are of use; at most {MOST_WORKERS}")
    return workers


def parse_port(text: str) -> int:
    """A TCP port of this host."""
    if not re.fullmatch(r"\d{1,5}", text.strip()) or not 0 < int(text) <= 65535:
        raise ValueError(f"{text!r} is no port; write a number from 1 to 65535")
    return int(text)


def parse_cpus(text: str) -> tuple[int, ...]:
    """``0,2-4`` as the numbers of processors that this process may run on."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.strip()):
        raise ValueError(f"{text!r} is no list of processors; write for example 0,2-4")
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    absent = sorted(set(cpus) - os.sched_getaffinity(0))
    if absent or not cpus:
        raise ValueError(f"{text!r}: there is no processor {', '.join(map(str, absent[:3])) or 'in it'} to run on")
    return tuple(cpus)


def one_of(what: str, words: Sequence[str]) -> Callable[[str], str]:
    """A parser that takes one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is no {what}; choose from {', '.join(words)}")
        return text

    return parse


def parse_rate(text: str) -> int:
    """``"10G"`` or plain bits per second, in thousands as links are."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:bit/s|bps)?", text.strip(), re.IGNORECASE)
    rate = round(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if not 0 < rate < 10**15:
        raise ValueError(f"{text!r} is no rate; write for example 10G or 2.5G")
    return rate


def parse_octets(text: str) -> int:
    """A number of octets of one packet."""
    octets = parse_count(text)
    if octets > MOST_OCTETS:
        raise ValueError(f"{text!r} is more than a packet has; at most {MOST_OCTETS:,}")
    return octets


def parse_flows(text: str) -> int:
    """A number of flows that a table can hold; it takes about half a KiB of memory for each that is in use."""
    flows = parse_count(text)
    if flows > MOST_FLOWS:
        raise ValueError(f"{text!r} is more flows than a table can hold; at most {MOST_FLOWS:,}")
    return flows


def parse_network(text: str) -> Network:
    """An address prefix, such as ``10.0.0.0/8``."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address prefix; write for example 10.0.0.0/8 or fd00::/8") from None


def parse_sink(text: str) -> tuple[str, str]:
    """``kind`` or ``kind:target``."""
    kind, _, target = text.partition(":")
    kinds = {"store": "a directory, or nothing for --store's", "influx": "nothing", "json": "a path or -",
             "table": "nothing", "none": "nothing"}  # fmt: skip
    if kind not in kinds:
        raise ValueError(f"{text!r} is no sink; choose from {', '.join(kinds)}")
    if (kind == "json") != bool(target) and kind != "store":
        raise ValueError(f"{text!r}: the sink {kind} takes {kinds[kind]} after the colon")
    return kind, target


@dataclass(frozen=True)
class Option:
    """One option. ``name`` is its TOML key; the command line writes it with dashes.

    ``parse`` makes a value of its text and raises ValueError with what is wrong. A ``flag`` takes no value.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = str
    default: str | None = None
    metavar: str = "TEXT"
    commands: tuple[str, ...] = BOTH
    multiple: bool = False
    flag: bool = False
    env: str | None = None

    @property
    def switch(self) -> str:
        """The option as the command line writes it."""
        return "--" + self.name.replace("_", "-")


OPTIONS: tuple[Option, ...] = (
    Option("filter", "BPF expression; only packets that match are looked at.", metavar="BPF"),
    Option("window", "Length of a window; windows start at multiples of it.", parse_duration, "10s", "DURATION"),
    Option("snaplen", "Octets looked at of each packet; headers are enough. Default: capture "
           f"{LIVE_SNAPLEN}, read all.",
           parse_octets, None, "OCTETS"),
    Option("max_flows", "Most flows held at a time; memory is bounded by it.", parse_flows, "1000000", "COUNT"),
    Option("idle_timeout", "A flow that is silent for so long has ended.", parse_duration, "60s", "DURATION"),
    Option("tcp_idle_timeout", "The same for an established TCP connection.", parse_duration, "5m", "DURATION"),
    Option("active_timeout", "A longer flow is reported in parts in --flows.", parse_duration, "30m", "DURATION"),
    Option("duplicate_horizon", "A copy of a packet within this time, at most, is a mirror duplicate.", parse_duration,
           "10ms", "DURATION"),
    Option("keep_duplicates", "Count mirror duplicates like any packet.", flag=True),
    Option("no_vlan_key", "Do not tell flows apart by VLAN: for mirrors that see both sides of a router.", flag=True),
    Option("monitored", "Prefix whose addresses are VMs; others are 'external'. Repeatable. "
           "Default: the private ranges.", parse_network, None, "PREFIX", multiple=True),
    Option("external", "Names of those who are not VMs: one ('external'), prefix (their /24 or /48), or a file of "
           "prefixes and names, such as an AS table.", str, "one", "one|prefix|FILE"),
    Option("inventory", "File of VMs and their tenants, CSV or TOML; read again when it changes.", Path,
           metavar="FILE"),
    Option("policy", "File of who may talk to whom, TOML; what it forbids becomes events. Read again when it changes.",
           Path, metavar="FILE"),
    Option("bad_networks", "File of prefixes, a line each; talk with them becomes events. Read again when it changes.",
           Path, metavar="FILE"),
    Option("memory", "File that keeps what was learned of VMs and dependencies over restarts. Default: capture: "
           "memory.json in the store; read: none.", Path, metavar="FILE"),
    Option("flows", "Write each finished flow as a JSON line to PATH, - for standard output.", metavar="PATH"),
    Option("to", "Where windows go: store[:DIR], influx, json:PATH, table, none. Repeatable. "
           "Default: store and table.", parse_sink, None, "SINK", multiple=True),
    Option("store", "Directory of the local store, by way of which InfluxDB is written too.", Path, "vmsensor-data",
           "DIR"),
    Option("store_size", "Most octets of the store; beyond, the oldest windows go.", parse_store_size, "10GiB", "SIZE"),
    Option("store_age", "Windows that are older than this go.", parse_duration, None, "DURATION"),
    Option("store_sync", "What a power cut may cost: window (nothing), segment (up to 16 MiB), never (what the kernel "
           "had not written).", one_of("moment to sync", SYNCS), "window", "window|segment|never"),
    Option("sensor_name", "Name of this sensor in every point. Default: the host's name.", metavar="NAME"),
    Option("series_budget", "Most series a day; what is light or new beyond is summed into 'other'.", parse_count,
           str(DEFAULT_SERIES), "COUNT"),
    Option("influx_url", "InfluxDB's address.", metavar="URL", env="INFLUXDB_V2_URL"),
    Option("influx_org", "InfluxDB's organisation (2.x).", metavar="NAME", env="INFLUXDB_V2_ORG"),
    Option("influx_bucket", "Bucket (2.x), or database or database/retention-policy (1.x).", default="vmsensor",
           metavar="NAME"),
    Option("influx_token_file", "File that holds the token and that only you can read; without it, INFLUXDB_V2_TOKEN.",
           Path, metavar="PATH"),
    Option("influx_ca_file", "Certificate authority for InfluxDB's TLS.", Path, metavar="PATH"),
    Option("influx_no_verify", "Do not verify InfluxDB's TLS certificate.", flag=True),
    Option("influx_server", "What the server is: auto (asked), influxdb-1, influxdb-1.8, influxdb-2, influxdb-3 or "
           "victoriametrics.", one_of("kind of server", SERVERS), "auto", "KIND"),
    Option("influx_timeout", "So long a request to InfluxDB may take.", parse_duration, "10s", "DURATION"),
    Option("influx_no_gzip", "Do not compress what is sent to InfluxDB.", flag=True),
    Option("workers", "So many processes share the packets, by pairs of addresses.", parse_workers, "1", "COUNT"),
    Option("log_format", "How messages are said on standard error: for people, or a JSON object a line.",
           one_of("form of a log", logs.FORMATS), "text", "|".join(logs.FORMATS)),
    Option("log_level", "The least important messages that are said.", one_of("level of a log", logs.LEVELS), "warning",
           "|".join(logs.LEVELS)),
    Option("duration", "Stop after so long.", parse_duration, None, "DURATION", ("capture",)),
    Option("packets", "Stop after so many packets.", parse_count, None, "COUNT", ("capture",)),
    Option("buffer_size", "Kernel buffer for bursts.", parse_size, "64MiB", "SIZE", ("capture",)),
    Option("direction", "Packets that the interface receives (in: a mirror port) or also those it sends (both).",
           one_of("direction", ("in", "both")), "in", "in|both", ("capture",)),
    Option("source", "How packets are had of the kernel: by its ring (Ethernet, no --filter), by libpcap, or as fits.",
           one_of("source", ("auto", "ring", "libpcap")), "auto", "auto|ring|libpcap", ("capture",)),
    Option("timestamps", "Who stamps packets: the host, the NIC (adapter), or the NIC where its clock is the system's.",
           one_of("timestamps", ("auto", "host", "adapter")), "auto", "auto|host|adapter", ("capture",)),
    Option("cpus", "Processors that workers are bound to, one each in turn: 2,4-6.", parse_cpus, None, "LIST",
           ("capture",)),
    Option("user", "Who the processes become, started as root; unless it is given, the supervisor becomes the owner of "
           "the place that it writes to.", str, DEFAULT_USER, "NAME", ("capture",)),
    Option("link_speed", "Bits per second of the link from the mirror, where the interface does not know it.",
           parse_rate, None, "RATE", ("capture",)),
    Option("no_nic_setup", "Leave the interface's offloads, ring and state as they are.", flag=True,
           commands=("capture",)),
    Option("health_port", "Answer /metrics (Prometheus), /livez and /readyz at this port of 127.0.0.1.", parse_port,
           None, "PORT", ("capture",)),
    Option("no_promiscuous", "Do not put the interface into promiscuous mode.", flag=True, commands=("capture",)),
)  # fmt: skip

PRIVATE_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(prefix)
    for prefix in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
        "100.64.0.0/10",  # RFC 6598
        "169.254.0.0/16", "fe80::/10",  # link-local: RFC 3927, RFC 4291
        "fc00::/7",  # RFC 4193
    )
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What ``capture`` and ``read`` need, validated. Durations in ns."""

    filter: str | None
    window: int
    snaplen: int | None
    max_flows: int
    idle_timeout: int
    tcp_idle_timeout: int
    active_timeout: int
    duplicate_horizon: int
    vlan_in_key: bool
    monitored: tuple[Network, ...]
    external: str
    inventory: Path | None
    policy: Path | None
    bad_networks: Path | None
    memory: Path | None
    limits: Mapping[str, float]
    configuration: Path | None
    flows: str | None
    sinks: tuple[tuple[str, str], ...]
    store: Path
    store_size: int
    store_age: int | None
    store_sync: Literal["window", "segment", "never"]
    live: bool
    series_budget: int
    sensor_name: str
    log_format: str
    log_level: str
    influx: InfluxSettings | None
    duration: int | None = None
    packets: int | None = None
    buffer_size: int = 64 * 2**20
    direction: str = "in"
    source: str = "auto"
    timestamps: str = "auto"
    workers: int = 1
    cpus: tuple[int, ...] | None = None
    promiscuous: bool = True
    nic_setup: bool = True
    user: str = DEFAULT_USER
    link_speed: int | None = None
    health_port: int | None = None


def options_of(command: str) -> list[Option]:
    """The options that ``command`` takes."""
    return [option for option in OPTIONS if command in option.commands]


def load_file(path: Path, command: str) -> dict[str, Any]:
    """The option values of a configuration file, each as the command line would give it."""
    given = parse_toml(read_text(path, "configuration file", MOST_CONFIGURATION, "a configuration is short"), path)
    limits = given.pop(LIMITS_KEY, {})
    for key, value in given.items():
        _check(_known(key, path), value, path)
    taken = {key: value for key, value in given.items() if command in _known(key, path).commands}
    return {**taken, LIMITS_KEY: limits}


def limits_from(given: object, path: Path | None) -> Mapping[str, float]:
    """The thresholds that the file gives; the rest are the detectors' defaults."""
    if given == {}:
        return {}
    from sensor.analysis.limits import limits_with  # here, because the detectors take time to load

    if not isinstance(given, dict):
        raise UsageError(f"{path}: [{LIMITS_KEY}] is a table: a line for each limit, name = number")
    try:
        return limits_with(given)
    except ValueError as error:
        raise UsageError(f"{path}: [{LIMITS_KEY}]: {error}") from None


def _known(key: str, path: Path) -> Option:
    names = {option.name: option for option in OPTIONS}
    if key not in names:
        near = difflib.get_close_matches(key, names, 1)
        raise UsageError(f"{path}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return names[key]


def _check(option: Option, value: object, path: Path) -> None:
    if option.flag:
        wanted, fits = "true or false", isinstance(value, bool)
    elif option.multiple:
        wanted, fits = f"a list, for example {option.name} = [...]", isinstance(value, list)
    else:
        wanted, fits = "a string or a number", isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if not fits:
        raise UsageError(f"{path}: {option.name} takes {wanted}")


def build(command: str, given: Mapping[str, Any], file: Path | None = None) -> Settings:
    """Settings from the command line's values, then the configuration file, the environment and the defaults."""
    from_file = load_file(file, command) if file else {}
    value = {o.name: _value(o, given, from_file, file) for o in options_of(command)}
    influx = influx_settings(value)
    sinks = tuple(value["to"] or (("store", ""), ("table", "")))
    if influx is None and any(kind == "influx" for kind, _ in sinks):
        raise UsageError("--to influx needs a server: give --influx-url, or set INFLUXDB_V2_URL")
    if len(sinks) > 1 and ("none", "") in sinks:
        raise UsageError("--to none means no other sink; leave it out or leave out the others")
    keeps = any(kind in ("store", "influx") for kind, _ in sinks)
    live = {name: value[name] for name in LIVE_SETTINGS if command == "capture"}
    if value["workers"] > 1 and live.get("packets") is not None:
        raise UsageError("--packets counts what one process captures; leave it or --workers out, or use --duration")
    if live.get("source") == "ring" and value["filter"]:
        raise UsageError("--filter is libpcap's: leave it out, or choose --source libpcap")
    if value["filter"] or live.get("source") == "libpcap":
        if live.get("timestamps") == "adapter":
            raise UsageError("--timestamps adapter is the ring's: leave --filter and --source libpcap out")
        live["timestamps"] = "host"
    return Settings(
        filter=value["filter"],
        window=value["window"],
        snaplen=value["snaplen"],
        max_flows=value["max_flows"],
        idle_timeout=value["idle_timeout"],
        tcp_idle_timeout=value["tcp_idle_timeout"],
        active_timeout=value["active_timeout"],
        duplicate_horizon=0 if value["keep_duplicates"] else value["duplicate_horizon"],
        vlan_in_key=not value["no_vlan_key"],
        monitored=tuple(value["monitored"]) or PRIVATE_NETWORKS,
        external=value["external"],
        inventory=value["inventory"],
        policy=value["policy"],
        bad_networks=value["bad_networks"],
        memory=value["memory"] or (value["store"] / "memory.json" if command == "capture" and keeps else None),
        limits=limits_from(from_file.get(LIMITS_KEY, {}), file),
        configuration=file,
        flows=value["flows"],
        sinks=sinks,
        store=value["store"],
        store_size=value["store_size"],
        store_age=value["store_age"],
        store_sync=value["store_sync"],
        live=command == "capture",
        series_budget=value["series_budget"],
        sensor_name=value["sensor_name"] or platform.node() or "vmsensor",
        log_format=value["log_format"],
        log_level=value["log_level"],
        influx=influx,
        workers=value["workers"],
        promiscuous=not value.get("no_promiscuous"),
        nic_setup=not value.get("no_nic_setup"),
        **live,
    )


def _value(option: Option, given: Mapping[str, Any], from_file: Mapping[str, Any], file: Path | None) -> Any:
    raw, where = _raw(option, given, from_file, file)
    if option.flag:
        return bool(raw)
    try:
        if option.multiple:
            return [option.parse(str(item)) for item in raw or ()]
        return None if raw is None else option.parse(str(raw))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _raw(option: Option, given: Mapping[str, Any], from_file: Mapping[str, Any], file: Path | None) -> tuple[Any, str]:
    """The value as it was written, and where: the first place that has one."""
    if given.get(option.name) not in (None, (), False):
        return given[option.name], option.switch
    if option.name in from_file:
        return from_file[option.name], f"{option.name} in {file}"
    if option.env and os.environ.get(option.env):
        return os.environ[option.env], option.env
    return option.default, option.switch


def influx_settings(value: Mapping[str, Any]) -> InfluxSettings | None:
    """The server to write to; None when no URL was given."""
    if not value["influx_url"]:
        return None
    from sensor.sinks.servers import InfluxSettings, ServerKind  # here: its HTTP client doubles the start-up time

    return InfluxSettings(
        url=value["influx_url"],
        bucket=value["influx_bucket"],
        org=value["influx_org"] or "",
        token=read_token(value["influx_token_file"]),
        ca_file=str(value["influx_ca_file"]) if value["influx_ca_file"] else None,
        verify=not value["influx_no_verify"],
        timeout=value["influx_timeout"] / SECOND_NS,
        gzip=not value["influx_no_gzip"],
        server=None if value["influx_server"] == "auto" else ServerKind(value["influx_server"]),
    )


def read_token(path: Path | None) -> str:
    """The token from its file, else from the environment; empty when there is none."""
    return os.environ.get("INFLUXDB_V2_TOKEN", "").strip() if path is None else read_secret(path)


def _is_credential(path: Path) -> bool:
    """Whether systemd has put it there for this service: the bits of the group are the mask of its access list."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.resolve().is_relative_to(Path(directory or "/").resolve())


def read_secret(path: Path) -> str:
    """A token from its file, which nobody else may read."""
    try:
        if path.stat().st_mode & (0o007 if _is_credential(path) else 0o077):
            raise UsageError(f"{path}: the token file can be read by others; run: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{path}: cannot read the token file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: no token file: it holds something else than text") from None
