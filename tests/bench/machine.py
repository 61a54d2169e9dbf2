"""What the figures depend on: the machine, as the kernel describes it. No name of a host and no path is in it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def described() -> dict[str, str]:
    """One line each."""
    about = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", about)
    virtual = ", a virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", about, re.MULTILINE) else ""
    octets = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": (name[1] if name else platform.machine()) + virtual,
        "processors": str(os.cpu_count()),
        "caches": caches() or "unknown",
        "memory": f"{octets / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "transparent huge pages": chosen(HUGE_PAGES),
    }


def caches() -> str:
    """Each level that holds data."""
    said = []
    for level in sorted(CACHES.glob("index*")):
        kind, number, size = ((level / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            said.append(f"L{number} {size}")
    return ", ".join(said)


def chosen(setting: Path) -> str:
    """The word in brackets."""
    found = re.search(r"\[(\w+)\]", setting.read_text()) if setting.exists() else None
    return found[1] if found else "unknown"
