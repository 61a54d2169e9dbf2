"""``python -m tests.known`` is ``make proof``: 20,000 connections and more, in a few minutes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .grid import GRID, connections
from .proof import HEAD, NETWORKS, SEED, changed_by_copies, losses, score_grid, shortfalls, table, times_table, total

CONNECTIONS = 250
"""Of each cell."""


def main() -> int:
    """Print the tables; 1 if anything falls short."""
    scores = score_grid(GRID, CONNECTIONS)
    print(HEAD)
    for cell, one in scores.items():
        print(table(cell, one))
    whole = total(scores.values())
    print(f"\n{HEAD}\n{table('all', whole)}\n\n{times_table(whole)}\n")
    wrong = shortfalls(whole)
    with tempfile.TemporaryDirectory() as directory:
        capture = Path(directory, "network.pcap")
        for network in NETWORKS:
            known = connections(network, CONNECTIONS, SEED)
            changed, lost = changed_by_copies(known, capture), losses(known, capture)
            print(f"{network}: {len(changed)} records changed by copies; {lost}")
            wrong += [f"{network}: {line}" for line in (*changed[:1], *lost.shortfalls)]
    for line in wrong:
        print(f"falls short: {line}")
    return bool(wrong)


sys.exit(main())
