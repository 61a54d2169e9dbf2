"""``vmsensor doctor``: what a capture needs of this host, looked at before it is needed, and what to do about it."""

from __future__ import annotations

import email.utils
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sensor.account import chosen, nearest
from sensor.config import Settings
from sensor.errors import SensorError
from sensor.flowtable import FlowTable, TableOptions
from sensor.nic import COUNTERS, driver_losses, interfaces, link_of, speed_of
from sensor.nicclock import NicClock

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13  # linux/capability.h
KERNEL_WANTED = (4, 20)
"""The first with PACKET_IGNORE_OUTGOING."""

CLOCK_SECONDS = 1.0
"""A clock that is further off puts points beside those of other sensors."""


class Checked(NamedTuple):
    """One thing: ``ok``, ``look`` or ``FAIL``, and what was found or is to be done."""

    what: str
    grade: str
    text: str


def examine(settings: Settings, interface: str | None) -> Iterator[Checked]:
    """Everything, in the order in which a capture needs it."""
    yield _kernel()
    yield from _capabilities()
    yield _supervisor(settings)
    if interface is not None:
        yield from _interface(interface)
    yield _memory(settings)
    yield _disk(settings)
    if settings.influx is None:
        yield Checked("InfluxDB", "ok", "none is named: windows stay in the store; name one with --influx-url")
    else:
        yield from _influx(settings)


def _kernel() -> Checked:
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) >= KERNEL_WANTED:
        return Checked("kernel", "ok", release)
    text = f"{release}: what this host itself sends on the interface is counted as received; use Linux 4.20 or newer"
    return Checked("kernel", "look", text)


def _capabilities() -> Iterator[Checked]:
    held = _effective()
    if held >> CAP_NET_RAW & 1:
        yield Checked("capture", "ok", "allowed (CAP_NET_RAW)")
    else:
        text = "not allowed: it takes CAP_NET_RAW; run as root, or as the service in systemd/"
        yield Checked("capture", "FAIL", text)
    if held >> CAP_NET_ADMIN & 1:
        yield Checked("NIC set-up", "ok", "allowed (CAP_NET_ADMIN)")
    else:
        text = "not allowed without CAP_NET_ADMIN: offloads that merge packets are left as they are"
        yield Checked("NIC set-up", "look", text)


def _supervisor(settings: Settings) -> Checked:
    if os.geteuid() != 0:
        return Checked("supervisor", "ok", "as you, without capabilities")
    account, why = chosen(settings)
    if account is not None:
        return Checked("supervisor", "ok", f"becomes {account.pw_name}, without capabilities")
    text = f"stays root's user, without capabilities, because {why}; choose another --store, or --user"
    return Checked("supervisor", "look", text)


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _interface(name: str) -> Iterator[Checked]:
    found = next((one for one in interfaces() if one.name == name), None)
    if found is None:
        yield Checked("interface", "FAIL", f"{name}: no such interface; `vmsensor interfaces` lists them")
        return
    speed = speed_of(name)
    text = f"{name}: {found.state}, MTU {found.mtu}{f', {speed / 1e9:g} Gbit/s' if speed else ''}"
    is_down = found.state in ("down", "lowerlayerdown", "notpresent")
    yield Checked("interface", "look" if is_down else "ok", f"{text}; is its cable in?" if is_down else text)
    merging = _merging(name)
    if merging:
        text = f"{', '.join(merging)} merge packets; a capture with CAP_NET_ADMIN switches them off while it runs"
        yield Checked("offloads", "ok", text)
    else:
        yield Checked("offloads", "ok", "none that merge packets")
    why = NicClock(name).out_of_step()
    text = f"by the host: {why}" if why else "by the NIC, whose clock is in step with the system's"
    yield Checked("timestamps", "ok", text)
    link = link_of(name)
    if link is not None:
        counted = {counter: link.counters.get(counter, 0) for counter in COUNTERS} | driver_losses(name)
        told = ", ".join(f"{counter} {count:,}" for counter, count in counted.items() if count)
        yield Checked("drops", "ok", f"since the interface is there: {told or 'none'}")


def _merging(name: str) -> list[str]:
    from sensor.capturenic import merging_features

    return merging_features(name)


def _memory(settings: Settings) -> Checked:
    # A flow's own octets are asked of a table of its size: an index has a smallest size, which few flows would bear.
    parts = FlowTable(TableOptions(settings.window, max_flows=min(settings.max_flows, 100_000))).memory()
    usual = settings.max_flows * (parts["flow"] + parts["scoreboard"])
    available = _available()
    text = f"about {usual / 2**30:.1f} GiB for --max-flows {settings.max_flows:,}"
    if available is None:
        return Checked("memory", "ok", text)
    if usual < available:
        return Checked("memory", "ok", f"{text}, of {available / 2**30:.1f} GiB that are free")
    return Checked("memory", "look", f"{text}, and {available / 2**30:.1f} GiB are free; choose fewer")


def _available() -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _disk(settings: Settings) -> Checked:
    place = nearest(settings.store.absolute())
    if not os.access(place, os.W_OK):
        return Checked("disk", "FAIL", f"{place}: cannot be written to; choose another --store, or change its owner")
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB are free at {place}, and --store-size is {settings.store_size / 2**30:.1f} GiB"
    if free < settings.store_size:
        return Checked("disk", "look", f"{text}: the oldest windows will go when the disk is full")
    return Checked("disk", "ok", text)


def _influx(settings: Settings) -> Iterator[Checked]:
    from sensor.databases.administer import check
    from sensor.sinks.servers import Http

    assert settings.influx is not None
    try:
        lines = check(settings.influx)
        with Http(settings.influx) as http:
            date = http.answer("GET", "/ping").headers.get("Date", "")
    except SensorError as error:
        yield Checked("InfluxDB", "FAIL", str(error))
        return
    for line in lines:
        yield Checked(f"InfluxDB {line.what}"[:18], "ok" if line.is_good else "FAIL", line.text)
    if date:
        yield _clock(email.utils.parsedate_to_datetime(date).timestamp())


def _clock(theirs: float) -> Checked:
    # The header has whole seconds: half of one is added, and half of one is no difference.
    difference = abs(time.time() - theirs - 0.5)
    if difference <= CLOCK_SECONDS + 0.5:
        return Checked("clock", "ok", "as InfluxDB's, to the second")
    return Checked("clock", "look", f"{difference:.0f} s off InfluxDB's; synchronise both by NTP or PTP")
