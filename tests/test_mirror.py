"""`vmsensor mirror`: mirrors of this host, set up, listed and removed; and what a mirror is said to deliver."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sensor.commands.mirror import GUIDE_KINDS, mirror_group
from sensor.views.mirror import Evidence, verdicts
from sensor.views.mirrorguide import GUIDES
from tests.command import INTERFACE, USAGE, complaint, vmsensor
from tests.lab import BOTH, SENT, Lab, Namespace
from tests.live import Sensor
from tests.transfers import transfers

SWITCH_ADDRESS, SENSOR_ADDRESS = "10.99.0.1", "10.99.0.2"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two VMs on a switch with a SPAN port, which also is a way to the sensor's host."""
    with Lab(["web", "app"]) as lab:
        lab.switch.run(["ip", "addr", "add", f"{SWITCH_ADDRESS}/24", "dev", "span"])
        lab.tap.run(["ip", "addr", "add", f"{SENSOR_ADDRESS}/24", "dev", "span0"])
        yield lab


def run(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in a namespace; it has to succeed."""
    process = namespace.popen([sys.executable, "-m", "sensor", *arguments])
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def refused(namespace: Namespace, *arguments: str, status: int = INTERFACE) -> str:
    """The one line in which the program refuses in a namespace."""
    process = namespace.popen([sys.executable, "-m", "sensor", *arguments])
    output, errors = process.communicate(timeout=30)
    return complaint(subprocess.CompletedProcess(arguments, process.returncode, output, errors), status)


def ports(lab: Lab) -> list[str]:
    """The switch's ports of the VMs."""
    return [lab.vm(name).port for name in ("web", "app")]


def talk(lab: Lab, port: int) -> int:
    """A connection between the VMs; how many segments with data the client sent."""
    (made,) = transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, port, count=1, seed=port)
    return made.client_account.data_segments


def captured(lab: Lab, directory: Path, port: int) -> dict[str, object]:
    """The flow that a sensor on the SPAN port sees of such a connection."""
    directory.mkdir()
    sensor = Sensor(lab, directory)
    process = sensor.capture("--flows", str(sensor.flow_file), "--to", "none")
    talk(lab, port)
    time.sleep(0.2)
    assert sensor.ended(process, signal.SIGTERM).status == 0
    found = [flow for flow in sensor.flows() if flow["server_port"] == port]
    return found[0] if found else {}


def test_a_mirror_is_added_listed_and_removed(lab: Lab, tmp_path: Path) -> None:
    """What the VMs send arrives once, however often it is added; afterwards nothing of it is left."""
    for _ in range(2):
        added = run(lab.switch, "mirror", "add", *ports(lab), "--to", "span")
        assert added.stdout.splitlines() == [f"{port} ingress is mirrored to span" for port in ports(lab)]
    listed = run(lab.switch, "mirror", "list").stdout.split("\n")
    assert [line.split() for line in listed if line] == [[port, "ingress", "span"] for port in ports(lab)]
    flow = captured(lab, tmp_path / "on", 7001)
    assert flow["tcp_state"] == "closed"
    assert flow["c2s_mirror_duplicates"] == flow["s2c_mirror_duplicates"] == 0
    removed = run(lab.switch, "mirror", "remove")
    assert len(removed.stdout.splitlines()) == 2
    assert run(lab.switch, "mirror", "list").stdout == ""
    assert captured(lab, tmp_path / "off", 7002) == {}
    for port in ports(lab):
        assert "clsact" not in lab.switch.run(["tc", "qdisc", "show", "dev", port]).stdout


def test_both_directions_of_one_port_and_what_others_have_set_up(lab: Lab, tmp_path: Path) -> None:
    """One port in both directions shows a whole flow; a filter of somebody else stays where it is."""
    web, _ = ports(lab)
    lab.switch.run(["tc", "qdisc", "add", "dev", web, "clsact"])
    other = ["filter", "add", "dev", web, "ingress", "pref", "77", "protocol", "ip", "u32", "match", "u32", "0", "0"]
    lab.switch.run(["tc", *other, "flowid", "1:1"])
    assert "pref 77" in lab.switch.run(["tc", "filter", "show", "dev", web, "ingress"]).stdout
    run(lab.switch, "mirror", "add", web, "--to", "span", "--direction", "both")
    flow = captured(lab, tmp_path / "both", 7003)
    assert flow["role_source"] == "syn"
    assert flow["handshake_server_us"] is not None
    assert flow["c2s_payload_bytes"]
    assert flow["s2c_payload_bytes"]
    run(lab.switch, "mirror", "remove", web)
    assert "pref 77" in lab.switch.run(["tc", "filter", "show", "dev", web, "ingress"]).stdout
    lab.switch.run(["tc", "qdisc", "del", "dev", web, "clsact"])


def test_a_mirror_to_another_host(lab: Lab, tmp_path: Path) -> None:
    """By VXLAN: the sensor sees the flows inside of the tunnel, with its VNI; the tunnel goes with the mirror."""
    run(lab.switch, "mirror", "add", *ports(lab), "--to-host", SENSOR_ADDRESS, "--vni", "77")
    flow = captured(lab, tmp_path / "far", 7004)
    assert (flow["tunnel"], flow["vni"], flow["outer_src"], flow["outer_dst"]) == (
        "vxlan", 77, SWITCH_ADDRESS, SENSOR_ADDRESS,
    )  # fmt: skip
    run(lab.switch, "mirror", "remove")
    assert "vmsensor-mirror" not in lab.switch.run(["ip", "-o", "link"]).stdout


def test_sources_of_one_tunnel(lab: Lab) -> None:
    """Another source to the same host joins; to another host it would cut off the first, and is refused."""
    web, app = ports(lab)
    to = ["--to-host", SENSOR_ADDRESS, "--vni", "77"]
    for port in (web, app):
        run(lab.switch, "mirror", "add", port, *to)
    listed = run(lab.switch, "mirror", "list").stdout
    assert [line.split()[::2] for line in listed.splitlines()] == [[port, "vmsensor-mirror"] for port in (web, app)]
    elsewhere = refused(lab.switch, "mirror", "add", app, "--to-host", "10.99.0.3")
    assert f"vmsensor-mirror is the tunnel for {web}, to {SENSOR_ADDRESS} with VNI 77" in elsewhere
    assert run(lab.switch, "mirror", "list").stdout == listed
    run(lab.switch, "mirror", "remove", web)
    run(lab.switch, "mirror", "add", app, "--to-host", "fd99::3")
    assert "fd99::3" in lab.switch.run(["ip", "-d", "link", "show", "dev", "vmsensor-mirror"]).stdout
    run(lab.switch, "mirror", "remove")


def foreign_filter(lab: Lab, port: str, preference: int, action: Sequence[str] = ("flowid", "1:1")) -> None:
    """Somebody else's, for all that the port sends."""
    match = ["protocol", "ip", "u32", "match", "u32", "0", "0"]
    lab.switch.run(["tc", "filter", "add", "dev", port, "ingress", "pref", str(preference), *match, *action])


def test_a_queue_of_others_is_used_and_left(lab: Lab, tmp_path: Path) -> None:
    """libvirt's bandwidth limits make an ingress queue: it has room for ingress, and none for egress, which is said."""
    web, _ = ports(lab)
    lab.switch.run(["tc", "qdisc", "add", "dev", web, "ingress"])
    said = refused(lab.switch, "mirror", "add", web, "--to", "span", "--direction", "both")
    assert "an ingress queue there" in said
    assert "--direction ingress" in said
    run(lab.switch, "mirror", "add", web, "--to", "span", "--direction", "ingress")
    assert run(lab.switch, "mirror", "list").stdout.split() == [web, "ingress", "span"]
    assert captured(lab, tmp_path / "limited", 7005)["c2s_payload_bytes"]
    run(lab.switch, "mirror", "remove", web)
    assert "qdisc ingress" in lab.switch.run(["tc", "qdisc", "show", "dev", web]).stdout
    assert "pref" not in lab.switch.run(["tc", "filter", "show", "dev", web, "ingress"]).stdout
    lab.switch.run(["tc", "qdisc", "del", "dev", web, "ingress"])


def test_a_mirror_of_others_is_theirs(lab: Lab) -> None:
    """At the preference that would be ours it is not listed, not replaced and not removed; nor is its queue."""
    web, _ = ports(lab)
    lab.switch.run(["tc", "qdisc", "add", "dev", web, "clsact"])
    foreign_filter(lab, web, 13, ["action", "mirred", "egress", "mirror", "dev", "span"])
    theirs = lab.switch.run(["tc", "filter", "show", "dev", web, "ingress"]).stdout
    assert run(lab.switch, "mirror", "list").stdout == ""
    for _ in range(2):
        run(lab.switch, "mirror", "add", web, "--to", "span")
        assert run(lab.switch, "mirror", "list").stdout.split() == [web, "ingress", "span"]
    run(lab.switch, "mirror", "remove")
    assert lab.switch.run(["tc", "filter", "show", "dev", web, "ingress"]).stdout == theirs
    lab.switch.run(["tc", "filter", "del", "dev", web, "ingress"])
    run(lab.switch, "mirror", "add", web, "--to", "span")
    run(lab.switch, "mirror", "remove")
    assert "clsact" in lab.switch.run(["tc", "qdisc", "show", "dev", web]).stdout
    lab.switch.run(["tc", "qdisc", "del", "dev", web, "clsact"])


def test_what_is_no_address_of_a_sensor_is_refused(lab: Lab) -> None:
    """None, everybody, a group, this host: no tunnel can end there. What is mirrored stays."""
    web, _ = ports(lab)
    run(lab.switch, "mirror", "add", web, "--to", "span")
    listed = run(lab.switch, "mirror", "list").stdout
    for address in ("0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255"):
        said = refused(lab.switch, "mirror", "add", web, "--to-host", address, status=USAGE)
        assert f"--to-host {address}: is no address of another host" in said
    assert run(lab.switch, "mirror", "list").stdout == listed
    run(lab.switch, "mirror", "remove")


def test_an_interface_of_the_tunnels_name_is_left_alone(lab: Lab) -> None:
    """Somebody's bridge is no tunnel: other mirrors work beside it; one that takes the tunnel says what is wrong."""
    web, _ = ports(lab)
    lab.switch.run(["ip", "link", "add", "vmsensor-mirror", "type", "bridge"])
    run(lab.switch, "mirror", "add", web, "--to", "span")
    said = refused(lab.switch, "mirror", "add", web, "--to-host", SENSOR_ADDRESS)
    assert "vmsensor-mirror: is somebody's interface and no tunnel" in said
    run(lab.switch, "mirror", "remove")
    assert "vmsensor-mirror" in lab.switch.run(["ip", "-o", "link"]).stdout
    lab.switch.run(["ip", "link", "del", "vmsensor-mirror"])


def test_a_source_that_is_gone_has_no_mirror(lab: Lab) -> None:
    """A hook that runs when a VM has gone ends what is there, and is not told off for the rest."""
    web, _ = ports(lab)
    run(lab.switch, "mirror", "add", web, "--to", "span")
    said = run(lab.switch, "mirror", "remove", "tap99", web).stdout
    assert said.splitlines() == [
        f"{web} ingress is not mirrored any more", "tap99: there is no such interface, and so no mirror of it",
    ]  # fmt: skip
    assert run(lab.switch, "mirror", "list").stdout == ""


def test_a_failure_leaves_nothing_half_done(lab: Lab) -> None:
    """What was mirrored still is, and no tunnel is left, whether it fails before or in the middle."""
    web, app = ports(lab)
    run(lab.switch, "mirror", "add", web, "--to", "span", "--direction", "both")
    listed = run(lab.switch, "mirror", "list").stdout
    assert "nosuch0: no such" in refused(lab.switch, "mirror", "add", web, "nosuch0", "--to-host", SENSOR_ADDRESS)
    # Somebody has filters wherever one could be, so that the second source fails after the first.
    lab.switch.run(["tc", "qdisc", "add", "dev", app, "ingress"])
    for preference in range(1, 14):
        foreign_filter(lab, app, preference)
    assert f"{app}: cannot add a mirror" in refused(lab.switch, "mirror", "add", web, app, "--to-host", SENSOR_ADDRESS)
    lab.switch.run(["tc", "qdisc", "del", "dev", app, "ingress"])
    assert run(lab.switch, "mirror", "list").stdout == listed
    assert "vmsensor-mirror" not in lab.switch.run(["ip", "-o", "link"]).stdout
    run(lab.switch, "mirror", "remove")


def test_wrong_mirrors_are_explained() -> None:
    """Interfaces that are not there, a mirror to itself, two destinations or none."""
    assert "nosuch0: no such interface" in complaint(vmsensor("mirror", "add", "nosuch0", "--to", "lo"), 5)
    assert "cannot be mirrored to itself" in complaint(vmsensor("mirror", "add", "lo", "--to", "lo"), 5)
    assert "needs one destination" in complaint(vmsensor("mirror", "add", "lo"), USAGE)
    both = vmsensor("mirror", "add", "lo", "--to", "lo", "--to-host", "127.0.0.1")
    assert "needs one destination" in complaint(both, USAGE)


# ---- what a mirror delivers


def verified(lab: Lab, seconds: float = 4) -> dict[str, str]:
    """What the program says of the SPAN port, by what it looked at, while the VMs talk."""
    process = lab.tap.popen([sys.executable, "-m", "sensor", "mirror", "verify", "span0", "--seconds", str(seconds)])
    lab.await_capture(process)
    for number in range(5):
        talk(lab, 7100 + number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return {line[6:20].strip(): f"{line[:5].strip()} {line[20:]}" for line in output.splitlines()}


def test_a_good_mirror_is_called_good(lab: Lab) -> None:
    """Everything that the VMs send, once: both directions, no duplicates, nothing to change."""
    with lab.mirror(SENT):
        said = verified(lab)
    assert said["directions"].startswith("ok both, of 5 TCP flows")
    assert said["duplicates"].startswith("ok ")
    assert said["tunnels"] == "ok none"
    assert said["received"].endswith("none dropped here")
    assert not [text for text in said.values() if text.startswith("look")]


def test_a_mirror_of_both_ends_is_noticed(lab: Lab) -> None:
    """Every packet twice: said, and how to spare the port."""
    with lab.mirror(BOTH):
        said = verified(lab)
    assert said["duplicates"].startswith("look ")
    assert "come twice" in said["duplicates"]


def test_a_mirror_of_one_direction_is_noticed(lab: Lab) -> None:
    """One port's ingress alone shows one direction of its flows."""
    run(lab.switch, "mirror", "add", ports(lab)[0], "--to", "span")
    said = verified(lab)
    run(lab.switch, "mirror", "remove")
    assert said["directions"].startswith("look only one of 100% of 5 TCP flows; mirror both")


def test_a_mirror_that_delivers_nothing_fails(lab: Lab) -> None:
    """Silence is a failure, with status 5 and what to look at."""
    process = lab.tap.popen([sys.executable, "-m", "sensor", "mirror", "verify", "span0", "--seconds", "1"])
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 5
    assert output.startswith("FAIL  received      nothing in 1 s")
    assert "span0: the mirror delivers nothing; see above" in errors


def test_what_is_found_is_judged() -> None:
    """Tags, tunnels, cut and merged packets, the mirror's loss, the switch: each has its line."""
    found = Evidence()
    found.counts.update(
        {"received": 1000, "packets": 1000, "fate_short_ip": 3, "merged": 7, "unseen_bytes": 5000,
         "dropped_kernel": 2, "fate_not_ip": 100}
    )  # fmt: skip
    found.sides.update(dict.fromkeys(range(5), True))
    found.vlans.update({10: 300, 20: 200})
    found.tunnels.update({"vxlan": 400, "none": 600})
    found.vnis |= {5003}
    found.switch, found.port = "leaf-1", "Eth1/7"
    told = {line.what: (line.grade, line.text) for line in verdicts(found, 5)}
    assert told["VLAN tags"] == ("ok", "on 50% of the packets: 10, 20")
    assert told["tunnels"] == ("ok", "vxlan 40%, VNIs 5003")
    assert told["fed by"] == ("ok", "leaf-1, port Eth1/7")
    looked = {what for what, (grade, _) in told.items() if grade == "look"}
    assert looked == {"received", "truncation", "super-packets", "mirror loss", "other"}


def test_packets_cut_behind_their_headers_are_said_and_do_no_harm() -> None:
    """A mirror session that truncates to 128 octets loses nothing that is measured."""
    found = Evidence()
    found.counts.update({"received": 1000, "packets": 1000, "truncated": 400})
    told = {line.what: (line.grade, line.text) for line in verdicts(found, 5)}
    grade, text = told["truncation"]
    assert grade == "ok"
    assert text.startswith("40% of the packets come cut, but with their headers")


# ---- guides


@pytest.mark.parametrize("kind", GUIDE_KINDS)
def test_a_guide_is_filled_in(kind: str) -> None:
    """The reader's own names stand in the steps, no place is left open, and it ends with the check."""
    mine = vmsensor("mirror", "guide", kind, "port-a", "port-b", "--to", "port-z", "--to-host", "192.0.2.99")
    assert (mine.returncode, mine.stderr) == (0, "")
    assert "port-a" in mine.stdout
    assert "port-b" in mine.stdout
    assert "port-z" in mine.stdout or kind == "gcp"
    assert not re.search(r"[{}]", mine.stdout)
    assert "vmsensor mirror verify " in mine.stdout
    assert max(len(line) for line in mine.stdout.splitlines()) <= 130
    assert vmsensor("mirror", "guide", kind).returncode == 0


def test_every_guide_has_its_name() -> None:
    """The command line offers those that there are."""
    assert sorted(GUIDE_KINDS) == sorted(GUIDES)
    assert "Invalid value" in vmsensor("mirror", "guide", "toaster").stderr


def test_what_the_guides_say_of_this_program_is_valid() -> None:
    """Its own commands in the guides parse."""
    for kind in GUIDE_KINDS:
        for line in vmsensor("mirror", "guide", kind).stdout.splitlines():
            words = line.split("#")[0].split()
            if words[:2] == ["vmsensor", "mirror"]:
                command = mirror_group.commands[words[2]]
                command.make_context(words[2], words[3:]).close()
