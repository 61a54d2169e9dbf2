"""Capture files as files: variants of the format, and files that are not whole."""

from __future__ import annotations

from ..files import gzipped, pcap, pcapng
from ..registry import capture
from .small import family4, framed


@capture("nanosecond.pcap")
def nanosecond() -> bytes:
    """A pcap file with nanosecond timestamps (magic a1b23c4d)."""
    return pcap(framed(*family4()), nanoseconds=True)


@capture("big-endian.pcap")
def big_endian() -> bytes:
    """A pcap file written by a big-endian host."""
    return pcap(framed(*family4()), order=">")


@capture("plain.pcapng")
def plain_pcapng() -> bytes:
    """A pcapng file: one named interface, nanosecond timestamps, interface statistics."""
    return pcapng(framed(*family4()))


@capture("gzipped.pcap.gz")
def gzipped_pcap() -> bytes:
    """A gzip'd pcap."""
    return gzipped(pcap(framed(*family4())))


@capture("empty.pcap")
def empty() -> bytes:
    """A file header and no packets."""
    return pcap([])


@capture("cut.pcap")
def cut() -> bytes:
    """Ends in the middle of its last packet."""
    return pcap(framed(*family4()))[:-40]
