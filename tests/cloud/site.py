"""The cloud itself: two tenants on the same addresses, six VMs, one mirror port, and what goes on between them.

        acme, VLAN 10                            globex, VLAN 20
        web-1 --http--> app-1 --postgres--> db-1       shop-1 --http--> api-1
                                                       shop-1 --dns---> dns-1
    10.77.0.1       10.77.0.2        10.77.0.3      10.77.0.1       10.77.0.2, dns-1 10.77.0.3

The cable of each VM is a relay in user space, which ends in an access port: what VMs send is tagged on the switch, and
so on its mirror port. Tags, delay and loss thus need nothing of the kernel but TAP devices; not every kernel has 802.1Q
and netem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tests.lab import Lab
from tests.relay import Cable, connect, start

TENANTS = {"acme": 10, "globex": 20}
"""Each with its VLAN."""


@dataclass(frozen=True)
class Machine:
    """A VM: whose it is, the last part of its address, how long its cable is, and what runs there."""

    name: str
    tenant: str
    host: int
    role: str
    cable: Cable
    runs: tuple[str, ...]


def machines(scan_after: float) -> list[Machine]:
    """The six. shop-1 scans the ports of dns-1 once, after so many seconds."""
    shop = ("--get", "10.77.0.2:80", "--sizes", "20000", "120000", "--pause", "0.1", "--resolve", "10.77.0.3")
    scan = ("--scan", "10.77.0.3", "--after", f"{scan_after:g}")
    return [
        Machine("web-1", "acme", 1, "web", Cable(0.1, 0.1, vlan=10), ("--get", "10.77.0.2:8080")),
        Machine("app-1", "acme", 2, "app", Cable(0.1, 0.1, vlan=10), ("--http", "8080", "--ask-database", "10.77.0.3")),
        Machine("db-1", "acme", 3, "database", Cable(3, 1, vlan=10), ("--database", "5432")),
        Machine("shop-1", "globex", 1, "web", Cable(0.1, 0.1, lost_to_vm=0.02, lost_to_switch=0.005, vlan=20),
                (*shop, *scan)),
        Machine("api-1", "globex", 2, "app", Cable(8, 2, vlan=20), ("--http", "80")),
        Machine("dns-1", "globex", 3, "dns", Cable(0.2, 0.1, vlan=20), ("--dns", "53")),
    ]  # fmt: skip


def lab_of(vms: list[Machine]) -> Lab:
    """The lab that they are in, not built yet."""
    return Lab([vm.name for vm in vms], {vm.name: vm.host for vm in vms})


def lay_cables(lab: Lab, vms: list[Machine], check: Callable[[], None]) -> dict[str, Popen[str]]:
    """Replace every VM's cable; ``check`` is called now and then, and raises when it is time to stop. The relays."""
    relays = {f"the cable of {vm.name}": start(lab, lab.vm(vm.name), vm.cable, n) for n, vm in enumerate(vms)}
    for vm in vms:
        check()
        connect(lab, lab.vm(vm.name))
    return relays


def write_inventory(vms: list[Machine], lab: Lab, path: Path) -> None:
    """The file that names them to the sensor."""
    rows = [
        f"{vm.name},{vm.tenant},{lab.vm(vm.name).ipv4},{lab.vm(vm.name).mac},{TENANTS[vm.tenant]},{vm.role}"
        for vm in vms
    ]
    path.write_text("".join(f"{row}\n" for row in ["vm,tenant,address,mac,vlan,role", *rows]))
