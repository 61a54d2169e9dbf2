"""Options that several commands have, from the table in ``config.py``, and the settings that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sensor.config import OPTIONS, Option, Settings, build
from sensor.errors import UsageError

if TYPE_CHECKING:
    from sensor.sinks.servers import InfluxSettings


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


INFLUX = [option for option in OPTIONS if option.name.startswith("influx_")]
(WINDOW,) = (option for option in OPTIONS if option.name == "window")


def influx_settings(given: dict[str, Any], config_file: Path | None, command: str) -> InfluxSettings:
    """The server that a command needs; UsageError when none is named."""
    settings = build("read", {**given, "to": ("none",)}, config_file).influx
    if settings is None:
        raise UsageError(f"{command} needs a server: give --influx-url, or set INFLUXDB_V2_URL")
    return settings


VIEWS = ("filter", "window", "keep_duplicates", "no_vlan_key", "monitored", "inventory", "memory")
"""Options of the commands that look at windows of the past; of a store, the windows are as they were written."""

source_argument = click.argument("source", metavar="FILE|DIR", type=click.Path(path_type=Path))


def format_option(choices: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--format``, of which the first choice is the default."""
    return click.option(
        "--format", "form", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print it."
    )


def view_settings(given: dict[str, Any], config_file: Path | None) -> Settings:
    """Of a command that looks at windows, and writes none."""
    return build("read", {**given, "to": ("none",)}, config_file)
