"""How a live capture fails: one clear line and the documented exit status."""

from __future__ import annotations

import signal
import socket
import time

from tests.command import OUTPUT
from tests.lab import Lab, wait_until
from tests.live import Sensor, as_nobody, workers_of
from tests.transfers import transfers


def test_unknown_interface(sensor: Sensor) -> None:
    """An interface that does not exist is named, with status 5."""
    ended = sensor.ended(sensor.start("--to", "none", interface="nosuch0"))
    assert ended.status == 5
    assert "nosuch0" in ended.complaint()


def test_interface_that_is_down_or_goes_for_good(lab: Lab, sensor: Sensor) -> None:
    """Down at the start is said at once; one that is gone when the capture is stopped gives status 5 and the reason."""
    lab.tap.run(["ip", "link", "add", "name", "gone0", "type", "veth", "peer", "name", "gone1"])
    down = sensor.ended(sensor.start("--to", "none", "--no-nic-setup", interface="gone0"))
    assert (down.status, "gone0" in down.complaint()) == (5, True)
    lab.tap.run(["ip", "link", "set", "dev", "gone0", "up"])
    process = sensor.capture("--to", "none", interface="gone0")
    lab.tap.run(["ip", "link", "del", "dev", "gone0"])
    time.sleep(1.5)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 5
    assert ended.errors.count("waiting until it is back") == 1
    assert "gone0" in ended.errors.splitlines()[-1]
    assert "Traceback" not in ended.errors


def features(lab: Lab, device: str) -> dict[str, str]:
    """What ``ethtool -k`` says of an interface in the tap."""
    lines = lab.tap.run(["ethtool", "-k", device]).stdout.splitlines()
    return {name.strip(): value.split()[0] for name, _, value in (line.partition(": ") for line in lines) if value}


def is_up(lab: Lab, device: str) -> bool:
    """Whether an interface in the tap is up for its administrator."""
    flags = lab.tap.run(["ip", "-o", "link", "show", "dev", device]).stdout.partition("<")[2].partition(">")[0]
    return "UP" in flags.split(",")


def test_the_nic_is_made_ready_and_put_back(lab: Lab, sensor: Sensor) -> None:
    """Up, and no packets merged, as long as it is captured; then as it was, also when it came back as another one."""
    add = ["ip", "link", "add", "name", "nic0", "type", "veth", "peer", "name", "nic1"]
    lab.tap.run(add)
    lab.tap.run(["ip", "link", "set", "dev", "nic1", "up"])
    lab.tap.run(["ethtool", "-K", "nic0", "gro", "on"])
    process = sensor.capture("--to", "none", interface="nic0")
    during = features(lab, "nic0")
    assert (during["generic-receive-offload"], during["rx-gro-list"]) == ("off", "off")
    assert "UP" in lab.tap.run(["ip", "-o", "link", "show", "dev", "nic0"]).stdout.split("<")[1].split(">")[0].split(
        ","
    )
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.errors.count("\n")) == (0, 1), ended.errors
    assert features(lab, "nic0")["generic-receive-offload"] == "on"
    assert not is_up(lab, "nic0")
    lab.tap.run(["ip", "link", "set", "dev", "nic0", "up"])
    process = sensor.capture("--to", "none", interface="nic0")
    lab.tap.run(["ip", "link", "del", "dev", "nic0"])
    lab.tap.run(add)
    lab.tap.run(["ethtool", "-K", "nic0", "gro", "on"])
    for device in ("nic0", "nic1"):
        lab.tap.run(["ip", "link", "set", "dev", device, "up"])
    wait_until(lambda: features(lab, "nic0")["generic-receive-offload"] == "off", "the new NIC to be made ready")
    lab.await_capture(process)
    time.sleep(0.5)  # the supervisor hears of it
    assert sensor.ended(process, signal.SIGTERM).status == 0


def test_the_nic_is_kept_ready(lab: Lab, sensor: Sensor) -> None:
    """A new one that is switched off is switched on; what somebody else switches on goes off again."""
    add = ["ip", "link", "add", "name", "nic0", "type", "veth", "peer", "name", "nic1"]
    lab.tap.run(add)
    process = sensor.capture("--to", "none", "--window", "1s", interface="nic0")
    lab.tap.run(["ip", "link", "del", "dev", "nic0"])
    wait_until(lambda: workers_of(process.pid) == [], "the worker to notice")
    lab.tap.run(add)
    lab.tap.run(["ip", "link", "set", "dev", "nic1", "up"])
    wait_until(lambda: is_up(lab, "nic0"), "the new NIC to be switched on")
    lab.await_capture(process)
    lab.tap.run(["ethtool", "-K", "nic0", "gro", "on"])
    wait_until(lambda: features(lab, "nic0")["generic-receive-offload"] == "off", "the NIC to be made ready again")
    ended = sensor.ended(process, signal.SIGTERM)
    lab.tap.run(["ip", "link", "del", "dev", "nic0"])
    assert ended.status == 0, ended.errors
    assert "nic0: rx-gro was on, which merges packets; switching it off" in ended.errors


def test_a_nic_that_was_renamed_is_put_back(lab: Lab, sensor: Sensor) -> None:
    """It is the same interface under another name."""
    lab.tap.run(["ip", "link", "add", "name", "nic0", "type", "veth", "peer", "name", "nic1"])
    lab.tap.run(["ethtool", "-K", "nic0", "gro", "on"])
    process = sensor.capture("--to", "none", interface="nic0")
    assert features(lab, "nic0")["generic-receive-offload"] == "off"
    lab.tap.run(["ip", "link", "set", "dev", "nic0", "name", "nic9"])
    sensor.ended(process, signal.SIGTERM)
    found = features(lab, "nic9")["generic-receive-offload"]
    lab.tap.run(["ip", "link", "del", "dev", "nic9"])
    assert found == "on"


def test_who_may_not_change_the_nic_captures_all_the_same(lab: Lab, sensor: Sensor) -> None:
    """With CAP_NET_RAW alone it is said which offload is left on, and how to switch it off."""
    lab.tap.run(["ethtool", "-K", "span0", "gro", "on"])
    process = sensor.capture("--to", "none", prefix=as_nobody("net_raw"))
    ended = sensor.ended(process, signal.SIGTERM)
    lab.tap.run(["ethtool", "-K", "span0", "gro", "off"])
    assert ended.status == 0, ended.errors
    assert "rx-gro is on and cannot be switched off from here); run: ethtool -K span0 gro off lro off" in ended.errors


def test_a_user_that_does_not_exist_is_named(sensor: Sensor) -> None:
    """Before anything is opened, with status 2."""
    ended = sensor.ended(sensor.start("--to", "none", "--user", "nosuchuser"))
    assert (ended.status, "--user nosuchuser: no such user" in ended.complaint()) == (2, True)


def test_filter_that_does_not_compile(sensor: Sensor) -> None:
    """The message of libpcap reaches the user, with status 2."""
    ended = sensor.ended(sensor.start("--to", "none", "--filter", "tcp prot 80"))
    assert ended.status == 2
    assert "syntax error" in ended.errors
    assert "Traceback" not in ended.errors


def test_filter_is_applied(lab: Lab, sensor: Sensor) -> None:
    """Only what the filter lets through is received: here one side's segments to one port."""
    process = sensor.capture("--flows", str(sensor.flow_file), "--to", "none", "--filter", "tcp dst port 8080")
    with lab.mirror():
        (made,) = transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8080, count=1, seed=6)
    ended = sensor.ended(process, signal.SIGTERM)
    (flow,) = sensor.flows()
    assert flow["c2s_packets"] == ended.received
    assert (flow["c2s_payload_bytes"], flow["s2c_packets"]) == (made.client_account.payload_bytes, 0)


def test_a_full_disk_is_said_when_it_is_met(lab: Lab, sensor: Sensor) -> None:
    """Not only at the end, which may be months away: what cannot be written, why, and what goes on."""
    process = sensor.capture("--flows", "/dev/full", "--to", "none", "--window", "1s")
    with lab.mirror():
        transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8080, count=1, seed=6)
    assert process.stderr is not None
    said = ""
    while "flow records" not in said:  # each line in turn, until it is said
        said = process.stderr.readline()
        assert said
    said = said.strip()
    assert said == (
        "vmsensor: /dev/full: cannot write: No space left on device; choose another place; "
        "flow records end here, all else goes on"
    )
    assert sensor.ended(process, signal.SIGTERM).status == OUTPUT


def test_missing_capability(sensor: Sensor) -> None:
    """An ordinary user is told which capability is missing and how to grant it, with status 6."""
    ended = sensor.ended(sensor.start("--to", "none", prefix=as_nobody()))
    assert ended.status == 6
    assert "cap_net_raw" in ended.complaint().lower()
    assert "setcap" in ended.complaint()


def test_one_capability_is_enough(lab: Lab, sensor: Sensor) -> None:
    """With CAP_NET_RAW and nothing else, an ordinary user captures every packet."""
    before = lab.span_counters().rx_packets
    process = sensor.capture("--to", "none", prefix=as_nobody("net_raw"))
    with lab.mirror():
        transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8080, count=1, seed=7)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, lab.span_counters().rx_packets - before)
