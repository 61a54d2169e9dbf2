"""docs/benchmarks.md keeps step with the benchmark, and what it says follows from what it shows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from docs import generate
from tests.bench import goals, page
from tests.bench.machine import described
from tests.bench.parts import PARTS
from tests.bench.paths import FIGURES
from tests.bench.reading import READ
from tests.bench.tables import READING, TEXT_KEYS, markdown, terminal
from tests.needs import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
every_part = pytest.mark.parametrize("name", PARTS)
readings = pytest.mark.parametrize("name", [name for name in READ if PARTS[name].columns is READING])


def shown(name: str) -> list[dict[str, str]]:
    """The rows of a table of the page, by the titles of its columns."""
    (text,) = [found.group() for found in generate.PART.finditer(PAGE) if found["name"] == f"bench-{name}"]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def number(cell: str) -> float:
    """What a cell says."""
    return float(cell.replace(",", ""))


def measured(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without those that were skipped."""
    return [row for row in rows if not any(cell.startswith("skipped: ") for cell in row.values())]


@every_part
def test_page_has_the_columns_and_rows_of_the_code(name: str) -> None:
    """Each kind of traffic with each reader, and every other row, stands there once, under the code's titles."""
    part, rows = PARTS[name], shown(name)
    titles = [column.title for column in part.columns]
    named = [column.title for column in part.columns if column.key in part.keys]
    wanted = [key for key in part.keys if key in {column.key for column in part.columns}]
    names = [tuple(name[part.keys.index(key)] for key in wanted) for name in part.names()]
    assert [list(row) for row in rows] == [titles] * len(names)
    assert [tuple(row[title] for title in named) for row in rows] == names


@readings
def test_ratios_are_those_of_the_packets_beside_them(name: str) -> None:
    """Each is the row's packets/s over the bare loop's on the same traffic; ns/packet is their inverse."""
    rows = measured(shown(name))
    bare = {row["traffic"]: number(row["packets/s"]) for row in rows if row["reader"] == "bare libpcap loop"}
    for row in rows:
        per_second = number(row["packets/s"])
        assert number(row["x bare loop"]) == pytest.approx(per_second / bare[row["traffic"]], abs=0.0006)
        assert number(row["ns/packet"]) == pytest.approx(1e9 / per_second, abs=0.06)


def ratios() -> dict[str, float]:
    """Goals that hold two figures of a table against each other, and what that comes to."""
    ours, theirs = (number(row["measured"]) for row in shown("encode"))
    rates = {row["reader"]: number(row["packets/s"]) for row in measured(shown("readers"))}
    peers = {name: rate for name, rate in rates.items() if name in ("softflowd", "argus", "NFStream")}
    sensor = rates["vmsensor, no sink"]
    return {
        "these, over those by influxdb-client": ours / theirs,
        **{f"vmsensor, no sink, over {name}, packets/s": sensor / rate for name, rate in peers.items()},
    }


def test_verdicts_follow_from_the_tables() -> None:
    """Each goal quotes a figure that stands in a table, or is a ratio of two, and its verdict is what that comes to."""
    cells = {cell for name in PARTS for row in shown(name) for cell in row.values()}
    for row in shown("goals"):
        bound, asked = re.match(r"at (least|most) ([\d.,]+)", row["asked"]).groups()  # type: ignore[union-attr]
        value, wanted = number(row["measured"]), number(asked)
        assert row["measured"] in cells or row["goal"] in ratios()
        assert row["verdict"] == ("met" if (value >= wanted if bound == "least" else value <= wanted) else "MISSED")
    for name, ratio in ratios().items():
        (said,) = [row["measured"] for row in shown("goals") if row["goal"] == name]
        assert number(said) == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "met"), (10.0, "MISSED")])
def test_another_measurement_gives_another_verdict(seconds: float, verdict: str) -> None:
    """No verdict is written by hand: six million packets in a second are enough, in ten seconds they are not."""
    figures = page.recorded()
    for row in figures["parts"]["readers"]["rows"]:
        row["wall_s"] = [seconds]
    figures["parts"].pop("encode")
    verdicts = {row["what"]: row["verdict"] for row in page.verdicts(figures)}
    assert verdicts[goals.GOALS[0].what] == verdict
    assert verdicts[goals.GOALS[-1].what] == "not measured"


def test_machine_is_described_without_names_and_paths() -> None:
    """It is said what it is and what runs on it; no path is in that, and no key that the code does not have."""
    figures: dict[str, Any] = json.loads(FIGURES.read_text())
    assert list(figures["machine"]) == list(described())
    assert list(figures["parts"]) == list(PARTS)
    assert not re.search(r"[ \"]/\w", json.dumps({**figures["machine"], **figures["versions"]}))


def test_what_was_skipped_says_why() -> None:
    """Where its first number would stand, on the terminal and on the page; what it does not have is a dash."""
    rows = [{"traffic": "some", "reader": "argus", "skipped": "not installed"}]
    assert terminal(READING, rows).splitlines()[1].split("  ")[-1].strip() == "-"
    (line,) = markdown(READING, rows).splitlines()[2:]
    assert line.startswith("| some | argus | skipped: not installed | - |")
    assert sum(column.key in TEXT_KEYS for column in READING) == 2
