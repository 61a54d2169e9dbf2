"""The inventory: what its files say, whose a packet is, what is refused and in which words, and what a change does."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sensor.errors import InputError, SensorError, UsageError
from sensor.identity import inventoryfile, parties, registry
from sensor.identity.inventory import Entry, Inventory, InventorySource
from sensor.identity.inventoryfile import COLUMNS, entries_from, load_inventory
from sensor.watch import Fixed, WatchedFile
from tests.needs import ROOT

HEADER = ",".join(COLUMNS)
PAGE = ROOT / "docs" / "inventory.md"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an inventory; CSV lines get the header unless they bring one."""

    def write(*lines: str, name: str = "vms.csv") -> Path:
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


def entry(vm: str, address: str | None = None, tenant: str = "acme", **rest: Any) -> Entry:
    """An entry as a file would give it."""
    return Entry(vm, tenant, None if address is None else ip_network(address), **rest)


def stock(*entries: Entry) -> Inventory:
    """An inventory of these."""
    return Inventory(entries)


# --- what the files say ----------------------------------------------------------------------------------------------


def test_a_csv_line_gives_an_entry(write: Write) -> None:
    """Every column is read, and the place is the line of the file."""
    path = write("# made by hand", "", HEADER, "web,acme,10.0.0.5,52-54-00-AB-CD-EF,10,5001,host-1,web server")
    (found,) = load_inventory(path).entries
    assert found == entry(
        "web", "10.0.0.5/32", mac="52:54:00:ab:cd:ef", vlan=10, vni=5001, host="host-1", role="web server"
    )
    assert found.place == f"{path}:4"


def test_columns_come_in_any_order_and_may_be_left_out(write: Write) -> None:
    """Only vm and tenant have to be there; names of columns are read in any case."""
    path = write("Tenant, VM ,address", "acme,web,10.0.0.5", 'acme, "db, old",fd00::5')
    assert load_inventory(path).entries == (entry("web", "10.0.0.5"), entry("db, old", "fd00::5"))


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """A byte order mark, CR LF, lines of commas only, and empty values behind the last column."""
    path = tmp_path / "vms.csv"
    path.write_bytes(b"\xef\xbb\xbfvm,tenant,address\r\nweb,acme,10.0.0.5,,\r\n,,\r\n#,,\r\ndb,acme,10.0.0.6\r\n")
    assert [(found.vm, found.place) for found in load_inventory(path).entries] == [
        ("web", f"{path}:2"), ("db", f"{path}:5"),
    ]  # fmt: skip


def test_values_missing_at_the_end_are_empty(write: Write) -> None:
    """A line may stop behind its last value."""
    assert load_inventory(write(HEADER, "web,acme,10.0.0.5")).entries == (entry("web", "10.0.0.5"),)


def test_a_quoted_name_may_begin_with_a_hash(write: Write) -> None:
    """Without quotes it is a comment."""
    assert [found.vm for found in load_inventory(write(HEADER, '"#1",acme,10.0.0.5', "#2,acme,10.0.0.6")).entries] == [
        "#1"
    ]


def test_a_toml_table_gives_an_entry_for_each_address(write: Write) -> None:
    """An address may be a list; numbers may be numbers or texts."""
    path = write(
        "[[vm]]", 'vm = "web"', 'tenant = "acme"', 'address = ["10.0.0.5", "fd00::/64"]', "vlan = 10", 'vni = "0"',
        "[[vm]]", 'vm = "db"', 'tenant = "acme"', 'mac = "0200.0000.0001"', "address = []", 'host = ""',
        name="vms.TOML",
    )  # fmt: skip
    found = load_inventory(path).entries
    assert found == (
        entry("web", "10.0.0.5", vlan=10, vni=0), entry("web", "fd00::/64", vlan=10, vni=0),
        entry("db", mac="02:00:00:00:00:01"),
    )  # fmt: skip
    assert [one.place for one in found] == [f"{path}: vm number 1"] * 2 + [f"{path}: vm number 2"]


@pytest.mark.parametrize(
    "text",
    ["52:54:00:ab:cd:ef", "52-54-00-AB-CD-EF", "52.54.00.ab.cd.ef", "5254.00AB.cdef", "5254-00ab-cdef", "525400abcdef"],
)
def test_mac_addresses_are_read_as_switches_and_hypervisors_write_them(text: str) -> None:
    """All become lower case with colons."""
    assert entries_from({"vm": "web", "tenant": "acme", "mac": text}, "here")[0].mac == "52:54:00:ab:cd:ef"


def test_an_empty_inventory_is_allowed(write: Write) -> None:
    """A header without lines, `vm = []`, and no arguments are inventories of nothing, and all of them the same."""
    for empty in (load_inventory(write(HEADER)), load_inventory(write("vm = []", name="vms.toml")), Inventory()):
        assert (empty.entries, empty.tenants, empty.version, empty.vms()) == ((), frozenset(), 0, [])
        assert empty.match((10,), 5, "10.0.0.1", "02:00:00:00:00:01") is None
        assert empty.mac_match((), None, "02:00:00:00:00:01") is None
        assert empty.tenant_of_domain((10,), None) is None


# --- whose a packet is -----------------------------------------------------------------------------------------------


def test_tenants_on_the_same_addresses_stay_apart() -> None:
    """The VNI says whose address it is; in a domain that is not listed it is nobody's."""
    both = stock(entry("a", "10.0.0.5", "one", vni=5001), entry("b", "10.0.0.5", "two", vni=5002))
    found = [both.match((), vni, "10.0.0.5") for vni in (5001, 5002, 5003, None)]
    assert [one and one.owner for one in found] == [("a", "one"), ("b", "two"), None, None]


def test_a_given_domain_goes_before_none_and_a_longer_prefix_before_a_shorter() -> None:
    """A prefix with the packet's VLAN beats the exact address of a line without one."""
    found = stock(
        entry("everywhere", "10.0.0.5"), entry("net", "10.0.0.0/24", vlan=10), entry("half", "10.0.0.0/25", vlan=10),
        entry("all", "0.0.0.0/0"),
    )  # fmt: skip
    asked = [((10,), "10.0.0.5"), ((10,), "10.0.0.200"), ((11,), "10.0.0.5"), ((11,), "10.0.0.6"), ((10,), "8.8.8.8")]
    names = [(match := found.match(vlans, None, ip)) and match.vm for vlans, ip in asked]
    assert names == ["half", "net", "everywhere", "all", "all"]


def test_the_outermost_tag_decides() -> None:
    """The operator sets it; the inner one is the customer's, who may choose the number of another tenant's VLAN."""
    found = stock(entry("inner", "10.0.0.5", "one", vlan=10), entry("outer", "10.0.0.0/24", "two", vlan=100))
    packets = [(100, 10), (0, 10), (10, 100)]
    names = [(match := found.match(tags, None, "10.0.0.5")) and match.vm for tags in packets]
    assert names == ["outer", "inner", "inner"]


def test_a_line_with_vlan_and_vni_is_found_in_both() -> None:
    """By the VNI where the packet has one, whatever tags stand beside it; else by the tag."""
    found = stock(entry("web", "10.0.0.5", vlan=10, vni=5001))
    fits = [((), 5001), ((7,), 5001), ((10,), None), ((10,), 5002), ((), None), ((7,), None)]
    assert [found.match(vlans, vni, "10.0.0.5") is not None for vlans, vni in fits] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_vlan_fits_beside_a_vni_too() -> None:
    """A packet that carries the tag fits, mirrored through a tunnel with a number of its own or not."""
    assert stock(entry("web", "10.0.0.5", vlan=10)).match((10,), 99, "10.0.0.5") is not None


def test_the_mac_chooses_among_the_lines_of_a_vm() -> None:
    """Two cards with one address (a bond): the packet's card is returned, else the first."""
    cards = ("02:00:00:00:00:01", "02:00:00:00:00:02")
    found = stock(*(entry("web", "10.0.0.5", mac=mac) for mac in cards))
    seen = [None, cards[1].upper(), "x"]
    chosen = [(match := found.match((), None, "10.0.0.5", mac)) and match.mac for mac in seen]
    assert chosen == [cards[0], cards[1], cards[0]]


def test_an_address_is_not_compared_by_how_it_is_written() -> None:
    """IPv6 has several spellings; what is no address matches nothing."""
    found = stock(entry("web", "fd00::5"), entry("rest", "0.0.0.0/0"))
    assert found.match((), None, "FD00:0:0::5") is found.entries[0]
    assert [found.match((), None, text) for text in ("fd00::6", "", "x", "10.0.0", "1.2.3.4\0", "ü")] == [None] * 6
    assert found.owners("nonsense") == []


def test_macs_are_found_by_domain() -> None:
    """The same MAC may be in two domains (a cloned VM), and each packet finds the one of its own."""
    mac = "02:00:00:00:00:01"
    found = stock(entry("a", mac=mac, vlan=10), entry("b", mac=mac, vlan=11), entry("a", "10.0.0.5", mac=mac, vlan=10))
    assert [(match := found.mac_match(vlans, None, mac.upper())) and match.vm for vlans in ((10,), (11,), ())] == [
        "a", "b", None,
    ]  # fmt: skip
    assert found.by_mac(mac.upper()) == list(found.entries)
    assert found.by_mac("02:00:00:00:00:02") == []


def test_the_tenant_of_a_domain() -> None:
    """All entries of the domain have to agree; beside a VNI, tags do not count; an entry without a domain has none."""
    found = stock(
        entry("a", "10.0.0.1", "one", vlan=10), entry("b", "10.0.0.2", "one", vlan=10, vni=5001),
        entry("c", "10.0.0.3", "one", vlan=20), entry("d", "10.0.0.4", "two", vlan=20), entry("e", "10.0.0.9", "two"),
    )  # fmt: skip
    asked: list[tuple[tuple[int, ...], int | None]] = [
        ((10,), None), ((), 5001), ((20,), None), ((30, 10), None), ((20, 10), None), ((10,), 5002), ((), None),
    ]  # fmt: skip
    assert [found.tenant_of_domain(vlans, vni) for vlans, vni in asked] == [
        "one", "one", None, "one", None, None, None,
    ]  # fmt: skip


def test_vms_are_listed_with_their_entries() -> None:
    """The same name in two tenants is two VMs; a VM with several lines is one."""
    found = stock(entry("web", "10.0.0.1"), entry("web", "10.1.0.1", "two"), entry("web", "fd00::1"))
    assert found.vms() == [("web", "acme"), ("web", "two")]
    assert found.entries_of("web", "acme") == [found.entries[0], found.entries[2]]
    assert (found.has("web", "two"), found.has("web", "three"), found.entries_of("db", "acme")) == (True, False, [])
    assert found.tenants == {"acme", "two"}


def test_owners_are_those_of_exactly_the_address() -> None:
    """In any domain, but no prefix that holds it."""
    found = stock(
        entry("a", "10.0.0.5", vni=1), entry("b", "10.0.0.5", "two", vni=2), entry("net", "10.0.0.0/24", "three"),
        entry("six", "fd00::5"), entry("pair", "10.0.0.4/31"),
    )  # fmt: skip
    assert [one.vm for one in found.owners("10.0.0.5")] == ["a", "b"]
    assert [one.vm for one in found.owners("fd00:0::5")] == ["six"]
    assert found.owners("10.0.0.4") == []


def test_what_is_handed_out_cannot_change_the_inventory() -> None:
    """Lists are copies."""
    found = stock(entry("a", "10.0.0.5", mac="02:00:00:00:00:01"))
    for handed in (found.owners("10.0.0.5"), found.by_mac("02:00:00:00:00:01"), found.entries_of("a", "acme")):
        handed.clear()
    assert len(found.owners("10.0.0.5") + found.by_mac("02:00:00:00:00:01") + found.entries_of("a", "acme")) == 3


def test_versions_differ() -> None:
    """A cache can tell any two inventories apart."""
    versions = [stock(entry("a", "10.0.0.5")).version for _ in range(3)]
    assert len({0, *versions}) == 4


# --- against a model -------------------------------------------------------------------------------------------------

VLANS, VNIS = (10, 20), (10, 5001)

networks = st.builds(
    lambda address, length: ip_network((address, length), strict=False),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1"]), st.sampled_from([0, 8, 24, 31, 32]),
) | st.builds(
    lambda address, length: ip_network((address, length), strict=False),
    st.sampled_from(["fd00::1", "fd00::2"]), st.sampled_from([16, 64, 128]),
)  # fmt: skip
macs = st.sampled_from([f"02:00:00:00:00:0{n}" for n in range(1, 4)])
few_entries = st.lists(
    st.builds(
        Entry,
        vm=st.sampled_from("abc"),
        tenant=st.sampled_from("xy"),
        network=st.none() | networks,
        mac=st.none() | macs,
        vlan=st.none() | st.sampled_from(VLANS),
        vni=st.none() | st.sampled_from(VNIS),
    ),
    max_size=6,
)
packet_vlans = st.lists(st.sampled_from([0, *VLANS, 30]), max_size=3).map(tuple)
packet_vnis = st.none() | st.sampled_from([*VNIS, 7])
packet_ips = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.9.0.1", "8.8.8.8", "fd00::1", "fd00::9"])


def rank(one: Entry, vlans: tuple[int, ...], vni: int | None) -> int | None:
    """How specific the domain of an entry is for a packet, 0 the most; None when it does not fit."""
    if one.vlan is None and one.vni is None:
        return 99
    if vni is not None and one.vni is not None:
        return 0 if one.vni == vni else None
    return 1 + vlans.index(one.vlan) if one.vlan in vlans else None


def same_domain(a: Entry, b: Entry) -> bool:
    """Whether there is a packet whose domain both fit, and neither better than the other."""
    packets = [(vlans, vni) for vlans in ((), *((tag,) for tag in VLANS)) for vni in (None, *VNIS, 7)]
    ranks = [(rank(a, vlans, vni), rank(b, vlans, vni)) for vlans, vni in packets]
    return any(first is not None and first == second for first, second in ranks)


def could_be_one_packet(a: Entry, b: Entry) -> bool:
    """The same, or one of them fits every packet."""
    return same_domain(a, b) or any(one.vlan is None and one.vni is None for one in (a, b))


def clash(a: Entry, b: Entry) -> bool:
    """Whether two entries may not be in one inventory."""
    if a.owner == b.owner:
        return False
    if a.mac is not None and a.mac == b.mac and could_be_one_packet(a, b):
        return True
    if a.network is None or a.network != b.network:
        return False
    return could_be_one_packet(a, b) if a.network.num_addresses == 1 else same_domain(a, b)


def accepted(entries: list[Entry]) -> Inventory:
    """The inventory of these, without those that clash with an earlier one."""
    kept: list[Entry] = []
    for one in entries:
        if not any(clash(one, other) for other in kept):
            kept.append(one)
    return Inventory(tuple(kept))


@given(few_entries)
@settings(max_examples=300, deadline=None)
def test_what_clashes_is_refused_and_nothing_else(entries: list[Entry]) -> None:
    """An inventory is refused exactly when two of its entries clash, compared one by one."""
    bad = any(clash(a, b) for i, a in enumerate(entries) for b in entries[:i])
    try:
        Inventory(tuple(entries))
    except UsageError:
        assert bad
    else:
        assert not bad


@given(few_entries, packet_vlans, packet_vnis, packet_ips, macs)
@settings(max_examples=400, deadline=None)
def test_lookups_equal_a_search_through_all_entries(
    entries: list[Entry], vlans: tuple[int, ...], vni: int | None, ip: str, mac: str
) -> None:
    """By address, by MAC and by domain."""
    found = accepted(entries)
    ranked = [(rank(one, vlans, vni), one) for one in found.entries]
    fitting = [(order, one) for order, one in ranked if order is not None]
    holding = [
        (order, -one.network.prefixlen, one.mac != mac, i, one)
        for i, (order, one) in enumerate(fitting)
        if one.network is not None and ip_address(ip) in one.network
    ]
    assert found.match(vlans, vni, ip, mac) is (min(holding)[-1] if holding else None)
    cards = [(order, i, one) for i, (order, one) in enumerate(fitting) if one.mac == mac]
    assert found.mac_match(vlans, vni, mac) is (min(cards)[-1] if cards else None)
    exact = [one for one in found.entries if one.network in (ip_network(ip),)]
    assert found.owners(ip) == exact


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
names = texts.map(str.strip).filter(lambda text: text and text not in inventoryfile.RESERVED)
maybe = st.none() | texts.map(str.strip).filter(bool)
any_entries = st.lists(
    st.builds(
        Entry, vm=names, tenant=names, network=networks, mac=st.none() | macs,
        vlan=st.none() | st.integers(1, 4094), vni=st.none() | st.integers(0, 2**24 - 1), host=maybe, role=maybe,
    ),
    max_size=5,
)  # fmt: skip


def row(one: Entry) -> dict[str, Any]:
    """What a file says of an entry."""
    return {
        "vm": one.vm, "tenant": one.tenant, "address": str(one.network), "mac": one.mac, "vlan": one.vlan,
        "vni": one.vni, "host": one.host, "role": one.role,
    }  # fmt: skip


@given(any_entries, st.permutations(COLUMNS))
@settings(max_examples=100, deadline=None)
def test_csv_and_toml_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], order: list[str]
) -> None:
    """What is written comes back, from either format."""
    try:
        wanted = Inventory(tuple(entries)).entries
    except UsageError:
        assume(False)
    folder = tmp_path_factory.getbasetemp()
    table = io.StringIO()
    writer = csv.DictWriter(table, order, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(row(one) for one in wanted)
    (folder / "same.csv").write_text(table.getvalue(), encoding="utf-8", newline="")
    tables = "".join(
        "[[vm]]\n"
        + "".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row(one).items() if value is not None
        )
        for one in wanted
    )
    (folder / "same.toml").write_text(tables or "vm = []", encoding="utf-8")
    assert load_inventory(folder / "same.csv").entries == wanted
    assert load_inventory(folder / "same.toml").entries == wanted


# --- what is refused -------------------------------------------------------------------------------------------------

LINE = "web,acme,10.0.0.5,,,,,"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, ",acme,10.0.0.5"], "2: vm: is empty; every entry names its VM and its tenant"),
        ([HEADER, "web, ,10.0.0.5"], "2: tenant: is empty; every entry names its VM and its tenant"),
        ([HEADER, LINE, "", "# x", "db,acme,10.0.0.300"],
         "5: address: '10.0.0.300' is no address; write for example 10.0.0.5, 10.0.0.0/24 or fd00::5"),
        ([HEADER, "db,acme,10.0.0.5/24"],
         "2: address: '10.0.0.5/24' is an address in a prefix; "
         "write 10.0.0.5 for one VM, or 10.0.0.0/24 for all of it"),
        ([HEADER, "db,acme,224.0.0.1"],
         "2: address: '224.0.0.1' is no address that a VM can send from; give the VM's own"),
        ([HEADER, "db,acme,0.0.0.0"], "2: address: '0.0.0.0' is no address that a VM can send from; give the VM's own"),
        ([HEADER, "db,acme,fe80::1%eth0"],
         "2: address: 'fe80::1%eth0' is no address that a VM can send from; give the VM's own"),
        ([HEADER, "db,acme,,52:54:00:12:34"],
         "2: mac: '52:54:00:12:34' is no MAC address; write for example 52:54:00:12:34:56"),
        ([HEADER, "db,acme,,52:54-00:12:34:56"],
         "2: mac: '52:54-00:12:34:56' is no MAC address; write for example 52:54:00:12:34:56"),
        ([HEADER, "db,acme,,ff:ff:ff:ff:ff:ff"],
         "2: mac: 'ff:ff:ff:ff:ff:ff' is no MAC address of a network card; give the card's own"),
        ([HEADER, "db,acme,10.0.0.5,,4095"],
         "2: vlan: '4095' is no VLAN; write a number from 1 to 4094, or nothing"),
        ([HEADER, "db,acme,10.0.0.5,,0"], "2: vlan: '0' is no VLAN; write a number from 1 to 4094, or nothing"),
        ([HEADER, "db,acme,10.0.0.5,,ten"], "2: vlan: 'ten' is no VLAN; write a number from 1 to 4094, or nothing"),
        ([HEADER, "db,acme,10.0.0.5,,,16777216"],
         "2: vni: '16777216' is no VNI; write a number from 0 to 16777215, or nothing"),
        ([HEADER, "db,acme,10.0.0.5,,,-1"], "2: vni: '-1' is no VNI; write a number from 0 to 16777215, or nothing"),
        ([HEADER, "db,acme,,,10"],
         "2: address: neither an address nor a MAC address is given; give at least one of them"),
        ([HEADER, "d\x07b,acme,10.0.0.5"], "2: vm: has the control character U+0007; remove it"),
        ([HEADER, "db,acme,10.0.0.5,,,,h\u2028"], "2: host: has the control character U+2028; remove it"),
        ([HEADER, f"{'d' * 256},acme,10.0.0.5"],
         f"2: vm: '{'d' * 57}...' has 256 characters; at most 255 are allowed"),
        ([HEADER, "db,external,10.0.0.5"],
         "2: tenant: 'external' is a name that the sensor uses itself; choose another one"),
        ([HEADER, "other,acme,10.0.0.5"], "2: vm: 'other' is a name that the sensor uses itself; choose another one"),
        ([HEADER, "web,acme,10.0.0.5,,,,,db,x"], "2: line: 9 values for 8 columns; quote what has a comma"),
        ([HEADER, 'web,"acme,10.0.0.5', LINE],
         "2: line: not valid CSV: unexpected end of data; close every quote on its line"),
        (["# x", "vm,tennant,address"], "2: 'tennant': not known in an inventory; did you mean 'tenant'?"),
        (["vm,tenant,colour"],
         "1: 'colour': not known in an inventory; known: vm, tenant, address, mac, vlan, vni, host, role"),
        (["vm,address"], f"1: tenant: the column is missing; the first line is: {HEADER}"),
        (["tenant,address"], f"1: vm: the column is missing; the first line is: {HEADER}"),
        (["vm,tenant,mac,mac"], "1: mac: the column is there twice; remove one"),
        (["vm;tenant;address"], "1: line: the columns are separated by semicolons; separate them by commas"),
        (["vm\ttenant"], "1: line: the columns are separated by tabs; separate them by commas"),
    ],
)  # fmt: skip
def test_each_error_in_csv_names_file_line_and_key(write: Write, lines: list[str], message: str) -> None:
    """One line: where, what is wrong, what to do."""
    path = write(*lines)
    with pytest.raises(UsageError, match="^" + re.escape(f"{path}:{message}") + "$"):
        load_inventory(path)


WEB = '[[vm]]\nvm = "web"\ntenant = "acme"\naddress = "10.0.0.5"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WEB + '[[vm]]\nvm = "db"\ntenant = "acme"\naddress = ["10.0.0.6", "x"]',
         "vm number 2: address: 'x' is no address; write for example 10.0.0.5, 10.0.0.0/24 or fd00::5"),
        (WEB + "vlan = true", "vm number 1: vlan: takes a whole number"),
        (WEB + "vni = 1.5", "vm number 1: vni: takes a whole number"),
        (WEB + "vlan = 5000", "vm number 1: vlan: '5000' is no VLAN; write a number from 1 to 4094, or nothing"),
        (WEB + "host = 7", "vm number 1: host: takes text in quotes"),
        (WEB + "role = [1]", "vm number 1: role: takes text in quotes"),
        (WEB + 'rolle = "x"', "vm number 1: 'rolle': not known in an inventory; did you mean 'role'?"),
        (WEB + 'role = "a\\nb"', "vm number 1: role: has the control character U+000A; remove it"),
        ('[[vm]]\ntenant = "acme"\naddress = "10.0.0.5"',
         "vm number 1: vm: is empty; every entry names its VM and its tenant"),
        ('[[vm]]\nvm = "web"\ntenant = "acme"\naddress = []',
         "vm number 1: address: neither an address nor a MAC address is given; give at least one of them"),
        ('[[vms]]\nvm = "web"', "'vms': not known in an inventory; did you mean 'vm'?"),
        ('[vm]\nvm = "web"',
         "vm: no list of VMs; begin each with a line [[vm]]; vm = [] is an inventory of none"),
        ("", "vm: no list of VMs; begin each with a line [[vm]]; vm = [] is an inventory of none"),
        ('vm = ["web"]', "vm number 1: vm: not a table; begin each VM with a line [[vm]]"),
    ],
)  # fmt: skip
def test_each_error_in_toml_names_file_vm_and_key(write: Write, text: str, message: str) -> None:
    """TOML has no line numbers once it is read; the VM's number in the file stands for them."""
    path = write(text, name="vms.toml")
    with pytest.raises(UsageError, match="^" + re.escape(f"{path}: {message}") + "$"):
        load_inventory(path)


@pytest.mark.parametrize("text", ["vm = ", "vm = " + "[" * 20_000, "vm = " + "9" * 5000])
def test_what_is_no_toml_is_refused(write: Write, text: str) -> None:
    """In one line, also where the parser itself gives up in another way."""
    path = write(text, name="vms.toml")
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: not valid TOML: .+$"):
        load_inventory(path)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("web,acme,10.0.0.5", "db,acme,10.0.0.5", "address: 10.0.0.5"),
        ("web,acme,10.0.0.5", "web,two,10.0.0.5", "address: 10.0.0.5"),
        ("web,acme,10.0.0.5,,10", "db,acme,10.0.0.5,,10", "address: 10.0.0.5"),
        ("web,acme,fd00::5,,,7", "db,acme,fd00::5,,,7", "address: fd00::5"),
        ("web,acme,10.0.0.5,,,7", "db,acme,10.0.0.5", "address: 10.0.0.5"),
        ("web,acme,10.0.0.5", "db,acme,10.0.0.5,,10", "address: 10.0.0.5"),
        ("web,acme,10.0.0.0/24,,10", "db,acme,10.0.0.0/24,,10", "address: 10.0.0.0/24"),
        ("web,acme,,02:00:00:00:00:01", "db,acme,,02-00-00-00-00-01", "mac: 02:00:00:00:00:01"),
        ("web,acme,,02:00:00:00:00:01,10", "db,acme,,02:00:00:00:00:01", "mac: 02:00:00:00:00:01"),
    ],
)
def test_two_vms_that_one_packet_fits_are_refused(write: Write, first: str, second: str, message: str) -> None:
    """The message names both lines."""
    path = write(HEADER, first, "# between", second)
    with pytest.raises(UsageError) as raised:
        load_inventory(path)
    assert str(raised.value) == (
        f"{path}:4: {message} is also that of VM 'web' of tenant 'acme' ({path}:2), and one packet can fit both; "
        "give each its own vlan or vni, or remove one"
    )


def test_what_is_told_apart_may_overlap(write: Write) -> None:
    """Other domains, other lengths, the same VM again, a prefix in a domain and everywhere."""
    lines = [
        "web,acme,10.0.0.5,,10", "db,two,10.0.0.5,,11", "nat,acme,10.0.0.0/24,,10", "net,two,10.0.0.0/16,,10",
        "web,acme,10.0.0.5,02:00:00:00:00:01,10", "rest,three,10.0.0.0/24", "db,two,10.0.0.6,02:00:00:00:00:01,11",
    ]  # fmt: skip
    assert len(load_inventory(write(HEADER, *lines)).entries) == len(lines)


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    """As older spreadsheets write it."""
    path = tmp_path / "vms.csv"
    path.write_bytes(f"{HEADER}\nweb,acme,10.0.0.5\nbüro,acme,10.0.0.6\n".encode("latin-1"))
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}:3: text: not UTF-8; save the file as UTF-8$"):
        load_inventory(path)


def test_an_empty_file_is_no_inventory(write: Write) -> None:
    """It is more likely one that is just being written."""
    path = write("# nothing here")
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: vm: the file is empty; .+: {HEADER}$"):
        load_inventory(path)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    """Missing, a directory, or a pipe, on which the sensor would wait."""
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("none", "No such file or directory"), (".", "not a regular file"), ("pipe", "not a reg")):
        path = tmp_path / name
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: cannot read the inventory: {reason}"):
            load_inventory(path)


def test_size_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """By entries, and by octets before they are looked at."""
    path = write(HEADER, *(f"vm{i},acme,10.0.0.{i}" for i in range(1, 5)))
    monkeypatch.setattr(inventoryfile, "MOST_ENTRIES", 3)
    with pytest.raises(UsageError, match=r"vms\.csv:5: vm: more than 3 entries; write prefixes for whole subnets$"):
        load_inventory(path)
    monkeypatch.setattr(inventoryfile, "MOST_OCTETS", path.stat().st_size - 1)
    with pytest.raises(UsageError, match=r"vms\.csv: file: larger than 0 MiB; write prefixes for whole subnets$"):
        load_inventory(path)


@given(st.binary(max_size=200), st.sampled_from([".csv", ".toml"]))
@settings(max_examples=200, deadline=None)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, octets: bytes, suffix: str) -> None:
    """Nothing but a SensorError of one line comes out of garbage."""
    path = tmp_path_factory.getbasetemp() / f"garbage{suffix}"
    path.write_bytes(HEADER.encode() + b"\n" + octets if suffix == ".csv" else octets)
    message = ""
    try:
        load_inventory(path)
    except SensorError as error:
        message = str(error)
    assert "\n" not in message


def test_the_sensors_own_names_are_reserved() -> None:
    """They are the names of what is outside or no VM, and of the overflow."""
    assert set(inventoryfile.RESERVED) == {registry.EXTERNAL, registry.MULTICAST, registry.UNSPECIFIED, parties.OTHER}


def test_a_hundred_thousand_entries_are_loaded(write: Write) -> None:
    """Every one of them is found again."""
    lines = [f"vm{i},t{i % 100},10.{i >> 16}.{i >> 8 & 255}.{i & 255},,,{i % 100}" for i in range(100_000)]
    found = load_inventory(write(HEADER, *lines))
    assert (len(found.vms()), len(found.tenants)) == (100_000, 100)
    for i in range(0, 100_000, 997):
        one = found.match((), i % 100, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
        assert one is not None
        assert one.owner == (f"vm{i}", f"t{i % 100}")


def test_many_domains_with_one_address_do_not_slow_loading() -> None:
    """The same gateway address in 20,000 domains, and one VM with as many addresses: no pair is compared."""
    gateways = [entry(f"gw{i}", "10.0.0.1", f"t{i}", vni=i) for i in range(20_000)]
    many = [entry("nat", f"10.1.{i >> 8}.{i & 255}") for i in range(20_000)] + [entry("nat", "10.2.0.1")] * 20_000
    found = Inventory((*gateways, *many))
    assert len(found.owners("10.0.0.1")) == 20_000
    assert len(found.entries_of("nat", "acme")) == 40_000


# --- what a change does ----------------------------------------------------------------------------------------------


class Watched:
    """A watched file and the complaints about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complaints: list[str] = []
        self.source = WatchedFile(path, load_inventory, "inventory", self.complaints.append)

    def names(self) -> list[str]:
        """The VMs of now."""
        return [vm for vm, _ in self.source.current().vms()]

    def counts(self) -> tuple[int, int]:
        """Reloads and failures."""
        return self.source.reloads, self.source.failures


def replace(path: Path, *lines: str) -> None:
    """Put another file into the place of one, as careful programs do."""
    new = path.with_name("new")
    new.write_text("".join(line + "\n" for line in (HEADER, *lines)))
    new.replace(path)


@pytest.fixture
def watched(write: Write) -> Watched:
    """An inventory of one VM."""
    return Watched(write(HEADER, "web,acme,10.0.0.5"))


def test_an_unchanged_file_is_not_read_again(watched: Watched) -> None:
    """The same object comes back."""
    first = watched.source.current()
    assert watched.source.current() is first
    assert (watched.counts(), watched.complaints) == ((0, 0), [])


def test_a_file_that_is_gone_is_said_also_when_it_is_asked_for(watched: Watched) -> None:
    """At a reload as at the next look; what was good stays in force."""
    watched.path.unlink()
    watched.source.again()
    assert watched.names() == ["web"]
    watched.source.again()
    assert watched.names() == ["web"]
    assert watched.counts() == (0, 2)
    assert all("stays in force" in complaint for complaint in watched.complaints)


def test_a_changed_file_is_taken_whole(watched: Watched) -> None:
    """The inventory that was handed out before stays what it was."""
    before = watched.source.current()
    watched.path.write_text(f"{HEADER}\ndb,acme,10.0.0.6\ncache,acme,10.0.0.7\n")
    assert watched.names() == ["db", "cache"]
    assert before.vms() == [("web", "acme")]
    assert before.version != watched.source.current().version
    assert watched.counts() == (1, 0)


def test_a_replaced_file_is_seen_though_size_and_time_are_the_same(watched: Watched) -> None:
    """Renamed into place, as editors and `mv` do."""
    was = watched.path.stat()
    replace(watched.path, "app,acme,10.0.0.5")
    os.utime(watched.path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert watched.path.stat().st_size == was.st_size
    assert watched.names() == ["app"]


def test_a_bad_file_is_complained_about_once_and_the_good_one_kept(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new mistake is said once; when the file is good again it is taken."""
    for _ in range(2):
        replace(watched.path, "web,acme,10.0.0.5", "db,acme,10.0.0.999")
        assert [watched.names() for _ in range(3)] == [["web"]] * 3
    assert watched.counts() == (0, 2)
    assert len(watched.complaints) == 2
    assert re.fullmatch(
        re.escape(f"{watched.path}:3: address: '10.0.0.999' is no address; ")
        + r"[^\n]+; the inventory of \d\d:\d\d:\d\d stays in force",
        watched.complaints[0],
    )
    monkeypatch.setattr(time, "strftime", lambda form: "12:34:56")
    replace(watched.path, "db,acme,10.0.0.6")
    assert watched.names() == ["db"]
    assert (watched.counts(), len(watched.complaints)) == ((1, 2), 2)
    replace(watched.path, "db,acme,")
    assert watched.names() == ["db"]
    assert watched.complaints[2].endswith("; the inventory of 12:34:56 stays in force")


def test_a_vanished_file_is_complained_about_once(watched: Watched) -> None:
    """Its VMs stay until there is a file again, were it the same one."""
    away = watched.path.rename(watched.path.with_name("away"))
    assert [watched.names() for _ in range(3)] == [["web"]] * 3
    assert len(watched.complaints) == 1
    assert watched.complaints[0].startswith(f"{watched.path}: cannot read the inventory: No such file or directory; ")
    away.rename(watched.path)
    assert watched.names() == ["web"]
    assert (watched.counts(), len(watched.complaints)) == ((1, 1), 1)


def test_a_link_to_another_file_is_seen(tmp_path: Path) -> None:
    """As orchestrators change a mounted file."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"{HEADER}\n{name},acme,10.0.0.5\n")
    link = tmp_path / "vms.csv"
    link.symlink_to("one.csv")
    watched = Watched(link)
    (tmp_path / "next").symlink_to("two.csv")
    (tmp_path / "next").replace(link)
    assert watched.names() == ["two"]


def test_a_file_that_becomes_readable_is_taken(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of its mode is a change, though its content and time stay."""

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    replace(watched.path, "db,acme,10.0.0.6")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)  # root, who may run the tests, can read any file
        assert watched.names() == ["web"]
    assert watched.complaints[0].startswith(f"{watched.path}: cannot read the inventory: Permission denied; ")
    assert watched.names() == ["web"]
    time.sleep(0.02)  # the clock of file systems is coarse
    watched.path.chmod(0o600)
    assert watched.names() == ["db"]


def test_a_bad_file_at_the_start_is_raised(write: Write) -> None:
    """There is nothing yet to go on with."""
    with pytest.raises(UsageError):
        Watched(write(HEADER, "web,acme"))


def test_a_fixed_inventory_stays() -> None:
    """Without an argument it is empty."""
    fixed = stock(entry("web", "10.0.0.5"))
    sources: list[InventorySource] = [Fixed(fixed), Fixed(Inventory())]
    assert sources[0].current() is fixed
    assert sources[1].current().entries == ()


# --- the page --------------------------------------------------------------------------------------------------------


def examples(language: str) -> list[str]:
    """The page's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_page_are_valid_and_say_the_same(write: Write) -> None:
    """The CSV and the TOML file are the same inventory of two tenants on the same addresses."""
    (table,), (tables,) = examples("csv"), examples("toml")
    from_csv, from_toml = load_inventory(write(table)), load_inventory(write(tables, name="vms.toml"))
    assert from_csv.entries == from_toml.entries
    names = [(match := from_csv.match((), vni, "10.0.0.10")) and match.owner for vni in (5001, 5002)]
    assert names == [("web", "acme"), ("shop", "globex")]


def test_the_page_names_every_column_and_bound() -> None:
    """Nothing that a file can hold is left out."""
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{column}` |" in page for column in COLUMNS)
    assert f"{inventoryfile.MOST_ENTRIES:,}" in page
    assert f"{inventoryfile.MOST_OCTETS // 2**20} MiB" in page
    assert all(f"`{name}`" in page for name in inventoryfile.RESERVED)


def test_the_source_of_the_page_works() -> None:
    """It serves what it fetches, keeps it when fetching fails or brings nonsense, and says each trouble once."""
    (code,) = examples("python")
    space: dict[str, Any] = {}
    exec(code, space)
    good = {"vm": "web", "tenant": "acme", "address": ["10.0.0.5", "fd00::5"]}
    answers: list[Any] = [
        [good], [good], OSError("down"), OSError("down"), [good, {"vm": "x"}],
        [{"vm": "db", "tenant": "acme", "address": "10.0.0.6", "mac": None}],
    ]  # fmt: skip

    def fetch() -> list[dict[str, object]]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        rows: list[dict[str, object]] = answer
        return rows

    said: list[str] = []
    source = space["FetchedInventory"](fetch, said.append, seconds=3600)
    first = source.current()
    assert first.vms() == [("web", "acme")]
    for _ in range(4):
        source.refresh()
        assert source.current() is first
    assert said == [
        "inventory: down; the last good one stays in force",
        "inventory: row 2: tenant: is empty; every entry names its VM and its tenant; the last good one stays in force",
    ]
    source.refresh()
    assert (source.current().vms(), len(said)) == ([("db", "acme")], 2)
