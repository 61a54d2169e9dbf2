"""The capture NIC watched: what it loses under each counter's own name, how full its link is, changes of its MTU."""

from __future__ import annotations

import errno
import json
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sensor import nic
from sensor.analysis.findings import Finding, Scene
from sensor.nic import Link
from sensor.nicwatch import FRAME_OVERHEAD, NicWatch
from tests.lab import Lab, wait_until
from tests.live import Sensor

GIGABIT = 1_000_000_000


class Scripted:
    """An interface that is what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.link: Link | None = Link(4, 1500, {})
        self.driver: dict[str, int] = {}
        self.speed: int | None = GIGABIT
        self.backlog: int | None = 500_000
        monkeypatch.setattr(nic.Links, "of", lambda *_: self.link)
        monkeypatch.setattr(nic, "driver_losses", lambda _: dict(self.driver))
        monkeypatch.setattr(nic, "speed_of", lambda _: self.speed)
        monkeypatch.setattr(nic, "backlog_drops", lambda: self.backlog)

    def counts(self, number: int = 4, mtu: int = 1500, **counters: int) -> None:
        """What netlink says from now on."""
        self.link = Link(number, mtu, counters)

    def watch(self, speed: int | None = None) -> NicWatch:
        """One that begins now."""
        return NicWatch("eth1", speed, lambda: self.now)


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A gigabit interface."""
    return Scripted(monkeypatch)


def looked(watch: NicWatch) -> list[Finding]:
    """What it finds in a window; it needs the window's time alone."""
    scene = Scene(7, 8, *(cast("Any", None),) * 4)
    return list(watch.look(scene))


def test_each_counter_keeps_its_name_and_what_was_lost_before_is_not_ours(interface: Scripted) -> None:
    """The sum is of what excludes one another; damaged frames and the driver's counters are in none."""
    interface.counts(rx_dropped=1000, rx_missed_errors=1000, rx_fifo_errors=1000, rx_errors=1000)
    interface.driver = {"rx_no_buffer_count": 1000}
    watch = interface.watch()
    interface.counts(rx_dropped=1009, rx_missed_errors=1020, rx_fifo_errors=1300, rx_errors=5000)
    interface.backlog = 500_001
    interface.driver = {"rx_no_buffer_count": 1007}
    assert watch.dropped == 321
    looked(watch)
    figures = watch.figures()
    assert {name: figures[name] for name in figures if name.startswith("nic_")} == {
        "nic_rx_dropped": 9, "nic_backlog": 1, "nic_rx_missed": 20, "nic_rx_fifo": 300, "nic_rx_errors": 4000,
        "nic_driver_losses": 7,
    }  # fmt: skip


def test_a_backlog_is_of_all_interfaces(interface: Scripted) -> None:
    """What other interfaces lost there is not this one's; a kernel that does not tell leaves it out of the sum."""
    watch = interface.watch()
    interface.counts(rx_dropped=3)
    interface.backlog = 500_100
    assert (watch.dropped, watch.figures()["nic_backlog"]) == (3, 3)
    interface.backlog = None
    assert watch.dropped == 0
    assert "nic_backlog" not in watch.figures()


def test_a_new_interface_of_the_name_counts_from_zero(interface: Scripted) -> None:
    """What the one before had lost stays counted; while there is none, what was told last stands."""
    interface.counts(rx_missed_errors=10)
    watch = interface.watch()
    interface.counts(rx_missed_errors=15)
    assert watch.dropped == 5
    interface.link = None
    assert watch.dropped == 5
    interface.counts(number=9, rx_missed_errors=2)
    assert watch.dropped == 7
    interface.counts(number=9, rx_missed_errors=1)  # a driver that was reset
    assert watch.dropped == 7


def test_nothing_is_known_of_what_is_not_there(interface: Scripted) -> None:
    """Null, not zero: no interface, no counters of a driver, no speed."""
    interface.link, interface.speed = None, None
    watch = interface.watch()
    looked(watch)
    assert (watch.dropped, watch.figures()) == (None, {})


def test_the_busiest_second_counts_what_frames_take_on_the_wire(interface: Scripted) -> None:
    """Of three seconds the middle one; each frame takes 24 octets more than its counters say."""
    interface.counts(rx_bytes=0, rx_packets=0)
    watch, packets, octets = interface.watch(), 0, 0
    for more in (10_000, 100_000, 1000):
        packets, octets = packets + more, octets + more * 1000
        interface.now += 1
        interface.counts(rx_bytes=octets, rx_packets=packets)
        watch.sample()
    assert looked(watch) == []
    peak = 100_000 * (1000 + FRAME_OVERHEAD) * 8
    figures = watch.figures()
    assert (figures["link_peak_bps"], figures["link_speed_bps"]) == (peak, GIGABIT)
    assert figures["link_busy_ratio"] == pytest.approx(peak / GIGABIT)
    looked(watch)
    assert "link_peak_bps" not in watch.figures()  # a window in which nobody looked


def test_a_link_that_is_nearly_full_is_said(interface: Scripted) -> None:
    """From 90 %, with what to do; by the speed that the user gave, where he did."""
    for given, octets, said in (
        (None, 112_000_000, False),
        (None, 112_600_000, True),
        (10 * GIGABIT, 112_600_000, False),
    ):
        interface.counts(rx_bytes=0)
        watch = interface.watch(given)
        interface.now += 1
        interface.counts(rx_bytes=octets)
        watch.sample()
        found = looked(watch)
        assert [one.kind for one in found] == ["mirror_oversubscribed"] * said
        assert all("90% of 1 Gbit/s" in one.detail and "fewer ports" in one.detail for one in found)


def test_a_change_of_the_mtu_is_an_event(interface: Scripted) -> None:
    """Each once, with both values; also when the interface is another one."""
    watch = interface.watch()
    interface.counts(mtu=9000)
    watch.sample()
    interface.now += 1
    watch.sample()
    interface.counts(number=8, mtu=1400)
    interface.now += 1
    watch.sample()
    assert [(one.kind, dict(one.counts)) for one in looked(watch)] == [
        ("mtu_changed", {"before": 1500, "after": 9000}), ("mtu_changed", {"before": 9000, "after": 1400}),
    ]  # fmt: skip
    assert looked(watch) == []


def test_what_a_driver_counts_is_said_by_its_names(interface: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """They are the driver's own, and tell somebody who knows it where to look."""
    interface.driver = {"rx_out_of_buffer": 3, "rx_discards_phy": 9}
    watch = interface.watch()
    interface.driver = {"rx_out_of_buffer": 5, "rx_discards_phy": 9}
    with caplog.at_level(logging.WARNING):
        looked(watch)
        looked(watch)
    assert [record.getMessage() for record in caplog.records] == [
        "eth1: frames lost by the NIC, as its driver calls it: rx_out_of_buffer 2"
    ]


def test_counters_of_drivers_are_known_by_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of what was received; those of queues only where there are none of the whole."""
    whole = {
        "rx_dropped": 1,
        "rx_no_buffer_count": 2,
        "rx_missed_errors": 3,
        "rx_discards_phy": 4,
        "port.rx_dropped": 5,
    }
    queues = {"rx_queue_0_drops": 1, "rx0_dropped": 2, "rx-1.rx_drops": 3, "queue_2_rx_missed": 4}
    other = {
        "rx_packets": 9,
        "tx_dropped": 9,
        "tx_queue_0_drops": 9,
        "rx_bytes": 9,
        "collisions": 9,
        "vport_tx_drops": 9,
    }
    for told, expected in ((whole | queues | other, whole), (queues | other, queues), (other, {})):
        monkeypatch.setattr(nic, "_statistics", lambda _, told=told: list(told.items()))
        assert nic.driver_losses("eth1") == expected


# ---- real interfaces


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port that a test may overrun."""
    with Lab(["web"]) as lab:
        yield lab


def points(path: Path, measurement: str) -> list[dict[str, Any]]:
    """What a capture has written so far."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [point for point in read if point["measurement"] == measurement]


def test_of_a_real_interface(lab: Lab, tmp_path: Path) -> None:
    """Its MTU changes and its link gets full while it is captured: two events, and the capture goes on."""
    told = tmp_path / "points.jsonl"
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", f"json:{told}", "--window", "2s", "--link-speed", "100K")
    lab.tap.run(["ip", "link", "set", "dev", "span0", "mtu", "1400"])
    with lab.switch.socket(17, 3) as wire:  # AF_PACKET, SOCK_RAW
        wire.bind(("span", 0))
        for _ in range(40):
            wire.send(b"\xff" * 12 + b"\x88\xb5" + bytes(1000))
            time.sleep(0.05)
    wait_until(lambda: len(points(told, "event")) >= 2, "both events")
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, 40)
    events = {point["tags"]["kind"]: point["fields"] for point in points(told, "event")}
    assert events["mtu_changed"]["detail"] == "the MTU of span0 was 1500 and is 1400"
    assert events["mirror_oversubscribed"]["subject"] == "span0"
    own = [point["fields"] for point in points(told, "sensor")]
    assert {fields["link_speed_bps"] for fields in own} == {100_000}
    assert all(fields["nic_driver_losses"] == 0 for fields in own)  # veth counts the drops of its queues


def test_a_socket_that_breaks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answers for as long as it can, also of an interface that is not there; then the next one does."""
    opened, real = [], nic.IPRoute

    def open_one() -> Any:
        opened.append(real())
        return opened[-1]

    monkeypatch.setattr(nic, "IPRoute", open_one)
    links = nic.Links()
    assert links.of("lo") is not None
    assert links.of("nosuch0") is None
    assert len(opened) == 1
    monkeypatch.setattr(opened[0], "link", broken)
    assert links.of("lo") is None
    found = links.of("lo")
    links.close()
    assert found is not None
    assert (found.number, len(opened)) == (1, 2)


def broken(*_: object, **__: object) -> None:
    """What a socket says of which nobody has taken the answers."""
    raise OSError(errno.ENOBUFS, "No buffer space available")
