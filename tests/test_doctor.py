"""`vmsensor doctor`: what it finds on this host, on a broken one, and what it says to do."""

from __future__ import annotations

from pathlib import Path

from sensor.views.doctor import _clock
from tests.command import UNEXPECTED, vmsensor, without
from tests.needs import need_root
from tests.servers import InfluxServer, free_port


def told(output: str) -> dict[str, tuple[str, str]]:
    """Grade and text of each line, by what it is about."""
    return {line[6:24].strip(): (line[:5].strip(), line[25:]) for line in output.splitlines()}


def said_why(place: Path) -> str:
    """What is in the way of anybody else than root."""
    return f"stays root's user, without capabilities, because nobody cannot reach {place.parent}; choose another"


def test_a_host_that_is_ready(influxdb: InfluxServer, open_place: Path) -> None:
    """As root, with an interface, room and a database: everything is ok, and the status 0."""
    need_root()
    database = ("--influx-url", influxdb.url, "--influx-bucket", influxdb.create_database("doctor"))
    done = vmsensor("doctor", "lo", "--store", open_place / "new" / "store", "--store-size", "1MiB", *database)
    assert (done.returncode, done.stderr) == (0, "")
    said = told(done.stdout)
    assert {grade for grade, _ in said.values()} == {"ok"}
    assert {"kernel", "capture", "NIC set-up", "interface", "offloads", "drops", "memory", "disk", "clock"} <= set(said)
    assert said["timestamps"] == ("ok", "by the host: lo does not stamp every packet that it receives")
    assert said["interface"][1].startswith("lo: ")
    assert said["supervisor"] == ("ok", "becomes nobody, without capabilities")
    assert not (open_place / "new").exists()  # it only looks
    assert said["InfluxDB write"] == ("ok", "allowed")
    assert said["clock"][1] == "as InfluxDB's, to the second"


def test_a_host_that_is_not(tmp_path: Path) -> None:
    """No right to capture, no such interface, no room, no database: each with what to do, and the status says so."""
    need_root()
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = vmsensor(
        "doctor", "nosuch0", "--store", tmp_path, "--store-size", "900TiB", "--max-flows", "1_000_000_000",
        "--influx-url", nowhere, prefix=without("net_raw", "net_admin"),
    )  # fmt: skip
    assert done.returncode == UNEXPECTED
    said = told(done.stdout)
    assert said["capture"][0] == "FAIL"
    assert "it takes CAP_NET_RAW" in said["capture"][1]
    assert said["NIC set-up"][0] == "look"
    assert said["interface"] == ("FAIL", "nosuch0: no such interface; `vmsensor interfaces` lists them")
    assert said["memory"][0] == "look"
    assert "choose fewer" in said["memory"][1]
    assert said["disk"][0] == "look"
    assert said["InfluxDB"][0] == "FAIL"
    assert "cannot be reached" in said["InfluxDB"][1]
    assert done.stderr == "vmsensor: not ready for a capture: capture, interface, InfluxDB; see above\n"


def test_without_a_database_and_an_interface(tmp_path: Path) -> None:
    """Neither has to be named: what there is, is looked at."""
    need_root()
    done = vmsensor("doctor", "--store", tmp_path)
    assert done.returncode == 0
    assert said_why(tmp_path) in told(done.stdout)["supervisor"][1]
    assert "interface" not in told(done.stdout)
    assert told(done.stdout)["InfluxDB"][1].startswith("none is named")


def test_a_clock_that_is_off() -> None:
    """More than a second from the database's is said, in whole seconds."""
    assert _clock(0).grade == "look"
    assert "synchronise both" in _clock(0).text
