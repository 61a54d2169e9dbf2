"""Commands that look at windows of the past: ``matrix``, ``dependencies``, ``explain``, ``vms``, ``policy check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from sensor.commands.interrupted import interruptible
from sensor.commands.options import VIEWS, add_options, config_option, format_option, source_argument, view_settings
from sensor.config import OPTIONS
from sensor.output import quiet_when_nobody_reads


@click.command("matrix")
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
@format_option(["table", "csv", "json"])
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
    settings = view_settings(given, config_file)
    from sensor.views.matrix import print_matrix

    with quiet_when_nobody_reads(), interruptible() as stop:
        print_matrix(source, settings, metric, by, tenant, over, form, top, stop)


@click.command("dependencies")
@source_argument
@click.option("--vm", metavar="VM", help="Only what this VM needs, and who needs it; a name, or tenant/name.")
@format_option(["tree", "dot", "mermaid", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def dependencies_command(source: Path, vm: str | None, form: str, config_file: Path | None, **given: Any) -> None:
    """Print which VM needs which, from a capture FILE or a store DIR."""
    settings = view_settings(given, config_file)
    from sensor.views.dependencies import print_dependencies

    with quiet_when_nobody_reads(), interruptible() as stop:
        print_dependencies(source, settings, vm, form, stop)


@click.command("explain")
@click.argument("vm", metavar="VM")
@source_argument
@format_option(["text", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def explain_command(vm: str, source: Path, form: str, config_file: Path | None, **given: Any) -> None:
    """Say why VM was slow or failing: the path along what it needs, down to the likely root."""
    settings = view_settings(given, config_file)
    from sensor.views.explain import print_explanation

    with quiet_when_nobody_reads(), interruptible() as stop:
        print_explanation(vm, source, settings, form, stop)


@click.command("vms")
@source_argument
@format_option(["table", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS and option.name != "memory"])
@config_option
def vms_command(source: Path, form: str, config_file: Path | None, **given: Any) -> None:
    """List the VMs that were heard, by network card: addresses, hypervisor, host, since when; and the mirror's port."""
    settings = view_settings(given, config_file)
    from sensor.views.vms import print_vms

    with quiet_when_nobody_reads(), interruptible() as stop:
        print_vms(source, settings, form, stop)


@click.group("policy")
def policy_group() -> None:
    """Work with policy files."""


@policy_group.command("check")
@click.argument("policy", metavar="POLICY", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@format_option(["table", "json"])
@add_options([option for option in OPTIONS if option.name in VIEWS])
@config_option
def policy_check_command(
    policy: Path, files: tuple[str, ...], form: str, config_file: Path | None, **given: Any
) -> None:
    """List what POLICY does not allow of the flows in capture files, and the rules that were not used."""
    settings = view_settings({**given, "policy": policy}, config_file)
    from sensor.views.policy import check

    with quiet_when_nobody_reads(), interruptible() as stop:
        check(list(files), settings, form, stop)
