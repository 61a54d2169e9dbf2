"""What points cost on the disk: an hour of a site of 1,000 VMs in a real InfluxDB, and in the sensor's own store.

``python -m tests.bench.disk`` takes some minutes. The pairs all talk in most windows, with other numbers
each time; real traffic costs rather less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from sensor.analysis.limits import DEFAULTS
from sensor.analysis.observer import Observer
from sensor.analysis.report import Reporter
from sensor.analysis.series import SeriesBudget
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.registry import Registry
from sensor.sinks.delivery import push
from sensor.sinks.servers import InfluxSettings
from sensor.sinks.spool import SpoolSink
from tests.bigsite import DAY_START, SECOND, Site
from tests.servers import InfluxServer


def size(directory: Path) -> int:
    """Octets of all files."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def main() -> None:
    """Print points, octets a point, series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=360)
    given = parser.parse_args()
    site = Site(given.vms)
    reporter = Reporter("tap", "m", Registry(PRIVATE_NETWORKS), Observer(DEFAULTS), budget=SeriesBudget(10**7))
    with tempfile.TemporaryDirectory() as name, InfluxServer(Path(name) / "server") as server:
        directory = Path(name)
        spool = SpoolSink(directory / "store")
        spool.open()
        points, began = 0, time.process_time()
        for number in range(given.windows):
            report = reporter.report(site.window(DAY_START + number * 10 * SECOND))
            points += sum(table.rows for table in report.tables)
            spool.write(report)
        made = time.process_time() - began
        spool.close()
        server.start()
        settings = InfluxSettings(server.url, server.create_database("disk"), timeout=120)
        began = time.perf_counter()
        push(directory / "store", settings)
        pushed = time.perf_counter() - began
        series = sum(int(str(row["count"])) for row in server.query("SHOW SERIES EXACT CARDINALITY", "disk", 120))
        server.stop()  # what is in its log only is written to its files when it starts again
        server.start()
        time.sleep(20)
        server.stop()
        data, wal = size(directory / "server" / "data"), size(directory / "server" / "wal")
        print(f"{given.vms:,} VMs, {given.windows} windows: {points:,} points, {points / given.windows:,.0f} a window")
        print(f"{series:,} series; {made / given.windows:.3f} s CPU a window to make them")
        print(f"sensor's store    {size(directory / 'store') / points:8.1f} octets a point")
        print(f"InfluxDB 1.6      {(data + wal) / points:8.1f} octets a point, log included ({wal / points:.1f})")
        print(f"delivery          {points / pushed:8,.0f} points/s into one InfluxDB on the same machine")


if __name__ == "__main__":
    main()
