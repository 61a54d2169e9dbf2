"""The sensor's causes of TCP segments against tshark's analysis, over all captures, by flow and direction.

`make causes` prints the table. Where the two differ, tests/oracles/cause_differences.toml says who is right, and the
packets have to bear it out.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.needs import PCAPS, SHARED_CAPTURES, need_shared, need_tool
from tests.oracles import causes, program
from tests.oracles.alone import alone
from tests.oracles.captures import CAPTURES, by_tshark, name, read_ahead, selected
from tests.oracles.cause_list import EVIDENCE, Entry, content, differences, entries, fault
from tests.oracles.cause_rules import RULES
from tests.oracles.cause_table import METRICS, counted, table

pytestmark = pytest.mark.proof  # tshark takes most of a minute over all captures

every_capture = pytest.mark.parametrize("capture", CAPTURES, ids=name)


@pytest.fixture(autouse=True, scope="module")
def _everything_is_read(request: pytest.FixtureRequest) -> None:
    """Needs tshark, and starts it and the program for all captures at once."""
    need_tool("tshark")
    read_ahead(selected(request), by_tshark, program.run, alone)


@every_capture
def test_every_difference_is_explained(capture: Path) -> None:
    """Whatever tshark and the sensor count differently is in the list; the failure prints the lines it lacks."""
    assert causes.unexplained(capture) == []


@every_capture
def test_no_explanation_is_stale(capture: Path) -> None:
    """Whatever the list says of a capture is a difference that is there."""
    assert set(entries(capture)) <= set(differences(capture))


@every_capture
def test_the_packets_bear_every_explanation_out(capture: Path) -> None:
    """The rules hold for the frames named, and account for the whole difference."""
    found, listed = differences(capture), entries(capture)
    faults = {key: fault(capture, key[1], *found[key], entry) for key, entry in listed.items() if key in found}
    assert {key: wrong for key, wrong in faults.items() if wrong} == {}


@pytest.mark.parametrize(
    ("metric", "wrong"),
    [
        ("out_of_order", Entry(2, 1, {})),
        ("out_of_order", Entry(2, 0, {"sent-later": [175]})),
        ("out_of_order", Entry(2, 1, {"sent-later": [148]})),
        ("out_of_order", Entry(2, 1, {"sent-later": [175, 148]})),
        ("out_of_order", Entry(2, 1, {"passed-before": [175]})),
        ("out_of_order", Entry(2, 1, {"sent-later": [175], "other-tenant": [175]})),
        ("retransmission", Entry(1, 2, {"sent-later": [166]})),
        ("retransmission", Entry(1, 2, {"sent-later": [176]})),
    ],
)
def test_a_wrong_explanation_is_refused(metric: str, wrong: Entry) -> None:
    """Another number, another frame, another rule or none: what the packets do not bear out has a fault."""
    capture, flow = PCAPS / "loss.pcap", "10.1.0.12:80 > 10.1.0.11:40004"
    way, row = differences(capture)[flow, metric]
    assert fault(capture, metric, way, row, entries(capture)[flow, metric]) is None
    assert fault(capture, metric, way, row, wrong)


def test_the_list_speaks_of_captures_that_exist() -> None:
    """No table of the list outlives its capture; those of others can be told only where the shared captures are."""
    known = {name(capture) for capture in CAPTURES}
    own = {capture for capture in content()["captures"] if capture.startswith(f"{PCAPS.name}/")}
    assert own <= known
    assert set(content()["captures"]) - own <= {name(capture) for capture in need_shared().glob("*.pcap*")}


def test_every_rule_is_defined_and_used() -> None:
    """The rules in words are the rules in code, and each is the reason of something."""
    used = {
        rule
        for flows in content()["captures"].values()
        for metrics in flows.values()
        for metric, said in metrics.items()
        if metric != EVIDENCE
        for rule in set(said) - {"tshark", "sensor"}
    }
    assert set(content()["rules"]) == set(RULES) == used


def test_evidence_names_every_segment_judged_otherwise() -> None:
    """Where tshark misjudges a segment of the flow itself, someone has looked at the packets and says what is there."""
    for flows in content()["captures"].values():
        for flow, metrics in flows.items():
            judged = {
                frame
                for metric, said in metrics.items()
                if metric != EVIDENCE
                for rule in set(said) & set(RULES)
                if RULES[rule].effect
                for frame in said[rule]
            }
            assert judged <= {int(number) for number in re.findall(r"\b\d+\b", metrics.get(EVIDENCE, ""))}, flow


def test_the_comparison_is_of_something() -> None:
    """Both count many segments of the more frequent causes, and mostly the same ones once each flow is alone."""
    same: Counter[str] = Counter()
    for capture in CAPTURES:
        for (_, metric), row in table(capture).items():
            same[metric] += min(counted(metric, row.alone), row.sensor)
    assert same["retransmission"] >= (50 if SHARED_CAPTURES.is_dir() else 20)
    assert min(same[metric] for metric in ("out_of_order", "lost_segment", "keep_alive")) >= 1


def test_the_table_can_be_read() -> None:
    """The printed table has a line for each direction of which either says something, reasons, sums and the rules."""
    capture = PCAPS / "loss.pcap"
    lines = list(causes.report([capture]))
    flow = next(line for line in lines if line.startswith("  10.1.0.12:80 > 10.1.0.11:40004"))
    assert flow.split()[3:] == ["1:2", "2:1", "1", "sent-later", "175"]
    sums = next(line for line in lines if line.startswith("  sensor"))
    said = [sum(row.sensor for (_, metric), row in table(capture).items() if metric == one) for one in METRICS]
    assert [int(number) for number in sums.split()[1:]] == said
    assert [line.split(":")[0] for line in lines[-len(RULES) :]] == list(RULES)
