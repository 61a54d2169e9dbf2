"""NFStream on an interface, without dissection, its flows dropped: it says once a second what it has processed.

usage: nfstream_loop.py INTERFACE
"""

from __future__ import annotations

import sys

from nfstream import NFStreamer


def main() -> None:
    """One meter, as it is one sensor."""
    for _ in NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1, performance_report=1):
        pass


if __name__ == "__main__":
    main()
