"""``mirror``: the mirror that feeds a sensor, set up, listed, removed, looked at."""

from __future__ import annotations

import click

from sensor.config import build
from sensor.errors import InterfaceError, UsageError
from sensor.output import quiet_when_nobody_reads, write

VNI = click.IntRange(1, 2**24 - 1)
GUIDE_KINDS = ("nexus", "dvs", "ovs", "linux", "aws", "azure", "gcp", "proxmox", "kvm")
"""Those of ``mirrorguide.GUIDES``, which a test holds equal."""


@click.group("mirror")
def mirror_group() -> None:
    """Work with the mirror that feeds a sensor."""


@mirror_group.command("add")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--to", "target", metavar="INTERFACE", help="Where copies go: an interface of this host.")
@click.option("--to-host", metavar="ADDRESS", help="Or a sensor on another host, by VXLAN.")
@click.option("--vni", default=4242, show_default=True, metavar="VNI", type=VNI, help="Of it.")
@click.option(
    "--direction",
    type=click.Choice(["ingress", "egress", "both"]),
    default="ingress",
    show_default=True,
    help="What the host receives on the source (a VM sends), what it sends there, or both.",
)
def mirror_add_command(
    sources: tuple[str, ...], target: str | None, to_host: str | None, vni: int, direction: str
) -> None:
    """Mirror SOURCE..., ports of VMs on this host (tap, veth, bridge), in place of what was before.

    Ports of Open vSwitch are mirrored by Open vSwitch, its bridges, where they are named, whole; others by tc mirred.
    """
    if (target is None) == (to_host is None):
        raise UsageError("a mirror needs one destination: give --to, or --to-host")
    from sensor.mirror import HOOKS, Destination
    from sensor.mirrors import Mirrors

    destination = Destination(target, to_host or "", vni)
    with Mirrors() as mirrors:
        for one in mirrors.add(sources, destination, list(HOOKS) if direction == "both" else [direction]):
            write(f"{one.source} {one.direction} is mirrored to {one.target}\n")


@mirror_group.command("list")
def mirror_list_command() -> None:
    """List what is mirrored by `mirror add` on this host."""
    from sensor.mirrors import Mirrors

    with Mirrors() as mirrors, quiet_when_nobody_reads():
        write("".join(f"{one.source:<16} {one.direction:<8} {one.target}\n" for one in mirrors.listed()))


@mirror_group.command("remove")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
def mirror_remove_command(sources: tuple[str, ...]) -> None:
    """End the mirrors of SOURCE..., or all that `mirror add` has made on this host."""
    from sensor.mirrors import Mirrors

    with Mirrors() as mirrors:
        for one in mirrors.remove(sources):
            write(f"{one.source} {one.direction} is not mirrored any more\n")
        for source in sources:
            if not mirrors.knows(source):
                write(f"{source}: there is no such interface, and so no mirror of it\n")


@mirror_group.command("guide")
@click.argument("kind", type=click.Choice(list(GUIDE_KINDS)))
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("--to", "destination", default="", metavar="NAME", help="The port, VM or interface that copies go to.")
@click.option("--to-host", default="192.0.2.7", show_default=True, metavar="ADDRESS", help="A sensor on another host.")
@click.option("--vlan", default="10", show_default=True, metavar="VLAN", help="A VLAN to mirror, or to mirror into.")
@click.option(
    "--session", default=1, show_default=True, metavar="NUMBER", type=click.IntRange(1), help="Of the mirror."
)
@click.option(
    "--vni", default=4242, show_default=True, metavar="VNI", type=click.IntRange(1, 2**24 - 1), help="Of VXLAN."
)
def mirror_guide_command(
    kind: str, sources: tuple[str, ...], destination: str, to_host: str, vlan: str, session: int, vni: int
) -> None:
    """Print how to mirror SOURCE..., ports of a switch, hypervisor or cloud that this program cannot set up itself."""
    from sensor.views.mirrorguide import Site, guide

    with quiet_when_nobody_reads():
        write(guide(kind, Site(sources, destination, to_host, vlan, session, vni)))


@mirror_group.command("verify")
@click.argument("interface")
@click.option(
    "--seconds", default=5.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0.5, 3600), help="How long."
)
def mirror_verify_command(interface: str, seconds: float) -> None:
    """Look at what comes to INTERFACE: directions, duplicates, tags, tunnels, damage; and say what to change."""
    given = {"to": ("none",), "duration": f"{seconds}s", "window": "1s"}
    settings = build("capture", given)
    from sensor.live import capture
    from sensor.sinks.callback import CallbackSink
    from sensor.views.mirror import Evidence, verdicts

    evidence = Evidence()
    capture(settings, interface, [CallbackSink(evidence.take)], [evidence])
    told = list(verdicts(evidence, seconds))
    for line in told:
        write(f"{line.grade:<5} {line.what:<13} {line.text}\n")
    if any(line.grade == "FAIL" for line in told):
        raise InterfaceError(f"{interface}: the mirror delivers nothing; see above")
