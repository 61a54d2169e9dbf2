"""Everything that a capture may import later, imported now: for a supervisor that is about to lose its way to it.

Python may be installed where root alone can read, as under root's home; who gives up root can load nothing more.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys

import rich

import sensor

LEFT_OUT = ("sensor.cli", "sensor.commands", "sensor.grafana", "sensor.views", "sensor.__main__", "rich.__main__")
"""What no capture runs."""

LAZY = (
    "csv", "dpkt", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig", "http.client",
    "http.server", "influxdb_client.client.influxdb_client", "influxdb_client.client.write_api", "influxdb_client.rest",
    "linecache", "numpy.ma", "prometheus_client", "prometheus_client.core", "queue", "ssl", "traceback",
)  # fmt: skip
"""What the standard library and others import when it is first used."""


def load_all() -> None:
    """Import them; what is not installed is not needed."""
    packages = (sensor, rich)
    found = [
        one.name for package in packages for one in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    ]
    for name in (*(name for name in found if not name.startswith(LEFT_OUT)), *LAZY):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def code_directories() -> set[str]:
    """Where what is loaded came from."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {os.path.dirname(file) for file in files if file and os.path.isfile(file)}
