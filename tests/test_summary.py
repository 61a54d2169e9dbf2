"""The summary for people: bounded, exact in its sums, and readable on any terminal."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from sensor import summary as module
from sensor.summary import HEADINGS, WIDE, Summary, print_summary, scaled, summary_text
from sensor.window import Column, Labels, Report, Table
from tests.records import SECOND, START, counters, pair, record, report_of


def window(pairs: list[tuple[str, str]], octets: int = 100, number: int = 0) -> Report:
    """A window in which each pair moved so many octets, in one packet of data."""
    count = len(pairs)
    tags = {
        "src_vm": Labels.of(src for src, _ in pairs), "dst_vm": Labels.of(dst for _, dst in pairs),
        "src_tenant": Labels.constant("t1", count), "dst_tenant": Labels.constant("t1", count),
        "scope": Labels.constant("east-west", count), "service": Labels.constant("http", count),
    }  # fmt: skip
    ones = Column(np.ones(count, np.int64))
    fields = {"bytes": Column(np.full(count, octets, np.int64)), "packets": ones, "data_packets": ones}
    start = START + number * 10 * SECOND
    return Report(start, start + 10 * SECOND, start, [Table("vm_traffic", count, tags, fields)])


def printed(summary: Summary, width: int = WIDE, most: int = 15) -> str:
    """What a terminal of that width shows."""
    return summary_text(summary, Console(file=io.StringIO(), width=width, highlight=False), most)


def summary_of(*reports: Report) -> Summary:
    """The reports added up."""
    summary = Summary()
    for report in reports:
        summary.add_report(report)
    return summary


# ---- sums


def test_windows_add_up() -> None:
    """Octets and packets of a pair over windows; the time that they cover, gaps included."""
    summary = summary_of(window([("a", "b")], 100), window([("a", "b"), ("c", "b")], 50, number=5))
    first, second = summary.top(5)
    assert (first.src, first.dst, first.octets, first.packets) == ("a", "b", 150, 2)
    assert (second.src, second.octets) == ("c", 50)
    assert (summary.windows, summary.seconds, len(summary)) == (2, 60.0, 2)


def test_windows_in_any_order() -> None:
    """Revisions and overlapping files bring earlier windows later."""
    summary = summary_of(window([("a", "b")], number=3), window([("a", "b")], number=0))
    assert (summary.first_ns, summary.last_ns) == (START, START + 40 * SECOND)


def test_latency_and_loss_over_windows() -> None:
    """The least RTT, the worst window's p95, and loss from sums; what was not measured stays unknown."""
    one = record(c2s_packets=10, c2s_bytes=1000, c2s_data_packets=10, c2s_retransmissions=2, c2s_spurious=1,
                 c2s_rtt_count=1, c2s_rtt_min_ns=7000, c2s_rtt_sum_ns=7000)  # fmt: skip
    two = record(c2s_packets=90, c2s_bytes=1000, c2s_data_packets=88, c2s_upstream_losses=2, c2s_rtt_count=1,
                 c2s_rtt_min_ns=5000, c2s_rtt_sum_ns=5000)  # fmt: skip
    reports = [report_of(part, counted=counters(flow=10)) for part in (one, two)]
    summary = summary_of(*reports)
    (there,) = [found for found in summary.top(9) if found.src == "10.0.0.1"]
    assert there.rtt_min_us == 5.0
    assert there.worst_p95_us is None
    assert there.loss_ratio == (2 - 1 + 2) / (98 + 2)
    assert summary.received == 20
    assert pair(reports[0], "10.0.0.1", "10.0.0.2")["loss_ratio"] == 0.1


def test_a_doubtful_loss_is_marked() -> None:
    """Where the tap could not tell the fate of a tenth of the segments, a question mark says so, and the line below."""
    sound = record(c2s_packets=10, c2s_data_packets=10, c2s_payload_bytes=1000, c2s_bytes=1)
    leaky = record("10.0.0.3", c2s_packets=10, c2s_data_packets=10, c2s_payload_bytes=1000, c2s_unseen_bytes=100,
                   c2s_retransmissions=1, c2s_bytes=1)  # fmt: skip
    text = printed(summary_of(report_of(sound, leaky)))
    assert sorted(re.findall(r"[\d.]+%\??(?= *$)", text, re.MULTILINE)) == ["0.00%", "10.00%?"]
    assert "less than 95% of the" in text
    assert "?" not in printed(summary_of(report_of(sound)))


def test_loss_without_tcp_is_unknown() -> None:
    """UDP loses too, but nobody can tell from here: a dash, not 0 %."""
    (found,) = summary_of(window([("a", "b")])).top(1)
    assert (found.loss_ratio, found.rtt_min_us, found.worst_p95_us) == (None, None, None)
    row = next(line for line in printed(summary_of(window([("a", "b")]))).splitlines() if line.startswith("a "))
    assert row.split()[-3:] == ["-", "-", "-"]


def test_pairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pairs than are kept apart are added up in one, exactly; pairs that are known stay apart."""
    monkeypatch.setattr(module, "MOST_PAIRS", 10)
    summary = summary_of(*[window([(f"vm{i}", "db") for i in range(100)], 7, number) for number in range(3)])
    assert len(summary) == 11
    found = {p.src: p for p in summary.top(100)}
    assert sum(p.octets for p in found.values()) == 100 * 3 * 7
    assert sum(p.packets for p in found.values()) == 300
    assert (found["other"].octets, found["other"].dst) == (90 * 3 * 7, "other")
    assert all(found[f"vm{i}"].octets == 21 for i in range(10))


def test_growing_keeps_what_there_was() -> None:
    """The arrays grow in steps; no sum and no least or worst value is lost."""
    pairs = [(f"vm{i}", "db") for i in range(5000)]
    summary = summary_of(window(pairs, 3), window(pairs, 4, number=1))
    assert len(summary) == 5000
    assert all(p.octets == 7 and p.rtt_min_us is None and p.worst_p95_us is None for p in summary.top(5000))


def test_the_heaviest_come_first() -> None:
    """In order of octets, and of appearance where these are equal."""
    summary = summary_of(window([("a", "x"), ("b", "x")], 10), window([("c", "x")], 30))
    assert [p.src for p in summary.top(3)] == ["c", "a", "b"]
    assert [p.src for p in summary.top(1)] == ["c"]


def test_no_windows() -> None:
    """Nothing was added: nothing is claimed."""
    assert (summary_of().seconds, summary_of().top(3), len(summary_of())) == (0.0, [], 0)
    assert printed(summary_of()) == "No VM traffic in 0 windows; 0 packets received.\n"


def test_windows_without_traffic() -> None:
    """Packets came, but none of a VM's."""
    assert printed(summary_of(report_of(counted=counters(arp=1234)))) == (
        "No VM traffic in 1 window; 1,234 packets received.\n"
    )


# ---- for people


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (999.4, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"), (999_500, "1 MB"), (1.5e9, "1.5 GB"), (2e12, "2 TB"), (2.55e14, "255 TB"), (0.5, "0.5 B"),
    ],
)  # fmt: skip
def test_scaled(value: float, text: str) -> None:
    """Three digits and a prefix, never 1000 of one unit and never an exponent."""
    assert scaled(value, "B") == text


@pytest.mark.parametrize("exponent", range(0, 16))
def test_scaled_has_no_exponent(exponent: int) -> None:
    """Around every power of ten."""
    for factor in (0.99949, 0.9995, 1, 1.0005, 5):
        assert re.fullmatch(r"[\d,]+(\.\d+)? [kMGTP]?B", scaled(factor * 10.0**exponent, "B"))


def test_a_wide_terminal_has_every_column() -> None:
    """Names of all columns, and units in the cells."""
    said = printed(summary_of(window([("10.0.0.11", "10.0.0.12")], 125_000)))
    assert said.startswith("Top VM pairs over 10 s, 1 window\n") or said.splitlines()[0].strip() == (
        "Top VM pairs over 10 s, 1 window"
    )
    assert all(heading.name in said.splitlines()[1] for heading in HEADINGS)
    assert re.search(r"10\.0\.0\.11 +10\.0\.0\.12 +t1 +east-west +http +100 kbit/s +125 kB +1 +- +- +-", said)


@pytest.mark.parametrize("width", [80, 90, WIDE - 1])
def test_a_narrow_terminal_has_fewer(width: int) -> None:
    """What is not essential is left out; the rest is not cut off and no line is longer than the terminal."""
    said = printed(summary_of(window([("10.0.0.11", "10.0.0.12")], 125_000)), width)
    lines = said.splitlines()
    assert [heading.name for heading in HEADINGS if heading.name in lines[1]] == [
        heading.name for heading in HEADINGS if heading.essential
    ]
    assert max(map(len, lines)) <= width
    assert "100 kbit/s" in said
    assert "\u2026" not in said


def test_pairs_that_are_not_shown_are_counted() -> None:
    """A line beneath says how many."""
    summary = summary_of(window([(f"vm{i}", "db") for i in range(20)]))
    assert "5 more pairs are not shown." in printed(summary)
    assert "more pairs" not in printed(summary, most=20)


def test_one_more_pair() -> None:
    """One is a pair, not pairs."""
    assert "1 more pair is not shown." in printed(summary_of(window([(f"vm{i}", "db") for i in range(16)])))


def test_where_the_results_are_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are no markup, and are not wrapped: they can be copied."""
    where = "Windows are kept in /data/[bold]/" + "x" * 150
    print_summary(summary_of(window([("a", "b")])), [where])
    assert capsys.readouterr().out.endswith(where + "\n")


def test_times_are_in_fitting_units() -> None:
    """Microseconds below a millisecond, milliseconds above."""
    one = record(c2s_packets=1, c2s_bytes=9, c2s_rtt_count=1, c2s_rtt_min_ns=340_000, c2s_rtt_sum_ns=340_000,
                 s2c_packets=1, s2c_bytes=9, s2c_rtt_count=1, s2c_rtt_min_ns=39_400_000,
                 s2c_rtt_sum_ns=39_400_000)  # fmt: skip
    said = printed(summary_of(report_of(one)))
    assert "340 us" in said
    assert "39.4 ms" in said
