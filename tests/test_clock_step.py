"""The clock of the machine is set while a capture runs. It is everybody's, so this runs only when it is asked for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.live import Sensor
from tests.needs import missing
from tests.test_live_faults import points, talk, total

ASKED = os.environ.get("VMSENSOR_STEP_CLOCK") == "1"
pytestmark = pytest.mark.skipif(not ASKED, reason="sets this machine's clock: only with VMSENSOR_STEP_CLOCK=1")


@contextmanager
def clock_set_by(seconds: float) -> Iterator[None]:
    """The clock is so much later, or earlier, as long as the block lasts."""
    began, steady = time.time(), time.monotonic()
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    except PermissionError:
        missing("needs CAP_SYS_TIME")
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() - steady)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port to send to."""
    with Lab(["web"]) as lab:
        yield lab


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seconds", [3600, -3600, 7, -7, -0.4])
def test_no_packet_is_lost_or_counted_twice(lab: Lab, tmp_path: Path, seconds: float, workers: int) -> None:
    """An hour forth or back, and back again: every packet once, and no window overwrites another."""
    told = tmp_path / "points.jsonl"
    sensor = Sensor(lab, tmp_path)
    options = ("--to", f"json:{told}", "--window", "1s", "--flows", str(sensor.flow_file), "--workers", str(workers))
    process = sensor.start(*options)
    lab.await_capture(process, rings=workers)
    time.sleep(0.5)
    with talk(lab) as sent:
        time.sleep(2)
        with clock_set_by(seconds):
            time.sleep(3)
        time.sleep(3)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    flows = [(flow["client_ip"], flow["c2s_packets"]) for flow in sensor.flows()]
    assert sorted(flows) == sorted((source, 1) for source in sent)
    assert ended.received == len(sent) == total(told, "received")
    own = points(told, "sensor")
    assert len({point["time_ns"] for point in own}) == len(own) >= 7
