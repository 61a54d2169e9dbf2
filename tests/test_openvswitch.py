"""`vmsensor mirror` on Open vSwitch: real daemons, real traffic between VMs, and what comes out at the mirror."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from sensor.errors import InterfaceError
from sensor.mirror import Destination
from sensor.openvswitch import OpenVSwitch
from tests.command import INTERFACE, PRIVILEGE, USAGE, complaint, without
from tests.live import Sensor
from tests.needs import need_tool
from tests.ovslab import BRIDGE, OvsLab
from tests.transfers import transfers

WEB, APP, DB = "port0", "port1", "port2"
TO_APP, TO_WEB = ("10.77.0.1", "10.77.0.2"), ("10.77.0.2", "10.77.0.1")
SWITCH_ADDRESS, SENSOR_ADDRESS = "10.99.0.1", "10.99.0.2"

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OvsLab]:
    """Two VMs on an Open vSwitch bridge, one on a Linux bridge."""
    for tool in ("ovs-vsctl", "ovs-vswitchd", "ovsdb-server", "ovsdb-tool"):
        need_tool(tool)
    with OvsLab(["web", "app", "db"], tmp_path_factory.mktemp("ovs")) as lab:
        lab.switch.run(["ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare0"])
        yield lab


@pytest.fixture
def lab(cloud: OvsLab) -> Iterator[OvsLab]:
    """The cloud, without any mirror, before and after."""
    yield cloud
    cloud.mirrored("remove")
    cloud.vsctl("clear", "bridge", BRIDGE, "mirrors")
    for port in cloud.ports():
        if port not in (WEB, APP):
            cloud.vsctl("del-port", port)


def captured(lab: OvsLab, directory: Path, port: int) -> tuple[dict[str, object], int]:
    """The flow that a sensor on the SPAN port sees of a connection, and how many segments with data its client sent."""
    directory.mkdir()
    sensor = Sensor(lab, directory)
    process = sensor.capture("--flows", str(sensor.flow_file), "--to", "none")
    (made,) = transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, port, count=1, seed=port)
    time.sleep(0.2)
    assert sensor.ended(process, signal.SIGTERM).status == 0
    found = [flow for flow in sensor.flows() if flow["server_port"] == port]
    return (found[0] if found else {}), made.client_account.data_segments


def refused(lab: OvsLab, *arguments: str) -> str:
    """The one line in which `mirror add` refuses, after which nothing is changed."""
    before = lab.mirrored("list"), lab.mirrors(), lab.ports()
    with pytest.raises(InterfaceError) as failure:
        lab.mirrored("add", *arguments)
    assert (lab.mirrored("list"), lab.mirrors(), lab.ports()) == before
    line = str(failure.value)
    assert "\n" not in line
    return line


@contextmanager
def underlay(lab: OvsLab) -> Iterator[None]:
    """A bridge on the way to the sensor's host, as tunnels of the user-space datapath need one; wide enough."""
    made = [
        "add-br",
        "uplink",
        "--",
        "set",
        "bridge",
        "uplink",
        "datapath_type=netdev",
        "--",
        "add-port",
        "uplink",
        "span",
    ]
    lab.vsctl(*made, "--", "set", "interface", "uplink", "mtu_request=1600")
    for namespace, device, address in ((lab.switch, "uplink", SWITCH_ADDRESS), (lab.tap, "span0", SENSOR_ADDRESS)):
        namespace.run(["ip", "link", "set", "dev", device, "mtu", "1600", "up"])
        namespace.run(["ip", "addr", "add", f"{address}/24", "dev", device])
    lab.switch.run(["ip", "link", "set", "dev", "span", "mtu", "1600"])
    lab.tap.run(["ethtool", "-K", "span0", "tx", "off"])
    try:
        yield
    finally:
        lab.vsctl("del-br", "uplink")
        lab.tap.run(["ip", "addr", "flush", "dev", "span0"])


# ---- what is delivered


def test_a_mirror_is_added_listed_and_removed(lab: OvsLab, tmp_path: Path) -> None:
    """Both directions of a connection come once, however often it is added; after its end nothing is left of it."""
    for port in (WEB, APP):
        lab.vsctl("set", "port", port, "tag=10")
    for _ in range(2):
        added = lab.vmsensor("mirror", "add", WEB, APP, "--to", "span")
        assert added.stdout.splitlines() == [f"{port} ingress is mirrored to span" for port in (WEB, APP)]
        assert lab.mirrors() == ["vmsensor-span"]
    assert [line.split() for line in lab.mirrored("list")] == [[port, "ingress", "span"] for port in (WEB, APP)]
    flow, sent = captured(lab, tmp_path / "on", 7001)
    assert (flow["tcp_state"], flow["vlan"], flow["c2s_data_packets"]) == ("closed", [10], sent)
    assert flow["c2s_mirror_duplicates"] == flow["s2c_mirror_duplicates"] == 0
    assert flow["c2s_unseen_bytes"] == flow["s2c_unseen_bytes"] == 0
    assert lab.mirrored("remove") == [f"{port} ingress is not mirrored any more" for port in (WEB, APP)]
    assert (lab.mirrored("list"), lab.mirrors(), lab.ports()) == ([], [], [WEB, APP])
    for port in (WEB, APP):
        lab.vsctl("clear", "port", port, "tag")
    assert lab.exchange("web", "app") == {}


@pytest.mark.parametrize(
    ("direction", "delivered"),
    [("ingress", {TO_APP: 3}), ("egress", {TO_WEB: 3}), ("both", {TO_APP: 3, TO_WEB: 3})],
)
def test_the_direction_is_that_of_the_port(lab: OvsLab, direction: str, delivered: dict[tuple[str, str], int]) -> None:
    """Of one port: what its VM sends, what it is sent, or both."""
    lab.mirrored("add", WEB, "--to", "span", "--direction", direction)
    assert lab.exchange("web", "app") == delivered


def test_a_whole_bridge(lab: OvsLab) -> None:
    """A bridge's own name stands for all of its ports; every packet comes once."""
    assert lab.mirrored("add", BRIDGE, "--to", "span") == [f"{BRIDGE} both is mirrored to span"]
    assert lab.exchange("web", "app") == {TO_APP: 3, TO_WEB: 3}
    assert lab.mirrored("list") == [f"{BRIDGE:<16} both     span"]
    assert lab.mirrored("remove", BRIDGE) == [f"{BRIDGE} both is not mirrored any more"]
    assert (lab.mirrors(), lab.ports()) == ([], [WEB, APP])


def test_sources_come_and_go_one_by_one(lab: OvsLab) -> None:
    """Another source joins, one moves to another target, one is removed: each leaves the rest as it is."""
    lab.mirrored("add", WEB, "--to", "span")
    lab.mirrored("add", APP, "--to", "span", "--direction", "egress")
    assert lab.mirrors() == ["vmsensor-span"]
    assert lab.exchange("web", "app") == {TO_APP: 3}  # which both of them are, and still once
    lab.mirrored("add", APP, "--to", "spare")
    assert lab.mirrors() == ["vmsensor-span", "vmsensor-spare"]
    lab.mirrored("remove", WEB)
    assert [line.split() for line in lab.mirrored("list")] == [[APP, "ingress", "spare"]]
    assert lab.ports() == [WEB, APP, "spare"]


def test_a_mirror_to_another_host(lab: OvsLab, tmp_path: Path) -> None:
    """By VXLAN: the sensor sees the flows inside of the tunnel, with its VNI; the tunnel goes with the mirror."""
    with underlay(lab):
        lab.mirrored("add", WEB, "--to-host", SENSOR_ADDRESS, "--vni", "77")
        lab.exchange("web", "app")  # the datapath asks for the sensor's address, and drops copies until it has it
        lab.mirrored("add", APP, "--to-host", SENSOR_ADDRESS, "--vni", "77")
        assert lab.ports() == [WEB, APP, "vmsensor0"]
        flow, sent = captured(lab, tmp_path / "far", 7003)
        assert (flow["tunnel"], flow["vni"], flow["outer_dst"]) == ("vxlan", 77, SENSOR_ADDRESS)
        assert flow["c2s_data_packets"] == sent
        lab.mirrored("add", APP, "--to-host", SENSOR_ADDRESS, "--vni", "78")
        assert lab.ports() == [WEB, APP, "vmsensor0", "vmsensor1"]
        lab.mirrored("remove")
        assert (lab.mirrors(), lab.ports()) == ([], [WEB, APP])


def test_ports_of_open_vswitch_and_of_linux_together(lab: OvsLab) -> None:
    """One command, one list, each mirrored by its own kind."""
    lab.switch.run(["ip", "addr", "add", "10.77.0.99/24", "dev", "br0"])
    assert len(lab.mirrored("add", WEB, DB, APP, "--to", "span")) == 3
    assert [line.split() for line in lab.mirrored("list")] == [[port, "ingress", "span"] for port in (WEB, APP, DB)]
    assert "pref 13" in lab.switch.run(["tc", "filter", "show", "dev", DB, "ingress"]).stdout
    assert "pref 13" not in lab.switch.run(["tc", "filter", "show", "dev", WEB, "ingress"]).stdout
    assert lab.exchange("web", "app") == {TO_APP: 3, TO_WEB: 3}
    assert len(lab.mirrored("remove", DB)) == 1
    assert len(lab.mirrored("remove")) == 2


def test_a_sensor_on_the_same_host(lab: OvsLab) -> None:
    """An internal port as the target: copies arrive there as from a wire, which is what a capture looks at."""
    lab.vsctl("add-port", BRIDGE, "copies", "--", "set", "interface", "copies", "type=internal")
    lab.switch.run(["ip", "link", "set", "dev", "copies", "up"])
    lab.mirrored("add", WEB, APP, "--to", "copies")
    assert lab.exchange("web", "app", lab.switch, "copies") == {TO_APP: 3, TO_WEB: 3}
    lab.mirrored("remove")
    assert lab.exchange("web", "app", lab.switch, "copies") == {}
    assert lab.ports() == ["copies", WEB, APP]


# ---- what belongs to others


def test_mirrors_and_ports_of_others_stay(lab: OvsLab) -> None:
    """Somebody's mirror on the same bridge delivers what it did; a port that was there before stays, ours or not."""
    lab.vsctl("add-port", BRIDGE, "span")
    other = ["--id=@to", "get", "port", "span", "--", "--id=@from", "get", "port", WEB, "--", "--id=@m", "create"]
    other += ["mirror", "name=other", "select_src_port=@from", "output_port=@to", "--", "set", "bridge", BRIDGE]
    lab.vsctl(*other, "mirrors=@m")
    row = lab.vsctl("--columns=_uuid,name,select_src_port,output_port", "list", "mirror", "other")
    lab.mirrored("add", APP, "--to", "spare")
    lab.mirrored("add", APP, "--to", "span")
    assert lab.mirrors() == ["other", "vmsensor-span"]
    assert lab.ports() == [WEB, APP, "span"]
    assert lab.exchange("web", "app") == {TO_APP: 3, TO_WEB: 3}
    lab.mirrored("remove")
    assert lab.vsctl("--columns=_uuid,name,select_src_port,output_port", "list", "mirror", "other") == row
    assert lab.exchange("web", "app") == {TO_APP: 3}
    assert lab.ports() == [WEB, APP, "span"]


def test_a_port_of_ours_that_others_have_come_to_need_stays(lab: OvsLab) -> None:
    """It goes with the last mirror that needs it, whosesoever that is."""
    lab.mirrored("add", APP, "--to", "span")
    lab.vsctl(
        "--id=@to", "get", "port", "span", "--", "--id=@m", "create", "mirror", "name=other", "select_all=true",
        "output_port=@to", "--", "add", "bridge", BRIDGE, "mirrors", "@m",
    )  # fmt: skip
    lab.mirrored("remove")
    assert (lab.mirrors(), lab.ports()) == (["other"], [WEB, APP, "span"])
    lab.vsctl("clear", "bridge", BRIDGE, "mirrors")
    lab.mirrored("remove")
    assert lab.ports() == [WEB, APP]


def test_what_remains_when_ports_are_taken_away(lab: OvsLab) -> None:
    """A target that is gone is said to be so, sources that are gone are forgotten; `remove` clears both away."""
    lab.mirrored("add", WEB, APP, "--to", "span")
    lab.vsctl("del-port", "span", "--", "del-port", APP)
    assert lab.mirrored("list") == [f"{WEB:<16} ingress  an interface that is gone"]
    lab.vsctl("del-port", WEB)
    assert lab.mirrored("list") == []
    assert lab.mirrors() == ["vmsensor-span"]
    lab.mirrored("remove")
    assert lab.mirrors() == []
    for port in (WEB, APP):
        lab.vsctl("add-port", BRIDGE, port)


def test_the_guide_can_be_followed(lab: OvsLab) -> None:
    """Each way that `mirror guide ovs` shows to do it by hand delivers, and is ended as it says."""
    steps = lab.mirrored("guide", "ovs", WEB, APP, "--to", "span")
    text = "\n".join(steps).replace("br0", BRIDGE).replace("\\\n", " ")
    commands = [line.split() for line in text.splitlines() if line.split()[:1] in (["ovs-vsctl"], ["ovs-appctl"])]
    target, everything, some, tunnel, _, end, purge = commands
    lab.vsctl(*target[1:])
    for way in (everything, some):
        lab.vsctl(*way[1:])
        subprocess.run([need_tool(purge[0]), *purge[1:]], env=lab.environment, check=True)
        assert lab.exchange("web", "app") == {TO_APP: 3, TO_WEB: 3}
        lab.vsctl(*end[1:])
        subprocess.run([need_tool(purge[0]), *purge[1:]], env=lab.environment, check=True)
        assert lab.exchange("web", "app") == {}
    lab.vsctl(*tunnel[1:])


# ---- what is refused


def test_targets_that_would_do_harm_are_refused(lab: OvsLab) -> None:
    """An output port carries nothing but copies: not a VM's port, a bridge, a port of another, or a host's address."""
    run = lab.switch.run
    assert "cannot be mirrored to itself" in refused(lab, WEB, APP, "--to", APP)
    assert f"{BRIDGE}: is a bridge, and would carry nothing but copies" in refused(lab, WEB, "--to", BRIDGE)
    assert f"{DB}: is a port of br0" in refused(lab, WEB, "--to", DB)
    assert "nosuch0: no such interface" in refused(lab, WEB, "--to", "nosuch0")
    lab.vsctl("set", "interface", APP, "external_ids:attached-mac=02:77:00:00:00:02")
    assert f"{APP}: is a VM's port" in refused(lab, WEB, "--to", APP)
    lab.vsctl("clear", "interface", APP, "external_ids")
    run(["ip", "addr", "add", "10.98.0.1/24", "dev", "spare"])
    assert "spare: has the address 10.98.0.1" in refused(lab, WEB, "--to", "spare")
    run(["ip", "addr", "flush", "dev", "spare"])
    run(["ip", "link", "add", "link", "spare", "name", "vm-9", "type", "macvlan"])
    assert "spare: carries vm-9" in refused(lab, WEB, "--to", "spare")
    run(["ip", "link", "del", "dev", "vm-9"])
    lab.mirrored("add", APP, "--to", "spare")
    assert f"{APP}: is mirrored itself" in refused(lab, WEB, "--to", APP)
    assert "spare: is what a mirror of ovs0 goes to" in refused(lab, "spare", "--to", "span")


def test_a_mirror_is_of_one_bridge(lab: OvsLab) -> None:
    """Two bridges cannot share a port or a tunnel; what to do instead is said, and works."""
    lab.vsctl("add-br", "ovs1", "--", "set", "bridge", "ovs1", "datapath_type=netdev")
    try:
        assert "each bridge by a command with its own --to" in refused(lab, BRIDGE, "ovs1", "--to", "span")
        assert "each bridge by a command with its own --vni" in refused(lab, BRIDGE, "ovs1", "--to-host", "192.0.2.7")
        lab.mirrored("add", BRIDGE, "--to", "span")
        assert "span: is a port of bridge ovs0" in refused(lab, "ovs1", "--to", "span")
        lab.mirrored("add", "ovs1", "--to", "spare")
        assert len(lab.mirrored("remove")) == 2
        assert lab.ports("ovs1") == []
    finally:
        lab.vsctl("del-br", "ovs1")


def test_copies_are_not_copied_again(lab: OvsLab) -> None:
    """A tunnel that leaves through what is mirrored would feed itself for ever."""
    lab.switch.run(["ip", "addr", "add", "10.97.0.1/24", "dev", BRIDGE])
    lab.switch.run(["ip", "link", "set", "dev", BRIDGE, "up"])
    try:
        for arguments in ([BRIDGE], [WEB, "--direction", "both"]):
            line = refused(lab, *arguments, "--to-host", "10.97.0.2")
            assert line.startswith(f"10.97.0.2: is reached through {BRIDGE}, so that copies would be copied again")
        lab.mirrored("add", WEB, "--to-host", "10.97.0.2")
    finally:
        lab.switch.run(["ip", "addr", "flush", "dev", BRIDGE])


def test_a_failure_leaves_nothing_half_done(lab: OvsLab) -> None:
    """A port that cannot be set up, a tunnel that is there already, no right to use tc: all as it was before."""
    lab.mirrored("add", APP, "--to", "spare")
    tunnel = ["type=vxlan", "options:remote_ip=192.0.2.7", "options:key=5"]
    lab.vsctl("add-port", BRIDGE, "taken", "--", "set", "interface", "taken", *tunnel)
    assert "File exists" in refused(lab, WEB, "--to-host", "192.0.2.7", "--vni", "5")
    unprivileged = lab.vmsensor("mirror", "add", WEB, APP, DB, "--to", "span", prefix=without("net_admin"))
    assert complaint(unprivileged, PRIVILEGE).startswith(f"{DB}: it takes CAP_NET_ADMIN")
    assert [line.split() for line in lab.mirrored("list")] == [[APP, "ingress", "spare"]]
    assert f"{WEB} is of Open vSwitch and {DB} is not" in refused(lab, WEB, DB, "--to-host", "192.0.2.7")
    named = lab.vmsensor("mirror", "add", WEB, "--to-host", "sensor.example")
    assert "--to-host sensor.example: is no IP address" in complaint(named, USAGE)


# ---- daemons that are silent or absent


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a daemon not answer for the while."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("daemon", ["ovs-vswitchd", "ovsdb-server"])
def test_a_daemon_that_does_not_answer(lab: OvsLab, daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which it is; nothing is changed."""
    monkeypatch.setenv("OVS_RUNDIR", str(lab.directory))
    switch = OpenVSwitch(seconds=1)
    with lab.switch.inside(), stopped(lab.daemons[daemon]):
        failing = pytest.raises(InterfaceError, match=f"{daemon},? does not answer within 1 s")
        with failing as failure, switch.undone_on_failure():
            switch.add([WEB], Destination("span"), ["ingress"])
        assert "\n" not in str(failure.value)
    assert (lab.mirrors(), lab.ports()) == ([], [WEB, APP])


def test_the_database_is_for_root(lab: OvsLab) -> None:
    """Others are told so in one line."""
    database = lab.directory / "db.sock"
    database.chmod(0)
    try:
        done = lab.vmsensor("mirror", "list", prefix=without("dac_override", "dac_read_search"))
    finally:
        database.chmod(0o700)
    assert complaint(done, PRIVILEGE) == "Open vSwitch: its database is for root only; run as root"


def test_a_host_without_open_vswitch(lab: OvsLab, tmp_path: Path) -> None:
    """No tool, or no database: its ports are interfaces of Linux as any other. A dead database is said to be one."""
    environment = lab.environment
    with patch("sensor.vsctl._path", return_value=None):
        assert lab.mirrored("add", WEB, "--to", "span") == [f"{WEB} ingress is mirrored to span"]
        assert "pref 13" in lab.switch.run(["tc", "filter", "show", "dev", WEB, "ingress"]).stdout
    assert len(lab.mirrored("add", WEB, "--to", "span")) == 1  # found by now, and in place of what was before
    assert "pref 13" not in lab.switch.run(["tc", "filter", "show", "dev", WEB, "ingress"]).stdout
    try:
        lab.environment = environment | {"OVS_RUNDIR": str(tmp_path)}
        assert lab.mirrored("add", DB, "--to", "span") == [f"{DB} ingress is mirrored to span"]
        assert lab.mirrored("remove") == [f"{DB} ingress is not mirrored any more"]
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "db.sock"))
        line = complaint(lab.vmsensor("mirror", "list"), INTERFACE)
        assert line.startswith("Open vSwitch: its database cannot be reached; ")
    finally:
        lab.environment = environment
