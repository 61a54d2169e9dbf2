"""``vmsensor mirror guide``: how to set a mirror up on what this program cannot reach, filled in for the reader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """What the reader has: names as their switch, hypervisor or cloud knows them."""

    sources: tuple[str, ...]
    destination: str
    host: str
    vlan: str
    session: int
    vni: int


@dataclass(frozen=True)
class Guide:
    """The steps for one kind of switch. ``defaults`` stand where the reader names nothing."""

    title: str
    steps: str
    sources: tuple[str, ...]
    destination: str = "eth1"
    per_source: str = ""


AFTERWARDS = """
Then, on the monitoring host:
    vmsensor mirror verify {destination_here}
    vmsensor capture {destination_here}
"""

GUIDES: dict[str, Guide] = {
    "nexus": Guide(
        "Cisco Nexus (NX-OS): a SPAN session to a port, or ERSPAN to an address",
        """
The port that the monitoring host is wired to:
    configure terminal
    interface {destination}
      switchport
      switchport monitor
      no shutdown

The session. rx of every port that takes part shows each packet once; both shows it twice:
    monitor session {session}
{per_source}
      destination interface {destination}
      no shut

Or a whole VLAN, in place of the sources above (its direction is rx on most models):
      source vlan {vlan} rx

Or across the network, to the address of the monitoring host, which sees ERSPAN type II:
    monitor erspan origin ip-address ADDRESS-OF-THIS-SWITCH global
    monitor session {session} type erspan-source
      erspan-id {session}
      vrf default
      destination ip {host}
{per_source}
      no shut

See what it does, and how much the hardware lets it:
    show monitor session {session}
    show interface {destination} counters

A destination port that is slower than its sources together drops; and models bound the number of sessions.
""",
        ("Ethernet1/1", "Ethernet1/2"), "Ethernet1/48", "      source interface {source} rx",
    ),
    "dvs": Guide(
        "VMware vSphere distributed switch: a port mirroring session",
        """
In the vSphere Client: Networking, the distributed switch, Configure, Settings, Port mirroring, New.
    Session type   "Distributed Port Mirroring" where sensor and VMs are on the same host,
                   "Remote Mirroring Source" to an uplink and a VLAN of the physical network,
                   "Encapsulated Remote Mirroring (L3) Source" to the address of the sensor, by GRE or ERSPAN
    Properties     name vmsensor, status enabled, mirrored packet length: off, or at least 128
    Sources        the ports of {source_list}; traffic direction: ingress of all VMs shows each packet once
    Destinations   the port of the sensor's VM ({destination}), the uplink, or the address {host}
For remote mirroring, allow the VLAN {vlan} on the uplinks and on the way to the sensor.
Mirroring takes the CPU of the ESXi host; begin with few VMs.
""",
        ("web-1", "db-1"), "vmsensor",
    ),
    "ovs": Guide(
        "Open vSwitch: on its host, this program does it; elsewhere, a mirror in its database",
        """
On the host of the bridge, some ports, or the bridge br0 as a whole, to an interface or to a sensor on another host:
    vmsensor mirror add {source_list_plain} --to {destination}
    vmsensor mirror add br0 --to {destination}
    vmsensor mirror add {source_list_plain} --to-host {host} --vni {vni}
    vmsensor mirror list
    vmsensor mirror remove

Without it: {destination} is made a port of the bridge, which carries nothing but copies from then on.
    ovs-vsctl --may-exist add-port br0 {destination}

All ports of the bridge:
    ovs-vsctl -- --id=@to get port {destination} \\
              -- --id=@m create mirror name=vmsensor select-all=true output-port=@to \\
              -- add bridge br0 mirrors @m

Or some ports, what their VMs send:
    ovs-vsctl -- --id=@to get port {destination} \\
{per_source}
              -- --id=@m create mirror name=vmsensor {selection} output-port=@to \\
              -- add bridge br0 mirrors @m

Or to a sensor on another host, by VXLAN: make the port first, and use it as the one that is mirrored to:
    ovs-vsctl add-port br0 vmsensor0 -- set interface vmsensor0 type=vxlan options:remote_ip={host} options:key={vni}

See it, and end it:
    ovs-vsctl list mirror
    ovs-vsctl -- --id=@m get mirror vmsensor -- remove bridge br0 mirrors @m

Some versions notice a change of mirrors for new flows only. After each, for those that run:
    ovs-appctl revalidator/purge
""",
        ("vnet0", "vnet1"), "eth1", "              -- --id=@s{number} get port {source} \\",
    ),
    "linux": Guide(
        "A Linux host with bridges, veth or tap interfaces: this program does it",
        """
    vmsensor mirror add {source_list_plain} --to {destination}
    vmsensor mirror add {source_list_plain} --to-host {host} --vni {vni}     # to a sensor on another host
    vmsensor mirror list
    vmsensor mirror remove
""",
        ("vnet0", "vnet1"),
    ),
    "kvm": Guide(
        "KVM with libvirt: the tap interfaces of the VMs",
        """
Which tap interface is whose:
    virsh list
    virsh domiflist VM

What the VMs send, to a NIC of this host, or to a sensor elsewhere:
    vmsensor mirror add {source_list_plain} --to {destination}
    vmsensor mirror add {source_list_plain} --to-host {host} --vni {vni}

A VM that is started again has a new tap interface: add it again, from a hook in /etc/libvirt/hooks/qemu.
""",
        ("vnet0", "vnet1"),
    ),
    "proxmox": Guide(
        "Proxmox VE: the tap interfaces of its VMs",
        """
The interface of VM 100's first card is tap100i0, of container 101's first one veth101i0. With the firewall of a card
switched on, fwpr100p0 is the port on the bridge. On the node:
    vmsensor mirror add {source_list_plain} --to {destination}
    vmsensor mirror add {source_list_plain} --to-host {host} --vni {vni}

A VM that is started again, or that has migrated here, has a new interface: add it again, from a hookscript of the
VM. With Open vSwitch as the bridge, the same commands do.
""",
        ("tap100i0", "tap101i0"),
    ),
    "aws": Guide(
        "Amazon VPC: traffic mirroring, which arrives as VXLAN",
        """
The target is the network interface of the sensor's instance; its security group has to let UDP port 4789 in.
    aws ec2 create-traffic-mirror-target --network-interface-id {destination}
    aws ec2 create-traffic-mirror-filter --description vmsensor

Everything, in both directions, with the filter's id:
    for direction in ingress egress; do
      aws ec2 create-traffic-mirror-filter-rule --traffic-mirror-filter-id tmf-ID --traffic-direction $direction \\
        --rule-number 100 --rule-action accept --source-cidr-block 0.0.0.0/0 --destination-cidr-block 0.0.0.0/0
    done

A session for each network interface that is mirrored, with the ids that the commands above gave:
{per_source}

Where both ends are mirrored every packet comes twice: the sensor counts it once. It sees VNI {vni}. Instances have to
be of a type that can be mirrored, and mirrored traffic counts against their bandwidth.
""",
        ("eni-SOURCE1", "eni-SOURCE2"), "eni-SENSOR",
        "    aws ec2 create-traffic-mirror-session --network-interface-id {source} \\\n"
        "      --traffic-mirror-target-id tmt-ID --traffic-mirror-filter-id tmf-ID \\\n"
        "      --session-number {session} --virtual-network-id {vni}",
    ),
    "azure": Guide(
        "Microsoft Azure: virtual network TAP, where it is offered in your region",
        """
The collector is the network interface of the sensor's VM, {destination}; packets come as VXLAN, UDP port 4789.
    az network vnet tap create --resource-group GROUP --name vmsensor \\
      --destination ID-OF-THE-IP-CONFIGURATION-OF-{destination}

For each network interface that is mirrored:
{per_source}

Where TAP is not offered, run the sensor on a network virtual appliance that the traffic passes.
""",
        ("nic-web-1", "nic-db-1"), "nic-sensor",
        "    az network nic vtap-config create --resource-group GROUP --nic {source} \\\n"
        "      --name vmsensor --vnet-tap vmsensor",
    ),
    "gcp": Guide(
        "Google Cloud: packet mirroring",
        """
The sensor's VM stands in an instance group behind an internal passthrough load balancer that is made for mirroring:
    gcloud compute forwarding-rules create vmsensor --region REGION --load-balancing-scheme internal \\
      --backend-service vmsensor --ports all --network NETWORK --subnet SUBNET --is-mirroring-collector

What is mirrored: instances, subnets or tags.
    gcloud compute packet-mirrorings create vmsensor --region REGION --network NETWORK \\
      --collector-ilb vmsensor --mirrored-instances {source_list_commas}

Packets come as they are, without a tunnel. Where both ends are mirrored every packet comes twice: the sensor counts
it once.
""",
        ("web-1", "db-1"),
    ),
}  # fmt: skip


def guide(kind: str, site: Site) -> str:
    """The steps for this kind, with the reader's own names."""
    shown = GUIDES[kind]
    sources, destination = site.sources or shown.sources, site.destination or shown.destination
    known = {
        "destination": destination, "host": site.host, "vlan": site.vlan, "session": site.session, "vni": site.vni,
        "destination_here": site.destination if kind in ("linux", "ovs", "kvm", "proxmox") else "eth1",
        "source_list": ", ".join(sources), "source_list_plain": " ".join(sources),
        "source_list_commas": ",".join(sources),
        "selection": "select-src-port=" + ",".join(f"@s{number}" for number in range(len(sources))),
    }  # fmt: skip
    known["destination_here"] = known["destination_here"] or "eth1"
    per_source = "\n".join(
        shown.per_source.format(**known, source=source, number=number) for number, source in enumerate(sources)
    )
    steps = shown.steps.format(**known, per_source=per_source)
    return f"{shown.title}\n{steps}{AFTERWARDS.format(**known)}"
