"""Names of those outside: one, their prefix, or what a list of networks says of them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor.analysis.outside import ByNetwork, ByPrefix, load_naming
from sensor.analysis.report import Reporter
from sensor.config import PRIVATE_NETWORKS
from sensor.errors import UsageError
from sensor.identity.registry import Registry
from sensor.native import BIN, NumpyArray
from sensor.snapshot import Snapshot
from sensor.window import Report
from tests.command import INPUT, complaint, vmsensor
from tests.needs import PCAPS
from tests.records import SECOND, START, counters, record, rows


def key(address: str) -> bytes:
    """An address as it is looked up."""
    parsed = ipaddress.ip_address(address)
    return bytes([parsed.version]) + parsed.packed.ljust(16, b"\0")


def found(naming: ByNetwork | ByPrefix, *addresses: str) -> list[str]:
    """The names of addresses."""
    return naming.names_of(np.array([key(address) for address in addresses], "S17"))


def report(*records: NumpyArray, how: str) -> Report:
    """A window, with those outside named so."""
    snapshot = Snapshot(START, START + 10 * SECOND, np.concatenate(records), np.zeros(0, BIN), counters())
    return Reporter("tap", "m", Registry(PRIVATE_NETWORKS), naming=load_naming(how)).report(snapshot)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 2**8 - 1), st.integers(0, 8)), max_size=12),
    st.lists(st.integers(0, 2**8 - 1), min_size=1, max_size=20),
)
def test_the_longest_prefix_wins(prefixes: list[tuple[int, int]], last: list[int]) -> None:
    """As the ipaddress module says, for any prefixes within one another, of both IP versions."""
    listed = []
    for number, (octet, length) in enumerate(prefixes):
        base = f"192.0.2.{octet}/{24 + length}" if number % 2 else f"2001:db8::{octet:x}/{120 + length}"
        listed.append((ipaddress.ip_network(base, strict=False), f"net {number}"))
    naming = ByNetwork(tuple(listed))
    for octet in last:
        for text in (f"192.0.2.{octet}", f"2001:db8::{octet:x}", f"192.0.3.{octet}"):
            address = ipaddress.ip_address(text)
            holding = [(net.prefixlen, name) for net, name in listed if address in net]
            longest = max((length for length, _ in holding), default=None)
            names = {name for length, name in holding if length == longest} or {"external"}
            assert found(naming, text)[0] in names


def test_the_ends_of_the_address_space() -> None:
    """The first and the last address of each version, and a zero octet at the end."""
    naming = ByNetwork(
        tuple((ipaddress.ip_network(text), text) for text in ("0.0.0.0/1", "255.255.255.255/32", "ffff::/16", "::/8"))
    )
    assert found(naming, "0.0.0.0", "127.255.255.255", "128.0.0.0", "255.255.255.255", "::", "ffff::", "fffe::") == [
        "0.0.0.0/1", "0.0.0.0/1", "external", "255.255.255.255/32", "::/8", "ffff::/16", "external",
    ]  # fmt: skip


def test_prefixes_of_both_versions() -> None:
    """/24 and /48, also for addresses that end in zeros."""
    addresses = ("198.51.100.7", "198.51.0.0", "2001:db8:1:2::3", "2001:db8::")
    assert found(ByPrefix(), *addresses) == ["198.51.100.0/24", "198.51.0.0/24", "2001:db8:1::/48", "2001:db8::/48"]


def test_those_outside_are_told_apart_in_points() -> None:
    """With prefixes, each is a peer of its own, still outside: tenant external, north-south; VMs stay as they are."""
    flows = [record(f"198.51.{i}.7", "10.0.0.9", c2s_packets=1, c2s_bytes=100) for i in (1, 1, 2)]
    flows.append(record("10.0.0.8", "10.0.0.9", c2s_packets=1, c2s_bytes=7))
    found_rows = rows(report(*flows, how="prefix").table("vm_traffic"))
    assert {(row["src_vm"], row["src_tenant"], row["scope"], row["bytes"]) for row in found_rows if row["bytes"]} == {
        ("198.51.1.0/24", "external", "north-south", 200), ("198.51.2.0/24", "external", "north-south", 100),
        ("10.0.0.8", "default", "east-west", 7),
    }  # fmt: skip


def test_a_list_of_networks(tmp_path: Path) -> None:
    """Prefix and name, or address, length and AS number; comments; what is not listed stays external."""
    table = tmp_path / "as.txt"
    table.write_text("# from a collector\n198.51.1.0\t24\t64500\n198.51.0.0/16, Example Net  # all of it\n\n")
    flows = [record(f"{address}.7", "10.0.0.9", c2s_packets=1) for address in ("198.51.1", "198.51.2", "203.0.113")]
    found_rows = rows(report(*flows, how=str(table)).table("vm_traffic"))
    assert {row["src_vm"] for row in found_rows if row["packets"]} == {"AS64500", "Example Net", "external"}


@pytest.mark.parametrize("line", ["198.51.1.0/24", "example.org x", "198.51.1.0/40 x", "1 2 3 4"])
def test_a_wrong_list_is_named(tmp_path: Path, line: str) -> None:
    """File, line and what it should look like."""
    table = tmp_path / "as.txt"
    table.write_text(f"192.0.2.0/24 x\n{line}\n")
    with pytest.raises(UsageError, match=r"as\.txt:2: .* write for example"):
        load_naming(str(table))
    done = vmsensor("read", PCAPS / "demo.pcap", "--to", "json:-", "--external", tmp_path / "none")
    assert "cannot read the list of networks" in complaint(done, INPUT)


def test_no_outsider_is_no_trouble() -> None:
    """A window without anybody outside is as it was."""
    one = record(c2s_packets=1)
    assert rows(report(one, how="prefix").table("vm_traffic")) == rows(report(one, how="one").table("vm_traffic"))
