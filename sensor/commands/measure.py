"""``capture`` and ``read``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sensor import logs
from sensor.commands.interrupted import interruptible
from sensor.commands.options import add_options, config_option
from sensor.config import build, options_of
from sensor.garbage import collect_seldom


@click.command("capture")
@click.argument("interface")
@add_options(options_of("capture"))
@config_option
def capture_command(interface: str, config_file: Path | None, **given: Any) -> None:
    """Measure the traffic that INTERFACE receives, until Ctrl-C, SIGTERM, --duration or --packets."""
    settings = build("capture", given, config_file)
    logs.setup(settings.log_format, settings.log_level)
    from sensor.live import capture

    collect_seldom()
    capture(settings, interface)


@click.command("read")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@add_options(options_of("read"))
@config_option
def read_command(files: tuple[str, ...], config_file: Path | None, **given: Any) -> None:
    """Measure capture files (pcap, pcapng, gzipped ones; - for standard input), in order of their first packets."""
    settings = build("read", given, config_file)
    logs.setup(settings.log_format, settings.log_level)
    from sensor.runner import read_files

    collect_seldom()
    with _progress(files) as advance, interruptible() as stop:
        read_files(settings, list(files), advance, stop)


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
