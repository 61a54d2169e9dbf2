"""Write the benchmark's capture: conversations between virtual machines, interleaved in time.

Every column of every packet is computed at once, so six million packets take seconds; the same options and the same
seed give the same bytes.

usage: python -m tests.bench.make_trace --out FILE [--packets N] [--flows N] [--vxlan] ...
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tests.bench.conversations import draw_flows, draw_packets
from tests.bench.frames import SNAP, WHOLE_FRAMES, Addresses, Bools, Ints, Packets, write

VMS_PER_TENANT, VMS_PER_HOST, PEERS = 250, 25, 8
VM_NET, HOST_NET = 10 << 24, 172 << 24 | 16 << 16
UDP_SHARE, TAGGED_SHARE, ELSEWHERE_SHARE = 0.1, 0.1, 0.1
TCP_PORTS = np.array([22, 80, 443, 3306, 5432, 6379, 8080, 9092])
UDP_PORTS = np.array([53, 443])
EPHEMERAL, EPHEMERAL_COUNT, STRIDE = 32768, 28232, 12345  # coprime: a client takes every port once before the next time
MOST_BETWEEN_US = 50
SPOOFED_NET, SPOOFED_COUNT, VICTIMS, GATEWAY_MAC = 198 << 24 | 18 << 16, 1 << 17, 8, 0xFFFFFF  # RFC 2544


def main() -> None:
    """Parse the options and write the file, which appears under its name only when it is whole."""
    options = parse()
    partial = options.out.with_name(options.out.name + ".partial")
    with partial.open("wb") as file:
        make(options, file)
    os.replace(partial, options.out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make_trace", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packets", type=int, default=6_100_000)
    parser.add_argument("--flows", type=int, default=200_000)
    parser.add_argument("--vms", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--udp-only", action="store_true", help="no TCP")
    parser.add_argument("--vxlan", action="store_true", help="every frame inside VXLAN")
    parser.add_argument(
        "--syn-flood", type=float, nargs="?", const=0.5, default=0, metavar="SHARE",
        help="so much of the packets, half if it is not said, are SYNs from spoofed addresses",
    )  # fmt: skip
    parser.add_argument(
        "--imix", action="store_true", help="whole frames, of IP packets of 40, 576, 1500 octets, 7:4:1"
    )
    parser.add_argument("--twice", action="store_true", help="every packet and its copy, as from a mirror of both ends")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.twice and options.packets % 2:
        parser.error("--twice makes an even number of --packets")
    options.distinct = options.packets // (1 + options.twice)
    options.flood = int(options.distinct * options.syn_flood)
    if not 1 < options.vms <= 100_000 or not 0 <= options.flows <= options.vms * 10_000:
        parser.error("--vms is 2 to 100000, --flows at most 10000 times as many")
    if options.flows > options.distinct - options.flood or options.flows == 0 < options.distinct - options.flood:
        parser.error("every flow needs a packet, and every packet a flow: other --flows or --packets")
    return options


def make(options: argparse.Namespace, file: BinaryIO) -> None:
    """Draw the conversations and their addresses, then write them."""
    rng = np.random.default_rng(options.seed)
    udp = rng.random(options.flows + options.flood) < (1 if options.udp_only else UDP_SHARE)
    udp[options.flows :] = False
    flows = draw_flows(rng, udp, options.distinct, options.flood, options.seconds)
    who = draw_addresses(rng, udp, options.vms)
    spoof(who, options.flows)
    packets = draw_packets(rng, flows, options.seconds, options.imix)
    if options.twice:
        packets = seen_twice(rng, packets)
    write(file, who, packets, options.vxlan, WHOLE_FRAMES if options.imix else SNAP)


def seen_twice(rng: np.random.Generator, packets: Packets) -> Packets:
    """Each packet where it leaves a VM's port, and again where it enters the other's."""
    again = replace(packets, time_us=packets.time_us + rng.integers(1, MOST_BETWEEN_US, len(packets.flow)))
    both = {field.name: (getattr(packets, field.name), getattr(again, field.name)) for field in fields(Packets)}
    return Packets(**{name: np.concatenate(columns) for name, columns in both.items()})


def draw_addresses(rng: np.random.Generator, udp: Bools, vms: int) -> Addresses:
    """Each client has a few servers in its own tenant, and sometimes one in the next; each server has one service."""
    count = len(udp)
    client = rng.integers(0, vms, count)
    peers = (VMS_PER_TENANT * rng.random((vms, PEERS)) ** 2).astype(np.int64)
    tenant = client // VMS_PER_TENANT + (rng.random(count) < ELSEWHERE_SHARE)
    server = (tenant * VMS_PER_TENANT + peers[client, rng.integers(0, PEERS, count)]) % vms
    server = np.where(server == client, (server + 1) % vms, server)
    service = np.where(udp, UDP_PORTS[server % len(UDP_PORTS)], TCP_PORTS[server % len(TCP_PORTS)])
    tagged = rng.random(count) < TAGGED_SHARE
    return addresses(udp, client, server, np.stack((client_ports(client), service)), tagged)


def addresses(udp: Bools, client: Ints, server: Ints, port: Ints, tagged: Bools) -> Addresses:
    """A /24 for each tenant, which is also its VLAN and its VNI."""
    vm = np.stack((client, server))
    tenant = server // VMS_PER_TENANT
    return Addresses(
        ip=VM_NET + (vm // VMS_PER_TENANT << 8) + vm % VMS_PER_TENANT + 1,
        mac=vm,
        port=port,
        host=HOST_NET + vm // VMS_PER_HOST + 1,
        vlan=np.where(tagged, 100 + tenant, 0),
        vni=5000 + tenant,
        udp=udp,
    )


def client_ports(client: Ints) -> Ints:
    """Ephemeral ports that look random, none twice for the same client."""
    order = np.argsort(client, kind="stable")
    ranked = client[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return EPHEMERAL + (rank * STRIDE + client * 7) % EPHEMERAL_COUNT


def spoof(who: Addresses, first: int) -> None:
    """From flow ``first`` on: a few victims hear through a router from addresses and ports, each pair once."""
    number = np.arange(who.ip.shape[1] - first)
    victim = number % VICTIMS
    who.ip[:, first:] = SPOOFED_NET + number % SPOOFED_COUNT, VM_NET + 1 + victim
    who.mac[:, first:] = np.full_like(number, GATEWAY_MAC), victim
    who.port[:, first:] = 1024 + number // SPOOFED_COUNT, np.full_like(number, 443)


if __name__ == "__main__":
    main()
