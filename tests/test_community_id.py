"""Community ID: the identifiers that other tools give the same flows."""

from __future__ import annotations

import pytest

from sensor import native
from tests.needs import need_shared
from tests.oracles import program
from tests.oracles.captures import right
from tests.oracles.community_id import community_id as id_of_packet
from tests.oracles.flows import whole
from tests.records import flow_of, record

# The baseline of https://github.com/corelight/community-id-spec: protocol, source, destination, ports or type and code.
BASELINE = [
    (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 136, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
    (58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 135, 136, "1:zavyT/cezQr1fmImYCwYnMXbgck="),
    (58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0, "1:2ObVBgIn28oZvibYZhZMBgh7WdQ="),
    (58, "3ffe:501:410:0:2c0:dfff:fe47:33e", "3ffe:507:0:1:200:86ff:fe05:80da", 1, 4, "1:hLZd0XGWojozrvxqE0dWB1iM6R0="),
    (58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 129, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="),
    (58, "fe80::200:86ff:fe05:80da", "ff02::2", 133, 134, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0="),
    (58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 133, "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
    (1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
    (6, "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25,
     "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="),
    (132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (46, "10.1.12.1", "10.1.12.2", None, None, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
]  # fmt: skip
ONE_WAY = {"1:2ObVBgIn28oZvibYZhZMBgh7WdQ=", "1:hLZd0XGWojozrvxqE0dWB1iM6R0=", "1:YHxtAirCG//0OzkcVAukqKQN9xM="}


@pytest.mark.parametrize(("protocol", "src", "dst", "sport", "dport", "expected"), BASELINE)
def test_published_community_ids(
    protocol: int, src: str, dst: str, sport: int | None, dport: int | None, expected: str
) -> None:
    """The identifiers of the specification; whichever side is the client, unless the ICMP type is one-way."""
    flags = 0 if sport is None else native.HAS_PORTS
    ends = {"client_port": sport or 0, "server_port": dport or 0}
    assert flow_of(record(src, dst, protocol=protocol, flags=flags, **ends))["community_id"] == expected
    if expected not in ONE_WAY:
        ends = {"client_port": dport or 0, "server_port": sport or 0}
        assert flow_of(record(dst, src, protocol=protocol, flags=flags, **ends))["community_id"] == expected


SHARED = (
    *(f"zeek-communityid-{protocol}.pcap" for protocol in ("icmp", "icmp6", "ipv6", "sctp", "tcp", "udp")),
    "zeek-http-vlan-0.pcap",
    "zeek-ipv4-fragmented-1.pcap",
    "tcpdump-geneve-gcp.pcap",
)


@pytest.mark.parametrize("name", SHARED)
def test_community_ids_of_real_captures(name: str) -> None:
    """Other people's captures: the records' identifiers are those of an independent decoder."""
    capture = need_shared() / name
    expected = {id_of_packet(packet) for packet in whole(right(capture))}
    assert {flow["community_id"] for flow in program.run(capture).records} == expected
