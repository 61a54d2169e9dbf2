"""Domains: the VLAN or virtual network that a packet was seen in. They tell tenants on the same addresses apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

DEFAULT = "default"


class Domain(NamedTuple):
    """Tags, outermost first, and the VNI. Where there is a VNI, the tags beside it say nothing about the tenant."""

    vlan: tuple[int, ...] = ()
    vni: int | None = None

    @property
    def name(self) -> str:
        """``vni5003``, ``vlan10``, ``vlan10.20`` or ``default``. VLAN 0 is a priority tag, not a VLAN (802.1Q)."""
        return _name(self)


@lru_cache(maxsize=2**13)  # few domains, each with many ends
def _name(domain: Domain) -> str:
    if domain.vni is not None:
        return f"vni{domain.vni}"
    ids = [str(tag) for tag in domain.vlan if tag]
    return "vlan" + ".".join(ids) if ids else DEFAULT


def domain_of(vlan: Sequence[int], vni: int | None) -> Domain:
    """The domain of a packet. A VNI is a network by itself; tags beside it belong to one site or another."""
    return Domain((), vni) if vni is not None else Domain(tuple(tag for tag in vlan if tag), None)
