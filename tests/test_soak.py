"""A minute of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.proof
@pytest.mark.alone
def test_a_minute_of_it_leaves_memory_flat(open_place: Path) -> None:
    """After the first twenty seconds no process grows, no descriptor is left open, and every packet is in a number."""
    soaked = soak(60, 20, open_place)
    print(f"\n{soaked}")
    assert soaked.faults == []
