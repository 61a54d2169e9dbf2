"""What tshark says of each TCP flow when nothing else is in the capture: no mirror duplicates, no other tenants.

tshark tells streams apart by addresses and ports alone, and takes a mirror duplicate for a packet of its own. What it
says of a segment here and not in the whole capture, or the reverse, comes from these two.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.needs import need_tool
from tests.oracles import tshark_oracle
from tests.oracles.captures import by_tshark, right
from tests.oracles.flows import TCP, Key, Packet, direction

FiveTuple = tuple[object, ...]
SECONDS = 60


def five_tuple(key: Key) -> FiveTuple:
    """What tshark knows a flow by."""
    return key.low, key.high


def turns(packets: dict[int, Packet]) -> list[list[int]]:
    """The frames in as many groups as are needed for no group to hold two domains of one five-tuple."""
    domains: dict[FiveTuple, dict[Key, int]] = {}
    groups: list[list[int]] = []
    for index, packet in packets.items():
        key, _ = direction(packet)
        known = domains.setdefault(five_tuple(key), {})
        turn = known.setdefault(key, len(known))
        groups.extend([] for _ in range(turn + 1 - len(groups)))
        groups[turn].append(index)
    return groups


def extract(tshark: str, capture: Path, frames: list[int], to: Path) -> None:
    """Write some frames of a capture, counted from 0, to a file of their own, as they are."""
    numbers = ",".join(str(index + 1) for index in frames)
    command = [tshark, "-n", "-r", str(capture), "-Y", f"frame.number in {{{numbers}}}", "-w", str(to)]
    subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)


@cache
def alone(capture: Path) -> list[frozenset[str]]:
    """What tshark says of each frame's segment within its own flow; nothing of frames that do not count in one."""
    reading = by_tshark(capture)
    if reading is None:
        return []
    packets = {index: packet for index, packet in enumerate(right(capture)) if packet and packet.protocol == TCP}
    groups = turns(packets)
    seen_as_tcp = {index for index, packet in enumerate(reading.verdicts) if packet and packet.protocol == TCP}
    if len(groups) <= 1 and seen_as_tcp == set(packets):
        return reading.analysis
    said: list[frozenset[str]] = [frozenset()] * len(reading.analysis)
    with tempfile.TemporaryDirectory() as directory:
        for turn, frames in enumerate(groups):
            part = Path(directory, f"{turn}.pcapng")
            extract(need_tool("tshark"), capture, frames, part)
            for index, analysis in zip(frames, tshark_oracle.read(need_tool("tshark"), part).analysis, strict=True):
                said[index] = analysis
    return said
