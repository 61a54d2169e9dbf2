"""NFStream without dissection, its flows dropped but for their packets, which it prints at the end.

On an interface it also says once a second what it has processed.

usage: nfstream_loop.py FILE|INTERFACE
"""

from __future__ import annotations

import sys

from nfstream import NFStreamer


def main() -> None:
    """One meter, as it is one sensor."""
    flows = NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1, performance_report=1)
    print(sum(flow.bidirectional_packets for flow in flows), "packets")


if __name__ == "__main__":
    main()
