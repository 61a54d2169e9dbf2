"""The command line: reads options, runs a command, and turns every expected failure into one line and its status."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

# Before numpy is loaded: its linear algebra, which is not used here, would start a thread for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from sensor import __version__, logs
from sensor.config import OPTIONS, Option, Settings, build, options_of, parse_duration, read_secret
from sensor.errors import INTERRUPTED, DamagedInputError, DeliveryError, InterfaceError, SensorError, UsageError
from sensor.output import abandon_standard_output, quiet_when_nobody_reads, write
from sensor.stopping import Stop, stop_on_signals

if TYPE_CHECKING:
    from sensor.grafana import DataSource
    from sensor.sinks.servers import InfluxSettings

VNI = click.IntRange(1, 2**24 - 1)
GUIDE_KINDS = ("nexus", "dvs", "ovs", "linux", "aws", "azure", "gcp", "proxmox", "kvm")
"""Those of ``mirrorguide.GUIDES``, which a test holds equal."""
TOP_SORTS = ("throughput", "packets", "rtt", "loss", "response")
"""Those of ``top.SORTS``, likewise."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def add_options(options: list[Option]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these rows of ``config.OPTIONS``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = _click_option(option)(function)
        return function

    return decorate


def _click_option(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    shown = f" [default: {option.default}]" if option.default else ""
    source = f" [environment: {option.env}]" if option.env else ""
    text = option.help + source + shown
    if option.flag:
        return click.option(option.switch, option.name, is_flag=True, help=text)
    return click.option(option.switch, option.name, metavar=option.metavar, multiple=option.multiple, help=text)


config_option = click.option(
    "--config", "config_file", metavar="FILE", type=click.Path(path_type=Path),
    help="TOML file; every option is a key of the same name. The command line wins.",
)  # fmt: skip


@click.group(context_settings=CONTEXT, no_args_is_help=True)
@click.version_option(__version__, prog_name="vmsensor", message="%(prog)s %(version)s")
def vmsensor() -> None:
    """Measure VM-to-VM traffic from a mirror port: who talks to whom, throughput, latency, loss."""


@vmsensor.command("capture")
@click.argument("interface")
@add_options(options_of("capture"))
@config_option
def capture_command(interface: str, config_file: Path | None, **given: Any) -> None:
    """Measure the traffic that INTERFACE receives, until Ctrl-C, SIGTERM, --duration or --packets."""
    settings = build("capture", given, config_file)
    logs.setup(settings.log_format, settings.log_level)
    from sensor.live import capture

    capture(settings, interface)


@vmsensor.command("read")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@add_options(options_of("read"))
@config_option
def read_command(files: tuple[str, ...], config_file: Path | None, **given: Any) -> None:
    """Measure capture files (pcap, pcapng, gzipped ones; - for standard input), in order of their first packets."""
    settings = build("read", given, config_file)
    logs.setup(settings.log_format, settings.log_level)
    from sensor.runner import read_files

    with _progress(files) as advance, _interruptible() as stop:
        read_files(settings, list(files), advance, stop)


@vmsensor.command("interfaces")
def interfaces_command() -> None:
    """List the interfaces that can be captured on."""
    from sensor.nic import interfaces

    with quiet_when_nobody_reads():
        write("".join(f"{i.name:<16} {i.state:<8} {i.mac or '-':<18} mtu {i.mtu}\n" for i in interfaces()))


@vmsensor.command("show")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--top", default=15, show_default=True, metavar="COUNT", type=click.IntRange(1), help="How many VM pairs to list."
)
def show_command(directory: Path, top: int) -> None:
    """Summarise the windows kept in the store DIR."""
    from sensor.show import show

    with quiet_when_nobody_reads():
        show(directory, top)


@vmsensor.command("top")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    type=click.Choice(TOP_SORTS),
    default=TOP_SORTS[0],
    show_default=True,
    help="What to order by, the largest first.",
)
@click.option("--tenant", metavar="NAME", help="Only pairs of which this tenant is at least one side.")
@click.option("--scope", type=click.Choice(["east-west", "inter-tenant", "north-south", "unknown"]), help="Only these.")
@click.option("--once", "is_once", is_flag=True, help="Print the newest window and end, as without a terminal.")
def top_command(directory: Path, sort: str, tenant: str | None, scope: str | None, is_once: bool) -> None:
    """Watch a running sensor by the store DIR that it writes: the newest window's VM pairs, losses and open events."""
    from sensor.views.top import Choice
    from sensor.views.topkeys import top

    with quiet_when_nobody_reads(), _interruptible("interrupted") as stop:
        top(directory, Choice(sort, tenant, scope), is_once, stop)


@vmsensor.command("push")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@add_options([option for option in OPTIONS if option.name.startswith("influx_")])
@config_option
def push_command(directory: Path, config_file: Path | None, **given: Any) -> None:
    """Send the windows kept in the store DIR to InfluxDB; those that it has already are not sent again."""
    settings = _influx_settings(given, config_file, "push")
    from sensor.sinks.delivery import push, refused

    sent = push(directory, settings)
    write(f"{sent.windows} windows, {sent.lines} points sent to {settings.url}\n")
    if sent.damaged:
        raise DamagedInputError(
            f"{directory}: {sent.damaged} damaged blocks were passed over; everything else was sent"
        )
    if sent.rejected:
        raise refused(sent.rejected, directory)


INFLUX = [option for option in OPTIONS if option.name.startswith("influx_")]
(WINDOW,) = (option for option in OPTIONS if option.name == "window")


def _influx_settings(given: dict[str, Any], config_file: Path | None, command: str) -> InfluxSettings:
    settings = build("read", {**given, "to": ("none",)}, config_file).influx
    if settings is None:
        raise UsageError(f"{command} needs a server: give --influx-url, or set INFLUXDB_V2_URL")
    return settings


@vmsensor.group("influx")
def influx_group() -> None:
    """Look at and set up the database that windows are written to."""


@influx_group.command("check")
@add_options(INFLUX)
@config_option
def influx_check_command(config_file: Path | None, **given: Any) -> None:
    """Test whether a sensor can write there and dashboards can read, and say what to fix."""
    settings = _influx_settings(given, config_file, "influx check")
    from sensor.databases.administer import check

    lines = check(settings)
    for line in lines:
        write(f"{'ok  ' if line.is_good else 'FAIL'}  {line.what:<10} {line.text}\n")
    if failed := [line.what for line in lines if not line.is_good]:
        raise DeliveryError(f"{settings.url} will not do yet: {', '.join(failed)}; see above")


@influx_group.command("setup")
@click.option(
    "--retention",
    metavar="DURATION",
    help="How long points are kept, for example 30d; that of a database that exists is only changed when this is given."
    "  [default: 30d for a new one]",
)
@click.option("--downsample", is_flag=True, help="Let the server keep points of five minutes too, for two years.")
@add_options(INFLUX)
@config_option
def influx_setup_command(retention: str | None, downsample: bool, config_file: Path | None, **given: Any) -> None:
    """Make the database or bucket, where the server lets it be made from here; nothing is ever removed."""
    settings = _influx_settings(given, config_file, "influx setup")
    try:
        retention_ns = parse_duration(retention) if retention else None
    except ValueError as error:
        raise UsageError(f"--retention: {error}") from None
    from sensor.databases.administer import set_up

    for line in set_up(settings, retention_ns, downsample):
        write(f"{line}\n")


@vmsensor.group("grafana")
def grafana_group() -> None:
    """Bring the dashboards into a Grafana."""


@grafana_group.command("export")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seen-at",
    metavar="PATH",
    default="/etc/grafana/provisioning",
    show_default=True,
    help="Where Grafana sees DIR: the directory of its provisioning files.",
)
@click.option("--downsampled", is_flag=True, help="A data source for the points of five minutes too.")
@add_options([WINDOW, *INFLUX])
@config_option
def grafana_export_command(
    directory: Path, seen_at: str, downsampled: bool, config_file: Path | None, **given: Any
) -> None:
    """Write provisioning files, data source and dashboards, that a stock Grafana reads from DIR."""
    settings = build("read", {**given, "to": ("none",)}, config_file)
    if settings.influx is None:
        settings = build("read", {**given, "to": ("none",), "influx_url": "http://localhost:8086"}, config_file)
    from sensor.grafana.export import export

    for path in export(directory, _data_sources(settings, downsampled), seen_at):
        write(f"{path}\n")


@grafana_group.command("install")
@click.option("--url", metavar="URL", required=True, help="Grafana's address.")
@click.option(
    "--token-file",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="File that holds a service account's token, or user:password, and that only you can read;"
    " without it, GRAFANA_TOKEN.",
)
@click.option("--ca-file", metavar="PATH", type=click.Path(path_type=Path), help="Authority for Grafana's TLS.")
@click.option("--downsampled", is_flag=True, help="A data source for the points of five minutes too.")
@add_options([WINDOW, *INFLUX])
@config_option
def grafana_install_command(
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    downsampled: bool,
    config_file: Path | None,
    **given: Any,
) -> None:
    """Put the dashboards into a running Grafana over its HTTP API; the data source too, when InfluxDB is named."""
    secret = read_secret(token_file) if token_file else os.environ.get("GRAFANA_TOKEN", "").strip()
    if not secret:
        raise UsageError("grafana install needs a token: give --token-file, or set GRAFANA_TOKEN")
    settings = build("read", {**given, "to": ("none",)}, config_file)
    from sensor.grafana.install import Grafana, install

    grafana = Grafana(url, secret, str(ca_file) if ca_file else None)
    with contextlib.closing(grafana):
        for line in install(grafana, _data_sources(settings, downsampled)):
            write(f"{line}\n")


def _data_sources(settings: Settings, downsampled: bool) -> list[DataSource]:
    if settings.influx is None:
        return []
    from sensor.grafana import DataSource

    source = DataSource(settings.influx, settings.window)
    return [source, replace(source, is_long=True)] if downsampled else [source]


VIEWS = ("filter", "window", "keep_duplicates", "no_vlan_key", "monitored", "inventory", "memory")
"""Options of the commands that look at windows of the past; of a store, the windows are as they were written."""

source_argument = click.argument("source", metavar="FILE|DIR", type=click.Path(path_type=Path))


def _format_option(choices: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--format", "form", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print it."
    )


def _view_settings(given: dict[str, Any], config_file: Path | None) -> Settings:
    return build("read", {**given, "to": ("none",)}, config_file)


@vmsensor.command("matrix")
@source_argument
@click.option(
    "--metric",
    type=click.Choice(["bytes", "throughput", "rtt", "waiting", "loss"]),
    default="bytes",
    show_default=True,
    help="What the cells hold.",
)
@click.option("--by", type=click.Choice(["vm", "tenant"]), default="vm", show_default=True, help="Between whom.")
@click.option("--tenant", metavar="NAME", help="Only what is within this tenant.")
@click.option(
    "--over",
    type=click.Choice(["all", "window"]),
    default="all",
    show_default=True,
    help="One matrix of the whole time, or one of each window.",
)
@click.option(
    "--top",
    metavar="COUNT",
    type=click.IntRange(1),
    help="Only those with most octets.  [default: 8 in a table, else all]",
)
@_format_option(["table", "csv", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def matrix_command(
    source: Path,
    metric: str,
    by: Literal["vm", "tenant"],
    tenant: str | None,
    over: str,
    top: int | None,
    form: str,
    config_file: Path | None,
    **given: Any,
) -> None:
    """Print the traffic matrix of a capture FILE or a store DIR: who sent whom how much, how late, with what loss."""
    settings = _view_settings(given, config_file)
    from sensor.views.matrix import print_matrix

    with quiet_when_nobody_reads(), _interruptible() as stop:
        print_matrix(source, settings, metric, by, tenant, over, form, top, stop)


@vmsensor.command("dependencies")
@source_argument
@click.option("--vm", metavar="VM", help="Only what this VM needs, and who needs it; a name, or tenant/name.")
@_format_option(["tree", "dot", "mermaid", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def dependencies_command(source: Path, vm: str | None, form: str, config_file: Path | None, **given: Any) -> None:
    """Print which VM needs which, from a capture FILE or a store DIR."""
    settings = _view_settings(given, config_file)
    from sensor.views.dependencies import print_dependencies

    with quiet_when_nobody_reads(), _interruptible() as stop:
        print_dependencies(source, settings, vm, form, stop)


@vmsensor.command("explain")
@click.argument("vm", metavar="VM")
@source_argument
@_format_option(["text", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def explain_command(vm: str, source: Path, form: str, config_file: Path | None, **given: Any) -> None:
    """Say why VM was slow or failing: the path along what it needs, down to the likely root."""
    settings = _view_settings(given, config_file)
    from sensor.views.explain import print_explanation

    with quiet_when_nobody_reads(), _interruptible() as stop:
        print_explanation(vm, source, settings, form, stop)


@vmsensor.command("vms")
@source_argument
@_format_option(["table", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS and option.name != "memory"])
@config_option
def vms_command(source: Path, form: str, config_file: Path | None, **given: Any) -> None:
    """List the VMs that were heard, by network card: addresses, hypervisor, host, since when; and the mirror's port."""
    settings = _view_settings(given, config_file)
    from sensor.views.vms import print_vms

    with quiet_when_nobody_reads(), _interruptible() as stop:
        print_vms(source, settings, form, stop)


DOCTOR = ("max_flows", "store", "store_size", "user")


@vmsensor.command("doctor")
@click.argument("interface", required=False)
@add_options([option for option in OPTIONS if option.name in DOCTOR] + INFLUX)
@config_option
def doctor_command(interface: str | None, config_file: Path | None, **given: Any) -> None:
    """Look at what a capture needs of this host: kernel, rights, INTERFACE, memory, disk, InfluxDB; say what to fix."""
    settings = build("capture", given, config_file)
    from sensor.views.doctor import examine

    failed = []
    for line in examine(settings, interface):
        write(f"{line.grade:<5} {line.what:<18} {line.text}\n")
        failed += [line.what] if line.grade == "FAIL" else []
    if failed:
        raise SensorError(f"not ready for a capture: {', '.join(failed)}; see above")


@vmsensor.group("mirror")
def mirror_group() -> None:
    """Work with the mirror that feeds a sensor."""


@mirror_group.command("add")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--to", "target", metavar="INTERFACE", help="Where copies go: an interface of this host.")
@click.option("--to-host", metavar="ADDRESS", help="Or a sensor on another host, by VXLAN.")
@click.option("--vni", default=4242, show_default=True, metavar="VNI", type=VNI, help="Of it.")
@click.option(
    "--direction",
    type=click.Choice(["ingress", "egress", "both"]),
    default="ingress",
    show_default=True,
    help="What the host receives on the source (a VM sends), what it sends there, or both.",
)
def mirror_add_command(
    sources: tuple[str, ...], target: str | None, to_host: str | None, vni: int, direction: str
) -> None:
    """Mirror SOURCE..., ports of VMs on this host (tap, veth, bridge), in place of what was before.

    Ports of Open vSwitch are mirrored by Open vSwitch, its bridges, where they are named, whole; others by tc mirred.
    """
    if (target is None) == (to_host is None):
        raise UsageError("a mirror needs one destination: give --to, or --to-host")
    from sensor.mirror import HOOKS, Destination
    from sensor.mirrors import Mirrors

    destination = Destination(target, to_host or "", vni)
    with Mirrors() as mirrors:
        for one in mirrors.add(sources, destination, list(HOOKS) if direction == "both" else [direction]):
            write(f"{one.source} {one.direction} is mirrored to {one.target}\n")


@mirror_group.command("list")
def mirror_list_command() -> None:
    """List what is mirrored by `mirror add` on this host."""
    from sensor.mirrors import Mirrors

    with Mirrors() as mirrors, quiet_when_nobody_reads():
        write("".join(f"{one.source:<16} {one.direction:<8} {one.target}\n" for one in mirrors.listed()))


@mirror_group.command("remove")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
def mirror_remove_command(sources: tuple[str, ...]) -> None:
    """End the mirrors of SOURCE..., or all that `mirror add` has made on this host."""
    from sensor.mirrors import Mirrors

    with Mirrors() as mirrors:
        for one in mirrors.remove(sources):
            write(f"{one.source} {one.direction} is not mirrored any more\n")


@mirror_group.command("guide")
@click.argument("kind", type=click.Choice(list(GUIDE_KINDS)))
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("--to", "destination", default="", metavar="NAME", help="The port, VM or interface that copies go to.")
@click.option("--to-host", default="192.0.2.7", show_default=True, metavar="ADDRESS", help="A sensor on another host.")
@click.option("--vlan", default="10", show_default=True, metavar="VLAN", help="A VLAN to mirror, or to mirror into.")
@click.option(
    "--session", default=1, show_default=True, metavar="NUMBER", type=click.IntRange(1), help="Of the mirror."
)
@click.option(
    "--vni", default=4242, show_default=True, metavar="VNI", type=click.IntRange(1, 2**24 - 1), help="Of VXLAN."
)
def mirror_guide_command(
    kind: str, sources: tuple[str, ...], destination: str, to_host: str, vlan: str, session: int, vni: int
) -> None:
    """Print how to mirror SOURCE... on a switch, hypervisor or cloud that this program cannot set up itself."""
    from sensor.views.mirrorguide import Site, guide

    with quiet_when_nobody_reads():
        write(guide(kind, Site(sources, destination, to_host, vlan, session, vni)))


@mirror_group.command("verify")
@click.argument("interface")
@click.option(
    "--seconds", default=5.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0.5, 3600), help="How long."
)
def mirror_verify_command(interface: str, seconds: float) -> None:
    """Look at what comes to INTERFACE: directions, duplicates, tags, tunnels, damage; and say what to change."""
    given = {"to": ("none",), "duration": f"{seconds}s", "window": "1s"}
    settings = build("capture", given)
    from sensor.live import capture
    from sensor.sinks.callback import CallbackSink
    from sensor.views.mirror import Evidence, verdicts

    evidence = Evidence()
    capture(settings, interface, [CallbackSink(evidence.take)], [evidence])
    told = list(verdicts(evidence, seconds))
    for line in told:
        write(f"{line.grade:<5} {line.what:<13} {line.text}\n")
    if any(line.grade == "FAIL" for line in told):
        raise InterfaceError(f"{interface}: the mirror delivers nothing; see above")


@vmsensor.group("policy")
def policy_group() -> None:
    """Work with policy files."""


@policy_group.command("check")
@click.argument("policy", metavar="POLICY", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_format_option(["table", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def policy_check_command(
    policy: Path, files: tuple[str, ...], form: str, config_file: Path | None, **given: Any
) -> None:
    """List what POLICY does not allow of the flows in capture files, and the rules that were not used."""
    settings = _view_settings({**given, "policy": policy}, config_file)
    from sensor.views.policy import check

    with quiet_when_nobody_reads(), _interruptible() as stop:
        check(list(files), settings, form, stop)


@contextlib.contextmanager
def _progress(files: tuple[str, ...]) -> Iterator[Callable[[int], None] | None]:
    """A progress bar over the files' octets, on a terminal only."""
    sizes = [os.path.getsize(path) for path in files if os.path.isfile(path)]
    if not sys.stderr.isatty() or len(sizes) < len(files):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress(
        "reading", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task("", total=sum(sizes))
        yield lambda octets: bar.advance(task, octets)


class Interrupted(SensorError):
    """Ctrl-C or SIGTERM ended the command early."""

    exit_status = INTERRUPTED


@contextlib.contextmanager
def _interruptible(said: str = "interrupted; the packets read so far are counted") -> Iterator[Stop]:
    """A signal ends the command early, as interrupted; what has been read so far is still written."""
    with stop_on_signals() as stop:
        try:
            yield stop
        except SensorError:
            if not stop():
                raise
    if stop():
        raise Interrupted(said)


def fail(error: SensorError) -> NoReturn:
    """Say what failed and end with its status."""
    logs.failure(str(error), error.exit_status)
    sys.exit(error.exit_status)


def main() -> None:
    """Entry point."""
    logs.setup("text", "warning")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names need not be UTF-8
    try:
        # Not by way of click's own main, which has its own idea of what a reader that leaves means.
        with vmsensor.make_context("vmsensor", sys.argv[1:]) as context:
            vmsensor.invoke(context)
    except BrokenPipeError:
        abandon_standard_output()  # --help or --version, and a reader that has seen enough
    except SensorError as error:
        fail(error)
    except click.exceptions.Exit as asked:
        sys.exit(asked.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail(Interrupted("interrupted"))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
