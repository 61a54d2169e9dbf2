"""Stamps by the NIC: its clock, read through ioctls, and who stamps packets when.

No interface that a test can make stamps packets, so a fake kernel answers the ioctls, as the kernel's headers lay them
out; the socket, its ring and the refusals are real.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensor import capturenic, nicclock, ring
from sensor.capturenic import CaptureNic
from sensor.errors import InterfaceError
from sensor.fanout import SOL_PACKET
from sensor.flowtable import Ring
from sensor.nicclock import FILTER_ALL, FILTER_NONE, IN_STEP_NS, NicClock, Stamping
from sensor.ring import BY_HOST, BY_NIC, PACKET_TIMESTAMP, RingSource
from sensor.tap import Tap
from tests.lab import Lab
from tests.live import Sensor
from tests.needs import need_root, need_tool
from tests.ringblocks import block
from tests.streams import START, table_of, udp_frame

PTP_EVENTS = 12  # HWTSTAMP_FILTER_PTP_V2_EVENT
ALL_OF_IT = Stamping(0b1011111, 3, 1 << FILTER_NONE | 1 << FILTER_ALL | 1 << PTP_EVENTS)
TAI_NS = 37_000_000_000


class Nic:
    """An interface with a clock, behind the kernel's ioctls."""

    def __init__(self) -> None:
        self.stamping: Stamping | None = ALL_OF_IT
        self.config = (0, 1, FILTER_NONE)
        self.refuses_to_set = False
        self.ahead_ns = 0
        self.asked: list[int] = []

    def ioctl(self, _: Any, request: int, argument: bytes) -> bytes:
        """In place of ``fcntl.ioctl``."""
        self.asked.append(request)
        if request == nicclock._PTP_SYS_OFFSET:
            return self._offsets(argument)
        name, pointer = struct.unpack("16sP16x", argument)
        assert name.rstrip(b"\0") == b"eth1"
        if self.stamping is None or (request == nicclock._SIOCSHWTSTAMP and self.refuses_to_set):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if request == nicclock._SIOCETHTOOL:
            takes, clock, filters = self.stamping
            answer = struct.pack("IIiI3II3I", 0x41, takes, clock, 0, 0, 0, 0, filters, 0, 0, 0)
            ctypes.memmove(pointer, answer, len(answer))
        elif request == nicclock._SIOCGHWTSTAMP:
            ctypes.memmove(pointer, struct.pack("iii", *self.config), 12)
        else:
            self.config = struct.unpack("iii", ctypes.string_at(pointer, 12))
        return b""

    def _offsets(self, argument: bytes) -> bytes:
        """Ten readings; all but the eighth were held up, in the middle, for longer and longer."""
        (samples,) = struct.unpack_from("I", argument)
        times = [START]
        for number in range(samples):
            late = 0 if number == 7 else 500_000 + 1000 * number
            times += [times[-1] + 1000 + late + self.ahead_ns, times[-1] + 2000 + late]
        packed = b"".join(struct.pack("qI4x", *divmod(ns, 1_000_000_000)) for ns in times)
        return (struct.pack("I12x", samples) + packed).ljust(len(argument), b"\0")


@pytest.fixture
def nic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Nic]:
    """One that can stamp all packets, stamps none so far, and is in step."""
    nic = Nic()
    (tmp_path / "ptp3").touch()
    monkeypatch.setattr(nicclock, "DEVICE", str(tmp_path / "ptp{}"))
    monkeypatch.setattr(nicclock.fcntl, "ioctl", nic.ioctl)
    yield nic
    monkeypatch.undo()


def test_what_is_asked_is_laid_out_as_in_the_kernels_headers(tmp_path: Path) -> None:
    """Numbers, sizes and places, by a C compiler."""
    wanted = {
        "PTP_SYS_OFFSET": nicclock._PTP_SYS_OFFSET,
        "SIOCETHTOOL": nicclock._SIOCETHTOOL,
        "SIOCSHWTSTAMP": nicclock._SIOCSHWTSTAMP,
        "SIOCGHWTSTAMP": nicclock._SIOCGHWTSTAMP,
        "ETHTOOL_GET_TS_INFO": nicclock._ETHTOOL_GET_TS_INFO,
        "HWTSTAMP_FILTER_NONE": FILTER_NONE,
        "HWTSTAMP_FILTER_ALL": FILTER_ALL,
        "SOF_TIMESTAMPING_RX_HARDWARE": nicclock._RX_HARDWARE,
        "SOF_TIMESTAMPING_RAW_HARDWARE": BY_NIC,
        "PACKET_TIMESTAMP": PACKET_TIMESTAMP,
        "sizeof(struct ptp_sys_offset)": nicclock._OFFSETS_SIZE,
        "offsetof(struct ptp_sys_offset, ts)": nicclock._OFFSETS_HEAD.size,
        "sizeof(struct ptp_clock_time)": nicclock._CLOCK_TIME.size,
        "offsetof(struct ptp_clock_time, nsec)": 8,
        "sizeof(struct ethtool_ts_info)": nicclock._TS_INFO.size,
        "offsetof(struct ethtool_ts_info, phc_index)": 8,
        "offsetof(struct ethtool_ts_info, rx_filters)": 28,
        "sizeof(struct hwtstamp_config)": nicclock._CONFIG.size,
        "offsetof(struct hwtstamp_config, rx_filter)": 8,
        "sizeof(struct ifreq)": 40,
        "offsetof(struct ifreq, ifr_data)": 16,
    }
    headers = ("stddef.h", "stdio.h", "sys/types.h", "sys/socket.h", "linux/if.h", "linux/sockios.h", "linux/ethtool.h",
               "linux/if_packet.h", "linux/net_tstamp.h", "linux/ptp_clock.h")  # fmt: skip
    lines = [f"#include <{header}>" for header in headers]
    lines += ["int main(void) {", *(f'printf("%lu\\n", (unsigned long)({name}));' for name in wanted), "return 0; }"]
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text("\n".join(lines))
    subprocess.run([need_tool("cc"), str(source), "-o", str(program)], check=True)
    said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(wanted, map(int, said), strict=True)) == wanted


def test_a_real_interface_says_that_it_does_not_stamp() -> None:
    """Loopback, through the kernel itself; and one that is not there."""
    assert not nicclock.stamping_of("lo").is_of_all
    assert NicClock("lo").unfit() == "lo does not stamp every packet that it receives"
    assert NicClock("nosuch0").unfit() == "nosuch0 does not stamp every packet that it receives"


@pytest.mark.parametrize(
    "stamping",
    [
        ALL_OF_IT._replace(takes=ALL_OF_IT.takes & ~BY_NIC),
        ALL_OF_IT._replace(takes=ALL_OF_IT.takes & ~nicclock._RX_HARDWARE),
        ALL_OF_IT._replace(clock=-1),
        ALL_OF_IT._replace(filters=1 << FILTER_NONE | 1 << PTP_EVENTS),
        None,
    ],
)
def test_a_nic_that_lacks_something_is_not_asked_for_its_time(nic: Nic, stamping: Stamping | None) -> None:
    """No stamps, none of what is received, no clock, none but of PTP's own packets, a driver without an answer."""
    nic.stamping = stamping
    clock = NicClock("eth1")
    assert (clock.unfit(), clock.descriptors) == ("eth1 does not stamp every packet that it receives", ())
    assert nicclock._PTP_SYS_OFFSET not in nic.asked


@pytest.mark.parametrize("offset", [0, 1, -1, 87_654, TAI_NS, -TAI_NS])
def test_the_reading_that_took_least_time_counts(nic: Nic, offset: int) -> None:
    """Others may have been held up between the two clocks, by half a millisecond here."""
    nic.ahead_ns = offset
    (device,) = NicClock("eth1").descriptors
    assert nicclock.offset_ns(device) == offset


def test_a_clock_in_another_time_scale_is_out_of_step(nic: Nic) -> None:
    """TAI is 37 s ahead; how far is said, and what helps; up to a tenth of a millisecond is in step."""
    clock = NicClock("eth1")
    for offset in (IN_STEP_NS, -IN_STEP_NS):
        nic.ahead_ns = offset
        assert clock.out_of_step() is None
    nic.ahead_ns = TAI_NS
    assert clock.out_of_step() == "the clock of eth1 is 37.000000 s ahead of the system's; phc2sys keeps it in step"
    nic.ahead_ns = -IN_STEP_NS - 1
    assert clock.out_of_step() == "the clock of eth1 is 0.000100 s behind the system's; phc2sys keeps it in step"


def test_a_clock_that_may_not_be_read(nic: Nic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its device is named, and why."""
    monkeypatch.setattr(nicclock, "DEVICE", str(tmp_path / "none" / "ptp{}"))
    device = tmp_path / "none" / "ptp3"
    assert NicClock("eth1").unfit() == f"the clock of eth1, {device}, cannot be read: No such file or directory"


def test_the_nic_stamps_all_packets_while_it_is_captured_on(nic: Nic, caplog: pytest.LogCaptureFixture) -> None:
    """And those of before again afterwards; what is stamped of the sent ones is not touched."""
    nic.config = (0, 1, PTP_EVENTS)
    clock, restore = NicClock("eth1"), CaptureNic("eth1", NicClock("eth1"))
    assert clock.unfit() == "eth1 has its stamping switched off, or it is of other packets than all"
    caplog.set_level(logging.INFO, logger=capturenic.__name__)
    restore._stamps()
    restore._stamps()  # as when offloads are switched off again in the middle
    assert (nic.config, clock.unfit()) == ((0, 1, FILTER_ALL), None)
    restore._restore.close()
    assert nic.config == (0, 1, PTP_EVENTS)
    assert [record.getMessage() for record in caplog.records] == ["eth1: stamps all packets until the capture ends"]


@pytest.mark.parametrize("refused", [True, False])
def test_a_nic_is_left_alone_where_its_stamps_are_of_no_use(nic: Nic, refused: bool) -> None:
    """Because its clock is off, or because its driver does not let it; then the host stamps."""
    nic.refuses_to_set, nic.ahead_ns = refused, 0 if refused else TAI_NS
    prepared = CaptureNic("eth1", NicClock("eth1"))
    prepared._stamps()
    prepared._restore.close()
    assert nic.config == (0, 1, FILTER_NONE)
    assert NicClock("eth1").unfit() is not None


class Source(RingSource):
    """A ring on loopback that shows who stamps its packets."""

    def __init__(self, clock: NicClock, must_be_stamped: bool = False) -> None:
        super().__init__(Tap("lo", clock=clock, must_be_stamped=must_be_stamped))

    @property
    def stamps(self) -> int:
        """As the kernel has it."""
        return self._socket.getsockopt(SOL_PACKET, PACKET_TIMESTAMP)


def test_stamps_are_the_nics_while_its_clock_is_in_step(
    nic: Nic, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something stops keeping it, and begins again: the host stamps meanwhile, and both turns are said."""
    need_root()
    monkeypatch.setattr(ring, "CLOCK_SECONDS", 0.0)
    nic.config = (0, 1, FILTER_ALL)
    source, table = Source(NicClock("eth1")), table_of()
    source.open(table)
    try:
        seen = [source.stamps]
        for nic.ahead_ns in (TAI_NS, 0, 1000):
            source.poll(table)
            source.poll(table)
            seen.append(source.stamps)
    finally:
        source.close()
    assert seen == [BY_NIC, BY_HOST, BY_NIC, BY_NIC]
    off = "the clock of eth1 is 37.000000 s ahead of the system's; phc2sys keeps it in step"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"packets are stamped by the host from here on: {off}"),
        ("WARNING", "lo: packets are stamped by the NIC again"),
    ]


def test_a_clock_that_is_not_fit_at_the_start_is_not_used(nic: Nic) -> None:
    """Where it is left to the sensor; where it was asked for, the capture does not begin."""
    need_root()
    nic.ahead_ns = TAI_NS
    source, table = Source(NicClock("eth1")), table_of()
    source.open(table)
    nic.ahead_ns = 0
    source.poll(table)
    stamps = source.stamps
    source.close()
    assert stamps == BY_HOST
    nic.ahead_ns = TAI_NS
    with pytest.raises(InterfaceError, match=r"^the clock of eth1 is 37.* choose --timestamps host, or auto$"):
        Source(NicClock("eth1"), must_be_stamped=True).open(table)


def test_packets_that_the_nic_has_stamped_are_counted() -> None:
    """Others may be among them: a NIC stamps what it can keep up with."""
    by_nic, by_host = 1 << 31, 1 << 29  # TP_STATUS_TS_RAW_HARDWARE, TP_STATUS_TS_SOFTWARE
    frame = udp_frame("10.0.0.1", 1000, "10.1.0.1", 53)
    memory = mmap.mmap(-1, 1 << 17)
    statuses = [by_nic, by_host, by_nic, by_nic, 0]
    memory[: 1 << 16] = block([(status, START + i, frame) for i, status in enumerate(statuses)], 1 << 16)
    packets, table = Ring(memory, 1 << 16), table_of()
    table.ingest_ring(packets, 2)  # packets may be asked for in parts
    assert table.counters()["adapter_timestamps"] == 1
    table.ingest_ring(packets, 100)
    packets.close()
    assert (table.counters()["received"], table.counters()["adapter_timestamps"]) == (5, 3)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port that can not stamp."""
    with Lab(["web"]) as lab:
        yield lab


def test_stamps_that_cannot_be_had_are_refused_in_one_line(lab: Lab, tmp_path: Path) -> None:
    """If they were asked for; else the host's are taken, and why is said to those who want to know."""
    sensor = Sensor(lab, tmp_path)
    asked = sensor.ended(sensor.start("--to", "none", "--timestamps", "adapter"))
    why = "span0 does not stamp every packet that it receives"
    assert (asked.status, asked.complaint()) == (5, f"vmsensor: {why}; choose --timestamps host, or auto")
    for options in (("--filter", "tcp"), ("--source", "libpcap")):
        refused = sensor.ended(sensor.start("--to", "none", "--timestamps", "adapter", *options))
        assert (refused.status, "is the ring's" in refused.complaint()) == (2, True)
    left = sensor.ended(sensor.capture("--to", "none", "--log-level", "info"), signal.SIGTERM)
    assert (left.status, f"packets are stamped by the host: {why}" in left.errors) == (0, True), left.errors
    host = sensor.ended(sensor.capture("--to", "none", "--log-level", "info", "--timestamps", "host"), signal.SIGTERM)
    assert (host.status, "stamped" in host.errors) == (0, False), host.errors
