"""``--health-port``: what Prometheus is told is what the points say, and readiness follows the windows."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensor.config import build
from sensor.metrics import SENSOR
from sensor.runner import read_files
from sensor.sinks import Sink
from sensor.sinks.callback import CallbackSink
from sensor.sinks.jsonlines import JsonLinesSink
from sensor.sinks.prometheus import PrometheusSink, exported_name, is_gauge
from sensor.stopping import stop_on_signals
from tests.command import SECONDS, command, environment
from tests.needs import PCAPS, missing, need_root
from tests.servers import free_port

HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def library() -> None:
    """Nothing here goes without it."""
    if importlib.util.find_spec("prometheus_client") is None:
        missing("prometheus-client is not installed: pip install 'vmsensor[prometheus]'")


@pytest.fixture
def endpoint() -> Iterator[PrometheusSink]:
    """One that listens, and is patient."""
    sink = PrometheusSink(0, HOUR_NS)
    sink.open()
    yield sink
    sink.close()


def ask(port: int, path: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def samples(port: int) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value of each sample, as Prometheus's own parser reads them; there is one of each name."""
    from prometheus_client.parser import text_string_to_metric_families

    status, text = ask(port, "/metrics")
    assert status == 200
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len({sample.name for sample in found}) == len(found)
    return {sample.name: (sample.labels, sample.value) for sample in found}


def points(path: Path) -> list[dict[str, Any]]:
    """The fields of each point of measurement ``sensor``."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["fields"] for line in lines if line["measurement"] == "sensor"]


@pytest.mark.parametrize("capture", ["demo.pcap", "behaviour/life-migration.pcap"])
def test_prometheus_is_told_what_the_points_say(capture: str, endpoint: PrometheusSink, tmp_path: Path) -> None:
    """Counters are the sums over all windows, gauges the newest, what is null is absent; nothing else is there."""
    scraped: list[dict[str, tuple[dict[str, str], float]]] = []
    settings = build("read", {"to": ["none"], "sensor_name": 'tap "1"'})
    with stop_on_signals() as stop:
        asks = CallbackSink(lambda _: scraped.append(samples(endpoint.port)))
        sinks: list[Sink] = [JsonLinesSink(str(tmp_path / "points")), endpoint, asks]
        read_files(settings, [str(PCAPS / capture)], None, stop, sinks)
    told = scraped[-1]
    windows = points(tmp_path / "points")
    sums: Counter[str] = Counter()
    for window in windows:
        sums.update({name: value for name, value in window.items() if isinstance(value, int | float)})
    expected: dict[str, float] = {"vmsensor_windows_total": len(windows)}
    for metric in SENSOR:
        name, newest = exported_name(metric), windows[-1].get(metric.name)
        if isinstance(newest, str):
            assert told.pop(f"{name}_info")[0]["name"] == newest
        elif is_gauge(metric) and newest is not None:
            expected[name] = newest
        elif metric.name in sums and not is_gauge(metric):
            expected[f"{name}_total"] = sums[metric.name]
    assert told.pop("vmsensor_last_window_end_seconds")[1] > 1.7e9
    assert {name: value for name, (_, value) in told.items()} == expected
    assert all(labels["sensor"] == 'tap "1"' for labels, _ in told.values())
    fates = sum(value for name, value in expected.items() if name.startswith("vmsensor_fate_"))
    assert fates == expected["vmsensor_received_total"] > 0


def test_before_the_first_window_there_is_nothing_to_tell(endpoint: PrometheusSink) -> None:
    """Ready, since it has only begun; no number that nobody has measured."""
    assert ask(endpoint.port, "/readyz") == (200, "ready\n")
    assert [name for name in samples(endpoint.port) if name != "vmsensor_windows_total"] == []


def test_without_windows_it_is_not_ready_but_lives() -> None:
    """Three windows' time without one: 503 with the time; /livez and /metrics answer as before, other paths do not."""
    sink = PrometheusSink(0, 10_000_000)
    sink.open()
    try:
        time.sleep(0.1)
        status, text = ask(sink.port, "/readyz")
        assert (status, text) == (503, "not ready: no window for 0 s; its log says why\n")
        assert ask(sink.port, "/livez") == (200, "alive\n")
        assert ask(sink.port, "/metrics")[0] == 200
        assert ask(sink.port, "/")[0] == 404
    finally:
        sink.close()
    with pytest.raises(urllib.error.URLError):
        ask(sink.port, "/livez")


def test_a_port_that_is_taken_is_said(endpoint: PrometheusSink) -> None:
    """One line with the option and what to do; status 7, before anything is captured."""
    need_root()
    live = command("capture", "lo", "--to", "none", "--health-port", str(endpoint.port), "--no-nic-setup")
    ended = subprocess.run(live, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    (line, *_) = [line for line in ended.stderr.splitlines() if "--health-port" in line]
    assert line == f"vmsensor: --health-port {endpoint.port}: Address already in use; choose another port"
    assert ended.returncode == 7


def test_a_live_capture_answers() -> None:
    """What was sent to loopback is counted as received, only this host is answered, and it ends with the capture."""
    need_root()
    port, sink = free_port(), free_port()
    live = command(
        "capture", "lo", "--to", "none", "--health-port", str(port), "--filter", f"udp port {sink}",
        "--window", "1s", "--no-nic-setup",
    )  # fmt: skip
    with subprocess.Popen(live, env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + SECONDS
            while _is_deaf(port) and time.monotonic() < until:
                time.sleep(0.1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for number in range(100):
                    sender.sendto(bytes([number]), ("127.0.0.1", sink))
            while samples(port).get("vmsensor_received_total", ({}, 0))[1] < 100 and time.monotonic() < until:
                time.sleep(0.2)
            labels, received = samples(port)["vmsensor_received_total"]
            assert (labels["interface"], received) == ("lo", 100)
            assert ask(port, "/readyz") == (200, "ready\n")
            with socket.socket() as elsewhere, pytest.raises(ConnectionRefusedError):
                elsewhere.connect(("127.0.0.2", port))
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0
    assert _is_deaf(port)


def _is_deaf(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) != 0
