"""A capture for each cause of an odd segment: the smallest that shows it, and nothing else."""

from __future__ import annotations

import pytest

from tests.command import records, vmsensor
from tests.needs import PCAPS

CAUSES = (
    "mirror_duplicates", "retransmissions", "spurious", "upstream_losses", "reordered", "unseen_bytes", "keepalives",
    "window_probes", "out_of_window", "unknown_causes",
)  # fmt: skip
SHOWN = {
    "mirror-duplicate": {"mirror_duplicates": 1},
    "retransmission": {"retransmissions": 1},
    "spurious-acked": {"retransmissions": 1, "spurious": 1},
    "spurious-dsack": {"retransmissions": 1, "spurious": 1},
    "upstream-loss": {"upstream_losses": 1},
    "reordering": {"reordered": 1},
    "mirror-loss": {"unseen_bytes": 100},
    "keep-alive": {"keepalives": 2},
    "window-probe": {"window_probes": 2},
    "out-of-window": {"out_of_window": 1},
    "unknown": {"unknown_causes": 1},
    "resent-syn-and-fin": {"retransmissions": 2},
}


@pytest.mark.parametrize("cause", SHOWN)
def test_the_capture_of_a_cause(cause: str) -> None:
    """The client's direction has this cause and no other, the server's has none."""
    (flow,) = records(vmsensor("read", PCAPS / f"cause-{cause}.pcap", "--to", "none", "--flows", "-"))
    assert {name: flow[f"c2s_{name}"] for name in CAUSES if flow[f"c2s_{name}"]} == SHOWN[cause]
    assert not any(flow[f"s2c_{name}"] for name in CAUSES)


def test_every_cause_has_a_capture() -> None:
    """No cause without its capture, and no such capture without its place here."""
    assert {name for shown in SHOWN.values() for name in shown} == set(CAUSES)
    assert {path.stem.removeprefix("cause-") for path in PCAPS.glob("cause-*.pcap")} == set(SHOWN)
