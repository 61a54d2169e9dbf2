"""The data plane takes no more instructions for a packet than it did: callgrind counts them, whatever else runs."""

from __future__ import annotations

import pytest

from tests.bench import instructions
from tests.needs import missing, need_tool


@pytest.mark.proof
def test_no_packet_takes_more_instructions_than_on_record() -> None:
    """At most 5 % more, of each kind of traffic; with another compiler there is nothing to compare."""
    need_tool("valgrind")
    need_tool("cc")
    now, before = instructions.measured(), instructions.recorded()
    print("\n", now["per_packet"])
    if why := instructions.incomparable(now, before):
        missing(why)
    assert instructions.slower(now, before) == []


def test_what_is_slower_is_said() -> None:
    """From 5 % on, by the kind of traffic; faster ones are no complaint."""
    before = {"per_packet": dict.fromkeys(instructions.KINDS, 100.0)}
    now = {"per_packet": {**before["per_packet"], "tcp": 105.1, "udp": 50.0, "vxlan": 104.9}}
    assert instructions.slower(now, before) == ["tcp: 105.1 instructions a packet, 100.0 on record"]
