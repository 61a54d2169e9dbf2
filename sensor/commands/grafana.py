"""``grafana export`` and ``grafana install``."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sensor.commands.options import INFLUX, WINDOW, add_options, config_option
from sensor.config import Settings, build, read_secret
from sensor.errors import UsageError
from sensor.output import write

if TYPE_CHECKING:
    from sensor.grafana import DataSource


@click.group("grafana")
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
