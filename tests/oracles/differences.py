"""Where an oracle is wrong, or the sensor's design says otherwise: every frame of which that is true, and why.

Whatever is not listed must be equal. An entry that is not needed makes the tests fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.oracles.flows import Packet, Verdict


@dataclass(frozen=True)
class Difference:
    """One frame of one capture. ``right`` names the oracle to follow, or is what both should have said."""

    capture: str
    frame: int
    right: Literal["tshark", "dpkt"] | Verdict
    why: str

    def verdict(self, said: dict[str, list[Verdict]]) -> Verdict:
        """What the sensor has to say about this frame."""
        return said[self.right][self.frame - 1] if isinstance(self.right, str) else self.right


OFFLOADED = "a length of 0 from segmentation offload (Linux BIG TCP): as long as the frame, inside UDP and IPv6 too"
BOUND = "deeper than the sensor goes: its bounds are 16 tags, labels or extension headers in a row and 8 IP headers"

DIFFERENCES = (
    Difference("captures/tcpdump-bigtcp-ipv4-geneve-ipv4.pcap", 1, "dpkt", OFFLOADED),
    Difference("captures/tcpdump-bigtcp-ipv4-vxlan-ipv4.pcap", 1, "dpkt", OFFLOADED),
    Difference("captures/tcpdump-bigtcp-ipv6-geneve-ipv6.pcap", 1, "dpkt", OFFLOADED),
    Difference("captures/tcpdump-bigtcp-ipv6-vxlan-ipv4.pcap", 1, "dpkt", OFFLOADED),
    Difference("captures/tcpdump-bigtcp-ipv6.pcap", 1, "dpkt", OFFLOADED),
    Difference(
        "captures/tcpdump-icmp-icmp_print-oobr-1.pcap", 1, "dpkt",
        "three octets of ICMP: type and code are there, which key the flow; tshark wants the checksum too",
    ),
    Difference(
        "captures/tcpdump-ip_printroute_asan.pcap", 1, "dpkt",
        "the capture ends inside the IPv4 options; tshark goes by the addresses in front of them",
    ),
    Difference("pcaps/malformed.pcap", 31, "dpkt", "GRE version 7 (RFC 2784 knows 0): what follows is not known"),
    Difference("pcaps/malformed.pcap", 35, Packet(60, "2001:db8:1::11", "2001:db8:1::12", None, 1240), BOUND),
    Difference("pcaps/malformed.pcap", 37, None, BOUND),
    Difference("pcaps/malformed.pcap", 38, "tshark", BOUND),
    Difference("pcaps/malformed.pcap", 39, Packet(17, "10.1.0.11", "10.1.0.12", (49152, 4789), 308, (), 1), BOUND),
    Difference("pcaps/malformed.pcap", 40, Packet(4, "10.1.0.11", "10.1.0.12", None, 718), BOUND),
)  # fmt: skip

UNREADABLE = {
    "captures/tcpdump-802_15_4-oobr-2.pcap": ("dpkt",),
    "captures/tcpdump-atm-oam-heapoverflow.pcap": ("dpkt",),
    "captures/tcpdump-esis_snpa_asan-2.pcap": ("dpkt",),
    "captures/tcpdump-esis_snpa_asan-4.pcap": ("dpkt",),
    "captures/tcpdump-esis_snpa_asan.pcap": ("dpkt",),
    "captures/tcpdump-frf15-heapoverflow.pcap": ("dpkt",),
    "captures/tcpdump-heapoverflow-atalk_2.pcap": ("dpkt",),
    "captures/tcpdump-heapoverflow-sl_if_print.pcap": ("dpkt",),
    "captures/tcpdump-hoobr_juniper.pcap": ("dpkt",),
    "captures/tcpdump-hoobr_juniper3.pcap": ("dpkt", "tshark"),
    "captures/tcpdump-ieee802.11_parse_elements_oobr.pcap": ("dpkt",),
    "captures/tcpdump-ieee802.11_tim_ie_oobr.pcap": ("dpkt",),
}
"""Oracles that cannot read a capture, because of its link type: the other one decides, or no flow is expected."""
