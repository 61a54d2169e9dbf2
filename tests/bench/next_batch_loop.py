"""The price of pcapy-ng alone: every packet of a capture through ``next_batch``, its result dropped.

usage: next_batch_loop.py TRACE BATCH
"""

from __future__ import annotations

import sys

import pcapy


def main() -> None:
    """Count the packets by their metadata, 16 bytes each."""
    handle, batch, packets = pcapy.open_offline(sys.argv[1]), int(sys.argv[2]), 0
    while meta := handle.next_batch(batch)[1]:
        packets += len(meta) // 16
    print(f"{packets} packets")


if __name__ == "__main__":
    main()
