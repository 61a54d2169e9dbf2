"""``influx check`` and ``influx setup``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sensor.commands.options import INFLUX, add_options, config_option, influx_settings
from sensor.config import parse_duration
from sensor.errors import DeliveryError, UsageError
from sensor.output import write


@click.group("influx")
def influx_group() -> None:
    """Look at and set up the database that windows are written to."""


@influx_group.command("check")
@add_options(INFLUX)
@config_option
def influx_check_command(config_file: Path | None, **given: Any) -> None:
    """Test whether a sensor can write there and dashboards can read, and say what to fix."""
    settings = influx_settings(given, config_file, "influx check")
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
    settings = influx_settings(given, config_file, "influx setup")
    try:
        retention_ns = parse_duration(retention) if retention else None
    except ValueError as error:
        raise UsageError(f"--retention: {error}") from None
    from sensor.databases.administer import set_up

    for line in set_up(settings, retention_ns, downsample):
        write(f"{line}\n")
