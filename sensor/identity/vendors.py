"""What a MAC address says by itself: which hypervisor made it up, and whether it can be a single card's own."""

from __future__ import annotations

_PREFIXES = {
    "00:50:56": "VMware",  # vSphere: given by vCenter, or by hand (VMware vSphere Networking, "MAC Addresses")
    "00:0c:29": "VMware",  # made up by a host without vCenter (the same)
    "00:05:69": "VMware",  # GSX Server and early ESX (IEEE MA-L: VMware, Inc.)
    "00:1c:14": "VMware",  # IEEE MA-L: VMware, Inc.
    "52:54:00": "KVM/QEMU",  # locally administered: QEMU's default for -nic, and libvirt's for generated addresses
    "00:15:5d": "Hyper-V",  # IEEE MA-L: Microsoft Corporation; the dynamic addresses of Hyper-V hosts
    "00:16:3e": "Xen",  # IEEE MA-L: Xensource, Inc.; the Xen Project's vif configuration
    "08:00:27": "VirtualBox",  # IEEE MA-L: PCS Systemtechnik GmbH; the guests' cards
    "0a:00:27": "VirtualBox",  # locally administered: the host's end of a host-only network
    "00:1c:42": "Parallels",  # IEEE MA-L: Parallels, Inc.
    "50:6b:8d": "Nutanix AHV",  # IEEE MA-L: Nutanix; the cards of AHV guests
}
"""By the first three octets. MA-L is the public list of the IEEE Registration Authority."""

_GROUP, _LOCAL = 1, 2
"""Of the first octet (IEEE 802-2014, section 8.2): the I/G and the U/L bit."""


def hypervisor_of(mac: str) -> str | None:
    """The hypervisor that gives its VMs such addresses; None for any other. ``mac`` is lower case, with colons."""
    return _PREFIXES.get(mac[:8])


def is_local(mac: str) -> bool:
    """Whether it was made up where it is used: by a hypervisor, a bond, a phone that hides; nobody's prefix."""
    return bool(int(mac[:2], 16) & _LOCAL)


def is_unicast(mac: str) -> bool:
    """Whether a single card can have it: no group's, not the broadcast address, not zero."""
    return not int(mac[:2], 16) & _GROUP and mac != "00:00:00:00:00:00"
