"""Commands for a store: ``show``, ``top``, ``push``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sensor.commands.interrupted import interruptible
from sensor.commands.options import INFLUX, add_options, config_option, influx_settings
from sensor.errors import DamagedInputError
from sensor.output import quiet_when_nobody_reads, write

TOP_SORTS = ("throughput", "packets", "rtt", "loss", "response")
"""Those of ``top.SORTS``, likewise."""


@click.command("show")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--top", default=15, show_default=True, metavar="COUNT", type=click.IntRange(1), help="How many VM pairs to list."
)
def show_command(directory: Path, top: int) -> None:
    """Summarise the windows kept in the store DIR."""
    from sensor.show import show

    with quiet_when_nobody_reads():
        show(directory, top)


@click.command("top")
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

    with quiet_when_nobody_reads(), interruptible("interrupted") as stop:
        top(directory, Choice(sort, tenant, scope), is_once, stop)


@click.command("push")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@add_options(INFLUX)
@config_option
def push_command(directory: Path, config_file: Path | None, **given: Any) -> None:
    """Send the windows kept in the store DIR to InfluxDB; those that it has already are not sent again."""
    settings = influx_settings(given, config_file, "push")
    from sensor.sinks.delivery import push, refused

    sent = push(directory, settings)
    write(f"{sent.windows} windows, {sent.lines} points sent to {settings.url}\n")
    if sent.damaged:
        raise DamagedInputError(
            f"{directory}: {sent.damaged} damaged blocks were passed over; everything else was sent"
        )
    if sent.rejected:
        raise refused(sent.rejected, directory)
