"""The life of VMs and their movement: what is said, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sensor import native
from sensor.analysis import lifecycle, movement
from sensor.analysis.findings import Finding, Scene
from sensor.analysis.lifecycle import LifeWatch
from sensor.analysis.movement import MovementWatch
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.heard import Heard
from sensor.identity.inventory import Entry, Inventory
from sensor.identity.parties import resolve
from sensor.identity.registry import Registry
from sensor.native import NumpyArray
from sensor.watch import Fixed
from tests.records import SECOND, START, record

LIMITS = {limit.name: limit.default for limit in (*lifecycle.LIMITS, *movement.LIMITS)}
WINDOW = 10
WEB, DB = [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]
WEB_MAC = "02:00:00:00:00:01"
VXLAN = native.TUNNELS.index("vxlan")


def vtep(last: int) -> list[int]:
    """The octets of a tunnel end's address."""
    return [192, 0, 2, last, *[0] * 12]


def talk(
    number: int, client: str = "10.0.0.1", server: str = "10.0.0.2", *, both: bool = True, behind: int | None = None,
    **fields: Any,
) -> NumpyArray:  # fmt: skip
    """A flow of window ``number``, from and to cards of their own; ``behind`` is the client's tunnel end."""
    end = START + number * WINDOW * SECOND + SECOND
    tunnel = {} if behind is None else {
        "vni": 7, "tunnel": VXLAN, "outer_ip_version": 4, "outer_src": vtep(behind), "outer_dst": vtep(200)
    }  # fmt: skip
    values = {"client_mac": WEB, "server_mac": DB, "c2s_packets": 5, "s2c_packets": 5 if both else 0, "end_ns": end}
    return record(client, server, **{**values, **tunnel, **fields})


def scene(
    number: int, *records: NumpyArray, heard: Sequence[Heard] = (), presence: NumpyArray | None = None,
    inventory: Inventory | None = None,
) -> Scene:  # fmt: skip
    """Window ``number``."""
    rows = np.concatenate(records) if records else np.zeros(0, native.RECORD)
    registry = Registry(PRIVATE_NETWORKS, Fixed(inventory or Inventory()))
    start = START + number * WINDOW * SECOND
    return Scene(start, start + WINDOW * SECOND, rows, resolve(rows, registry), heard, registry.inventory, presence)


def silence(ms: float, packets: int = 2000, card: list[int] = WEB) -> NumpyArray:
    """A card's longest silence in a window."""
    one = np.zeros(1, native.PRESENCE)
    one["mac"], one["gap_ns"], one["gap_end_ns"], one["packets"] = card, ms * 1e6, START + SECOND, packets
    return one


def said(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Kinds and subjects."""
    return [(finding.kind, finding.subject) for finding in findings]


# ---- lives


def test_a_vm_that_appears_and_ends() -> None:
    """New after the sensor has learned who is there; silent, back, silent again, terminated: each said once."""
    watch = LifeWatch(LIMITS)
    events = []
    for number in range(600):
        talks = [talk(number, "10.0.0.8", "10.0.0.9")]
        if 40 <= number < 50 or 90 <= number < 92:
            talks.append(talk(number, "10.0.0.1", "10.0.0.9"))
        events += [(number, *one) for one in said(list(watch.look(scene(number, *talks))))]
    assert [(kind, vm) for _, kind, vm in events] == [
        ("vm_appeared", "10.0.0.1"), ("vm_silent", "10.0.0.1"), ("vm_returned", "10.0.0.1"),
        ("vm_silent", "10.0.0.1"), ("vm_terminated", "10.0.0.1"),
    ]  # fmt: skip
    assert [number for number, *_ in events] == [40, 79, 90, 121, 451]


def test_nobody_is_new_to_a_sensor_that_has_just_started() -> None:
    """The VMs of the first minutes were there before; so is one that is only talked to, never heard."""
    watch = LifeWatch(LIMITS)
    assert said(list(watch.look(scene(0, talk(0))))) == []
    assert said(list(watch.look(scene(50, talk(50), talk(50, "10.0.0.1", "10.0.0.77", both=False))))) == []


def test_outsiders_and_groups_have_no_life() -> None:
    """Addresses outside, multicast and the unspecified address are no VMs."""
    watch = LifeWatch(LIMITS)
    list(watch.look(scene(0, talk(0))))
    records = (talk(50, "198.51.100.1", "10.0.0.2"), talk(50, "0.0.0.0", "255.255.255.255", both=False))
    assert "vm_appeared" not in dict(said(list(watch.look(scene(50, *records)))))


def test_lives_survive_a_restart_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known is not new after a restart; of too many, those heard least lately are forgotten."""
    watch = LifeWatch(LIMITS)
    list(watch.look(scene(0, talk(0))))
    again = LifeWatch(LIMITS)
    again.restore(watch.to_json())
    assert said(list(again.look(scene(29, talk(29))))) == []
    monkeypatch.setattr(lifecycle, "MOST_VMS", 10)
    many = [talk(30, f"10.0.1.{i}", "10.0.0.2") for i in range(1, 40)]
    list(again.look(scene(30, *many)))
    assert len(again.to_json()["vms"]) == 10
    assert again.forgotten > 20


# ---- movement


def migrations(watch: MovementWatch, *scenes: Scene) -> list[Finding]:
    """What a row of windows says of moves, with what is left at the end."""
    found = [finding for one in scenes for finding in watch.look(one)]
    return [finding for finding in [*found, *watch.flush()] if finding.kind == "vm_migrated"]


def test_another_tunnel_end_is_a_migration() -> None:
    """The VM is behind another host: told once, with the blackout and the RTT before and after."""
    samples = {"s2c_rtt_count": 10}
    (move,) = migrations(
        MovementWatch(LIMITS),
        scene(0, talk(0, behind=1, s2c_rtt_min_ns=200_000, **samples)),
        scene(1, talk(1, behind=2, s2c_rtt_min_ns=900_000, **samples), presence=silence(480)),
        scene(2, talk(2, behind=2, s2c_rtt_min_ns=500_000, **samples)),
        scene(3, talk(3, behind=2, s2c_rtt_min_ns=500_000, **samples)),
    )
    assert (move.subject, move.tenant, move.object, move.once) == ("10.0.0.1", "vni7", "192.0.2.2", True)
    assert move.counts == {"blackout_us": 480_000, "rtt_before_us": 200, "rtt_after_us": 500}
    assert "from vni7 behind 192.0.2.1 to vni7 behind 192.0.2.2" in move.detail


def test_a_move_within_one_window_counts_once() -> None:
    """Flows of both places in one window: where it was seen last is where it is."""
    (move,) = migrations(
        MovementWatch(LIMITS),
        scene(0, talk(0, behind=1)),
        scene(1, talk(1, behind=1), talk(1, behind=2, client_port=5, end_ns=START + 15 * SECOND)),
        scene(2, talk(2, behind=2)),
    )
    assert move.object == "192.0.2.2"


def test_rarp_is_a_migration() -> None:
    """A hypervisor announces a card that it has taken over; of one that nobody knew it is only the first."""
    rarp = [Heard(START + 11 * SECOND, "rarp", WEB_MAC)]
    watch = MovementWatch(LIMITS)
    (move,) = migrations(watch, scene(0, talk(0)), scene(1, talk(1), heard=rarp, presence=silence(300)))
    assert move.counts == {"blackout_us": 300_000}
    assert migrations(MovementWatch(LIMITS), scene(1, talk(1), heard=rarp)) == []


@pytest.mark.parametrize(("ms", "packets", "moves"), [(400, 2000, 1), (400, 50, 0), (30_000, 2000, 0), (5, 2000, 0)])
def test_gratuitous_arp_is_a_migration_only_after_a_blackout(ms: float, packets: int, moves: int) -> None:
    """A silence far longer than usual and yet short; not a VM that is idle anyway, nor one that was off."""
    garp = [Heard(START + 11 * SECOND, "binding", WEB_MAC, ip="10.0.0.1", gratuitous=True)]
    found = migrations(
        MovementWatch(LIMITS), scene(0, talk(0)), scene(1, talk(1), heard=garp, presence=silence(ms, packets))
    )
    assert len(found) == moves


def test_the_inventory_moves_a_vm() -> None:
    """Another host in the inventory is a migration; the VM's name and tenant stay."""

    def on(host: str) -> Inventory:
        return Inventory((Entry("web", "shop", mac=WEB_MAC, host=host),))

    (move,) = migrations(
        MovementWatch(LIMITS), scene(0, talk(0), inventory=on("host-1")), scene(1, talk(1), inventory=on("host-2"))
    )
    assert (move.subject, move.tenant, move.object) == ("web", "shop", "host-2")


def test_what_stays_is_no_migration() -> None:
    """Same place; a flow that leaves the tunnel for a window; a router in two VLANs at a time; an ERSPAN session."""
    erspan = {"tunnel": native.TUNNELS.index("erspan"), "outer_ip_version": 4}
    routers = [talk(1, f"10.0.0.{i}", "10.0.0.200", vlan=(10 + i % 2,)) for i in range(1, 20)]
    assert migrations(
        MovementWatch(LIMITS),
        scene(0, talk(0, behind=1)), scene(1, talk(1, behind=1)), scene(2, talk(2, vni=7)), scene(3, talk(3, behind=1)),
    ) == []  # fmt: skip
    assert migrations(MovementWatch(LIMITS), scene(0, *routers), scene(1, *routers)) == []
    assert migrations(
        MovementWatch(LIMITS),
        scene(0, talk(0, outer_src=vtep(1), **erspan)), scene(1, talk(1, outer_src=vtep(2), **erspan)),
    ) == []  # fmt: skip


def test_a_new_address() -> None:
    """Told once the old one has been silent for a minute; a second address beside the first is none."""
    watch = MovementWatch(LIMITS)
    found = []
    for number in range(20):
        ip = "10.0.0.1" if number < 5 else "10.0.0.50"
        found += [(number, f) for f in watch.look(scene(number, talk(number, ip)))]
    assert [(number, f.kind, f.subject, f.object) for number, f in found] == [
        (10, "vm_address_changed", "10.0.0.50", "10.0.0.50")
    ]
    assert found[0][1].detail == "had 10.0.0.1 until then"
    both = MovementWatch(LIMITS)
    for number in range(20):
        records = (talk(number), talk(number, "10.0.0.50"), talk(number, "fd00::1", "fd00::2"))
        assert list(both.look(scene(number, *records))) == []


def test_cards_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of MAC addresses takes no more memory, and is counted."""
    monkeypatch.setattr(movement, "MOST_CARDS", 50)
    watch = MovementWatch(LIMITS)
    for number in range(10):
        records = [talk(number, f"10.0.{number}.{i}", client_mac=[2, 1, 0, 0, number, i]) for i in range(1, 30)]
        list(watch.look(scene(number, *records)))
    assert watch.forgotten > 200
