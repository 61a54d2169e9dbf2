"""The program itself, killed with -9 again and again while it writes to a real InfluxDB; part of `make proof`."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from sensor.sinks.blocks import read_blocks
from sensor.sinks.lineprotocol import decode
from tests.command import DEMO, TOTALS, command, environment, vmsensor
from tests.servers import InfluxServer

KILLS = 50
SUMS = "SELECT COUNT(bytes), SUM(bytes), SUM(packets) FROM vm_traffic"
SENSOR = "SELECT COUNT(received), SUM(received), SUM(ip_bytes) FROM sensor"
Sums = tuple[int, int, int]


def in_database(server: InfluxServer, query: str) -> Sums:
    """Points and sums that the database holds."""
    rows = server.query(query, "traffic")
    values = [value for name, value in rows[0].items() if name != "time"] if rows else [0, 0, 0]
    return tuple(int(str(value)) for value in values)  # type: ignore[return-value]


def in_store(store: Path) -> tuple[Sums, Sums]:
    """The same of the store, where a window that is there twice counts once."""
    points = {
        (point.measurement, tuple(sorted(point.tags.items())), point.time_ns): point.fields
        for block in read_blocks(store) if not block.damage for point in decode(block.data)
    }  # fmt: skip
    pairs = [fields for (measurement, _, _), fields in points.items() if measurement == "vm_traffic"]
    sensor = [fields for (measurement, _, _), fields in points.items() if measurement == "sensor"]

    def total(rows: list[dict[str, int]], *names: str) -> Sums:
        return (len(rows), *(sum(int(row[name]) for row in rows) for name in names))  # type: ignore[return-value]

    return total(pairs, "bytes", "packets"), total(sensor, "received", "ip_bytes")  # type: ignore[arg-type]


@pytest.mark.proof
@pytest.mark.alone  # the kills come at shares of the time that a whole run took
def test_fifty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """After each kill at a random moment, what the store kept is in the database once; in the end it is everything."""
    chance, store = random.Random(9), tmp_path / "store"
    with InfluxServer(tmp_path / "server") as server:
        server.start()
        server.create_database("traffic")
        target = ("--influx-url", server.url, "--influx-bucket", "traffic")
        run = ("read", DEMO, "--window", "100ms", "--sensor-name", "tap")
        read = (*run, "--to", "influx", "--store", store, *target)
        push = ("push", store, *target)
        began = time.monotonic()
        whole = vmsensor(*run, "--to", f"store:{tmp_path / 'whole'}")
        length = time.monotonic() - began
        assert whole.returncode == 0, whole.stderr
        cut = 0
        for _ in range(KILLS):
            with subprocess.Popen(command(*read), env=environment(), stderr=subprocess.DEVNULL) as process:
                time.sleep(chance.uniform(0.4, 1.3) * length)
                process.kill()
            cut += process.returncode == -9
            if any(store.glob("0*.lp")):
                assert vmsensor(*push).returncode in (0, 4)  # 4: a window was cut by the kill
                assert (in_database(server, SUMS), in_database(server, SENSOR)) == in_store(store)
        assert cut > KILLS / 2
        done = vmsensor(*read)
        assert done.returncode == 0, done.stderr
        expected = in_store(tmp_path / "whole")
        assert (in_database(server, SUMS), in_database(server, SENSOR)) == expected == in_store(store)
        said = next(line for line in done.stderr.splitlines() if TOTALS.match(line))
        assert f"received {expected[1][1]} = " in said
