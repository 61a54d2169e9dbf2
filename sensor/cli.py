"""The command line: reads options, runs a command, and turns every expected failure into one line and its status."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn

import click

# Before numpy is loaded: its linear algebra, which is not used here, would start a thread for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from sensor import __version__, logs
from sensor.commands import grafana, host, influx, measure, mirror, store, views
from sensor.commands.interrupted import Interrupted
from sensor.errors import SensorError
from sensor.output import abandon_standard_output

_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""Before click 8.2, who gives no arguments gets the help without an error."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT, no_args_is_help=True)
@click.version_option(__version__, prog_name="vmsensor", message="%(prog)s %(version)s")
def vmsensor() -> None:
    """Measure VM-to-VM traffic from a mirror port: who talks to whom, throughput, latency, loss."""


for command in (
    measure.capture_command, measure.read_command, host.interfaces_command, store.show_command, store.top_command,
    store.push_command, influx.influx_group, grafana.grafana_group, views.matrix_command, views.dependencies_command,
    views.explain_command, views.vms_command, host.doctor_command, mirror.mirror_group, views.policy_group,
):  # fmt: skip
    vmsensor.add_command(command)


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
    except _NO_ARGUMENTS as error:
        error.show()  # the help, which has many lines
        sys.exit(error.exit_code)
    except click.ClickException as error:
        logs.failure(_in_one_line(error), error.exit_code)
        sys.exit(error.exit_code)


def _in_one_line(error: click.ClickException) -> str:
    """What is wrong, and where to read how it should be."""
    context = getattr(error, "ctx", None)
    where = f"; see {context.command_path} --help" if context is not None else ""
    return " ".join(error.format_message().split()).rstrip(".") + where


if __name__ == "__main__":
    main()
