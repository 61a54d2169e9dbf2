"""Writes those parts of the documentation that the program itself knows: its options, metrics and exit statuses.

They stand between two comments, ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``; everything else is written by
hand. ``python docs/generate.py`` rewrites the parts, ``python docs/generate.py --check`` says which are out of date.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import click

from sensor.analysis import edges, eventbook, lifecycle, movement
from sensor.analysis.security import bruteforce, cards, flood, scan, spoof
from sensor.cli import vmsensor
from sensor.config import OPTIONS, Option
from sensor.errors import FAILURES, INTERRUPTED
from sensor.metrics import DIRECTION, FLOW, MEASUREMENTS, NEEDS, VM_TRAFFIC, Metric

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tests are no installed package
from tests.bench import page  # noqa: E402

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end: (?P=name) -->)", re.DOTALL)

DEMO_LINES = 9
"""Title, head and a few pairs."""

REDUCES = {
    "sum": "sum",
    "min": "minimum",
    "max": "maximum",
    "mean": "mean of all samples",
    "quantile": "quantile of the added histograms",
    "ratio": "ratio of the sums",
    "count": "count",
    "rate": "sum / length of the window",
}


# --- tables --------------------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: str | None) -> str:
    """Text as code; a dash for none."""
    return f"`{text}`" if text else "-"


def field_type(metric: Metric) -> str:
    """How a value is written: the type in JSON and in InfluxDB."""
    if not metric.unit:
        return "integer" if metric.name.endswith("_port") else "string"
    if metric.unit == "true or false":
        return "boolean"
    return "float" if metric.unit in ("us", "s", "ratio", "bit/s") else "integer"


def null(metric: Metric) -> str:
    """When the value is null, in a cell: what is said in the metric's help needs no repetition."""
    return "never" if metric.needs == "any" else NEEDS[metric.needs].removeprefix("null ")


# --- the parts -----------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with what it takes."""
    rows = []
    for name, command in leaves(vmsensor):
        arguments = [p.metavar or str(p.name).upper() for p in command.params if isinstance(p, click.Argument)]
        rows.append([code(" ".join(["vmsensor", name, *arguments])), command.get_short_help_str(200)])
    return table(["command", "what it does"], rows)


def leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield before + name, command


def own_options() -> str:
    """What commands take besides the rows of ``config.OPTIONS``."""
    shared = {option.name for option in OPTIONS}
    rows = []
    for name, command in leaves(vmsensor):
        for one in command.params:
            if isinstance(one, click.Option) and one.name not in shared and one.name != "config_file":
                choices = "|".join(one.type.choices) if isinstance(one.type, click.Choice) else one.metavar or ""
                is_said = isinstance(one.default, (str, int)) and not isinstance(one.default, bool)
                switch = f"{one.opts[0]} {choices}".rstrip()
                rows.append([code(name), code(switch), code(str(one.default) if is_said else None), one.help or ""])
    return table(["command", "option", "default", "meaning"], rows)


def options() -> str:
    """Every row of ``config.OPTIONS``."""
    head = ["option", "key", "default", "environment", "commands", "meaning"]
    return table(head, (_option_row(option) for option in OPTIONS))


def demo() -> str:
    """What ``make demo`` prints, without most of the pairs."""
    command = [sys.executable, "-m", "sensor", "read", str(ROOT / "pcaps" / "demo.pcap"), "--store", "demo-data"]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
        )
    lines = [line.rstrip() for line in done.stdout.splitlines() + done.stderr.splitlines()]
    beneath = next(i for i, line in enumerate(lines) if "more pairs are not shown" in line)
    return "\n".join(["```", *lines[:DEMO_LINES], "...", *lines[beneath:], "```", ""])


def exit_statuses() -> str:
    """Every status that the program ends with."""
    failures = [(str(failure.exit_status), failure.summary) for failure in FAILURES]
    ends = [
        ("0", "done"),
        *failures,
        (str(INTERRUPTED), "interrupted by Ctrl-C, `read` and `top` also by SIGTERM; `capture` ends so with 0"),
    ]
    return table(["status", "meaning"], ends)


def make_targets() -> str:
    """What ``make help`` lists."""
    found = re.findall(r"^([a-z-]+):.*## (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return table(["target", "what it does"], ([code(f"make {target}"), text] for target, text in found))


def metrics(rows: Iterable[Metric]) -> str:
    """Metrics with their meaning."""
    return table(["metric", "unit", "meaning", "null"], ([code(m.name), m.unit or "-", m.help, null(m)] for m in rows))


def record_fields() -> str:
    """The measured fields of a flow record under the names that are printed."""
    named = [(f"{direction}_{m.name}", m) for direction in ("c2s", "s2c") for m in DIRECTION]
    named += [(m.name, m) for m in FLOW]
    return table(["field", "type", "null"], ([code(name), field_type(m), null(m)] for name, m in named))


def fields(measurement: str) -> str:
    """The fields of a measurement."""
    rows = MEASUREMENTS[measurement][1]
    return table(
        ["field", "type", "unit", "meaning", "null"],
        ([code(m.name), field_type(m), m.unit or "-", m.help, null(m)] for m in rows),
    )


def limits(*modules: ModuleType) -> str:
    """The thresholds of some detectors."""
    rows = [limit for module in modules for limit in module.LIMITS]
    return table(
        ["limit", "default", "unit", "meaning"],
        ([code(limit.name), f"{limit.default:g}", limit.unit, limit.help] for limit in rows),
    )


def reductions() -> str:
    """How the values of flows become the value of a pair."""
    by = {how: [code(m.name) for m in VM_TRAFFIC if m.reduce == how] for how in REDUCES}
    return table(["reduced by", "fields"], ([REDUCES[how], ", ".join(names)] for how, names in by.items() if names))


PARTS: dict[str, Callable[[], str]] = {
    "demo": demo,
    "commands": commands,
    "options": options,
    "own-options": own_options,
    "exit-statuses": exit_statuses,
    "make-targets": make_targets,
    "metrics-of-a-direction": lambda: metrics(DIRECTION),
    "metrics-of-a-flow": lambda: metrics(FLOW),
    "metrics-of-a-pair": reductions,
    "record-fields": record_fields,
    "limits-security": lambda: limits(scan, flood, bruteforce, spoof, cards),
    "limits-life": lambda: limits(lifecycle, movement, edges, eventbook),
    "vm_traffic": lambda: fields("vm_traffic"),
    "flow_top": lambda: fields("flow_top"),
    "dependency": lambda: fields("dependency"),
    "event": lambda: fields("event"),
    "sensor": lambda: fields("sensor"),
    **page.GENERATED,
}


def _option_row(option: Option) -> list[str]:
    switch = option.switch if option.flag else f"{option.switch} {option.metavar}"
    takes = [name for name, command in leaves(vmsensor) if option.name in {p.name for p in command.params}]
    return [code(switch), code(option.name), code(option.default), code(option.env), ", ".join(takes), option.help]


# --- pages ---------------------------------------------------------------------------------------------------------


def regenerated(text: str) -> str:
    """The text of a page with its generated parts as they are now."""
    return PART.sub(lambda part: f"{part['begin']}\n{PARTS[part['name']]()}\n{part['end']}", text)


def outdated() -> Iterator[tuple[Path, str]]:
    """The pages that are not up to date, each with what it has to be."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if (new := regenerated(text)) != text:
            yield path, new


def rewrite(path: Path) -> bool:
    """Write this page alone; whether that changed it."""
    text = path.read_text(encoding="utf-8")
    new = regenerated(text)
    path.write_text(new, encoding="utf-8")
    return new != text


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` only say which would change."""
    check = arguments == ["--check"]
    if arguments and not check:
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    changed = list(outdated())
    for path, new in changed:
        print(f"{path.relative_to(ROOT)}: {'out of date; run: make docs' if check else 'written'}")
        if not check:
            path.write_text(new, encoding="utf-8")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
