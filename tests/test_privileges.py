"""Who may do what: each process of a capture as an ordinary user, and what is written in whose name."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.command import PRIVILEGE
from tests.lab import Lab, wait_until
from tests.live import Influx, Sensor, as_nobody, family_of
from tests.needs import ROOT
from tests.transfers import transfers

NOTHING = "0" * 16


def gro(lab: Lab) -> str:
    """Whether the SPAN port's end merges packets."""
    lines = lab.tap.run(["ethtool", "-k", "span0"]).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("generic-receive-offload: ")]
    return line.split()[1]


def status_of(pid: int, path: str = "") -> dict[str, str]:
    """``/proc/PID/status``."""
    lines = Path(path or f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def threads_of(pid: int) -> list[dict[str, str]]:
    """The status of each thread: capabilities are a thread's own."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [status_of(int(task.name), f"/proc/{pid}/task/{task.name}/status") for task in tasks]


def capabilities(status: dict[str, str]) -> dict[str, set[int]]:
    """The numbers of the capabilities in each set."""
    return {
        name: {bit for bit in range(64) if int(value, 16) >> bit & 1}
        for name, value in status.items() if name.startswith("Cap")
    }  # fmt: skip


@pytest.mark.parametrize("user", [None, "daemon"])
def test_every_process_may_do_its_own_and_nothing_else(lab: Lab, user: str | None, open_place: Path) -> None:
    """Started as root, all are ordinary users without groups; no thread but the keeper's has any capability left."""
    sensor = Sensor(lab, open_place)
    process = sensor.capture("--workers", "2", *(("--user", user) if user else ()))
    wait_until(lambda: (open_place / "store" / "vmsensor.lock").exists(), "the store to be open")
    family = family_of(process.pid)
    assert sorted(family) == ["supervisor", "vms-keeper", "vms-worker-1", "vms-worker-2"]
    account = pwd.getpwnam(user or "nobody")
    for name, pid in family.items():
        for status in threads_of(pid):
            assert (status["NoNewPrivs"], status["Groups"]) == ("1", ""), name
            assert set(status["Uid"].split()) == {str(account.pw_uid)}, name
            assert set(status["Gid"].split()) == {str(account.pw_gid)}, name
            sets, kept = capabilities(status), {8, 12, 13} if name == "vms-keeper" else set()  # SETPCAP, NET_ADMIN, RAW
            assert sets == {"CapInh": set(), "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": set()}, name
    with lab.mirror():
        (made,) = transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8081, count=1, seed=7)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert ended.received > made.client_account.data_segments
    owners = {path.stat().st_uid for path in (open_place / "store", *(open_place / "store").iterdir())}
    assert owners == {account.pw_uid}
    assert not [pid for pid in family.values() if Path(f"/proc/{pid}").exists()]


def test_where_only_root_can_write_its_user_stays_and_no_capability(sensor: Sensor, tmp_path: Path) -> None:
    """A directory that nobody else can reach, as root's home is: the supervisor keeps the user alone, and says why."""
    tmp_path.chmod(0o700)
    process = sensor.capture("--log-level", "info")
    family = family_of(process.pid)
    (status,) = {(s["Uid"], s["CapEff"], s["CapPrm"], s["NoNewPrivs"]) for s in threads_of(family["supervisor"])}
    assert status == ("0\t0\t0\t0", NOTHING, NOTHING, "1")
    assert status_of(family["vms-worker-1"])["Uid"] != status[0]
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert f"root's user, without capabilities: nobody cannot write to {tmp_path}" in ended.errors


def test_a_user_who_cannot_write_is_said(sensor: Sensor, tmp_path: Path) -> None:
    """Asked for by name, status 2 and the directory that is in the way."""
    tmp_path.chmod(0o700)
    ended = sensor.ended(sensor.start("--user", "daemon"))
    assert (ended.status, f"--user daemon: daemon cannot write to {tmp_path}" in ended.complaint()) == (2, True)


def test_the_owner_of_the_place_writes_there(lab: Lab, open_place: Path) -> None:
    """Root in somebody's directory, as with sudo: what is written is that user's, who can remove it."""
    owner = pwd.getpwnam("daemon")
    os.chown(open_place, owner.pw_uid, owner.pw_gid)
    open_place.chmod(0o700)
    sensor = Sensor(lab, open_place)
    process = sensor.capture("--flows", str(sensor.flow_file))
    family = family_of(process.pid)
    assert status_of(family["supervisor"])["Uid"].split()[0] == str(owner.pw_uid)
    assert status_of(family["vms-worker-1"])["Uid"].split()[0] == str(pwd.getpwnam("nobody").pw_uid)
    assert sensor.ended(process, signal.SIGTERM).status == 0
    assert {path.stat().st_uid for path in open_place.rglob("*")} == {owner.pw_uid}


def test_a_store_of_root_is_made_over(lab: Lab, open_place: Path) -> None:
    """Files that root wrote before become the supervisor's; a link in the store is left alone."""
    sensor, target = Sensor(lab, open_place), open_place / "precious"
    (open_place / "store").mkdir()
    (open_place / "store" / "vmsensor.lock").write_text("")
    target.write_text("root's")
    (open_place / "store" / "link").symlink_to(target)
    assert sensor.ended(sensor.capture(), signal.SIGTERM).status == 0
    assert (open_place / "store" / "vmsensor.lock").owner() == "nobody"
    assert target.owner() == "root"


def test_when_the_keeper_is_killed_the_capture_ends(sensor: Sensor) -> None:
    """What workers have is written, nothing is left behind, and it is said."""
    process = sensor.capture("--to", "none", "--workers", "2")
    family = family_of(process.pid)
    os.kill(family["vms-keeper"], signal.SIGKILL)
    ended = sensor.ended(process)
    assert (ended.status, "the process that keeps the privileges is gone" in ended.errors) == (1, True)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family.values()), "all to be gone")


def test_when_the_supervisor_is_killed_the_rest_ends(lab: Lab, sensor: Sensor) -> None:
    """Workers and keeper go, and the NIC is put back."""
    lab.tap.run(["ethtool", "-K", "span0", "gro", "on"])
    process = sensor.capture("--to", "none", "--workers", "2")
    wait_until(lambda: gro(lab) == "off", "GRO to be off")
    family = family_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family.values()), "all to be gone")
    assert gro(lab) == "on"
    lab.tap.run(["ethtool", "-K", "span0", "gro", "off"])


def test_a_capture_of_an_ordinary_user_gives_its_capability_back(sensor: Sensor) -> None:
    """With CAP_NET_RAW alone: only the keeper has it once the interface is open."""
    process = sensor.capture("--to", "none", prefix=as_nobody("net_raw"))
    for name, pid in family_of(process.pid).items():
        for status in threads_of(pid):
            kept = {13} if name == "vms-keeper" else set()
            sets = capabilities(status)
            assert (sets["CapPrm"], sets["CapEff"], sets["CapAmb"]) == (kept, kept, set()), name
    assert sensor.ended(process, signal.SIGTERM).status == 0


def test_root_that_may_not_become_another_keeps_its_user_alone(sensor: Sensor) -> None:
    """As in a container that was left CAP_NET_RAW and CAP_NET_ADMIN: it captures, says so, and drops what it can."""
    confined = ["setpriv", "--bounding-set", "-all,+net_raw,+net_admin"]
    process = sensor.capture("--to", "none", "--log-level", "info", prefix=confined)
    for name, pid in family_of(process.pid).items():
        for status in threads_of(pid):
            kept = {12, 13} if name == "vms-keeper" else set()
            sets = capabilities(status)
            assert (sets["CapPrm"], sets["CapEff"], sets["CapAmb"]) == (kept, kept, set()), name
            assert (status["NoNewPrivs"], set(status["Uid"].split())) == ("1", {"0"}), name
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert "root may not become nobody here, for want of CAP_SETUID and CAP_SETGID, and stays" in ended.errors
    bare = sensor.ended(sensor.start("--to", "none", prefix=["setpriv", "--bounding-set", "-all"]))
    assert bare.status == PRIVILEGE, bare.errors
    assert "CAP_NET_RAW" in bare.complaint()
    assert "Traceback" not in bare.errors


WATCHED = """
import sys
from sensor import cli, live
give_up = live.give_up
def and_watch(account):
    give_up(account)
    sys.addaudithook(lambda event, args: print("LATE", args[0], file=sys.stderr) if event == "import" else None)
live.can_import, live.give_up = lambda account: False, and_watch
cli.main()
"""
"""A capture that cannot import anything once it has given up its privileges, and says what it would have."""


def test_who_loses_the_way_to_the_code_has_loaded_it_before(lab: Lab, open_place: Path) -> None:
    """With Python under root's home: every output, names from the wire, SIGHUP, an error; nothing is imported late."""
    sensor, influx = Sensor(lab, open_place), Influx(lab.tap, open_place)
    database = influx.create("late")
    inventory = open_place / "inventory.csv"
    inventory.write_text("vm,tenant,address\nweb,red,10.77.0.1\n")
    options = ["--inventory", str(inventory), "--flows", str(sensor.flow_file), "--to", "table", "--to", "json:-"]
    argv = ["capture", "span0", "--store", str(open_place / "store"), *influx.options(database, "500ms"), *options]
    process = lab.tap.popen([sys.executable, "-c", WATCHED, *argv], cwd=ROOT, stdin=-3)
    lab.await_capture(process)
    with lab.mirror():
        transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8081, count=1, seed=7)
        lab.vm("web").run(["ip", "neigh", "flush", "all"])
        transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET6, 8082, count=1, seed=8)
    inventory.write_text("vm,tenant,address\nweb,red,10.77.0.1\nbroken")
    process.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    ended = sensor.ended(process, signal.SIGTERM)
    assert "LATE" not in ended.errors, ended.errors
    assert ended.status == 0, ended.errors
    assert influx.query(database, "SELECT received FROM sensor")
    assert "stays in force" in ended.errors
    assert '"web"' in ended.output
