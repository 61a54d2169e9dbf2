"""What this host has and is: ``interfaces``, ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sensor.commands.options import INFLUX, add_options, config_option
from sensor.config import OPTIONS, build
from sensor.errors import SensorError
from sensor.output import quiet_when_nobody_reads, write


@click.command("interfaces")
def interfaces_command() -> None:
    """List the interfaces that can be captured on."""
    from sensor.nic import interfaces

    with quiet_when_nobody_reads():
        write("".join(f"{i.name:<16} {i.state:<8} {i.mac or '-':<18} mtu {i.mtu}\n" for i in interfaces()))


DOCTOR = ("max_flows", "store", "store_size", "user")


@click.command("doctor")
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
