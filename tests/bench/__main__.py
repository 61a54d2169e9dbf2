"""Packets per second and memory of vmsensor beside others, in one run: ``python -m tests.bench`` is ``make bench``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from tests.bench.contenders import versions
from tests.bench.machine import described
from tests.bench.parts import PARTS, Figures
from tests.bench.paths import BUILD, ROOT
from tests.bench.tables import terminal

NOTE = "Capture files: medians of whole processes on one core, start-up included. Octets a flow: above one packet's."


def main() -> None:
    """Run the parts that were asked for, print each as a table, judge the goals."""
    options = parse()
    os.chdir(ROOT)
    logging.getLogger("sensor").setLevel(logging.ERROR)  # such as that the default series budget is used up
    BUILD.mkdir(parents=True, exist_ok=True)
    figures: Figures = {"machine": described(), "versions": versions(), "parts": {}}
    for name, value in {**figures["machine"], **figures["versions"]}.items():
        print(f"{name:<26}{value or 'not installed'}")
    begin = time.monotonic()
    for name in options.parts:
        measure(name, figures, options)
    finish(figures, options)
    print(f"{(time.monotonic() - begin) / 60:.1f} minutes")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all, if none is named")
    parser.add_argument("--repetitions", type=int, default=5, help="of readers of capture files (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small traces: shows that the benchmark works, no more")
    parser.add_argument("--update", action="store_true", help="put the figures on record and on docs/benchmarks.md")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.repetitions < 1:
        parser.error("--repetitions: at least 1")
    if options.quick and options.update:
        parser.error("--quick measures nothing that could be put on record")
    options.json = options.json and options.json.resolve()
    options.parts = [name for name in PARTS if not options.parts or name in options.parts]
    return options


def measure(name: str, figures: Figures, options: argparse.Namespace) -> None:
    """One part, printed."""
    print(f"\n{name}", flush=True)
    part, load = PARTS[name], os.getloadavg()[0]
    rows = part.measured(options)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    figures["parts"][name] = {"date": date, "load": round(load, 1), "rows": rows}
    print(terminal(part.columns, part.rows(figures)), flush=True)


def finish(figures: Figures, options: argparse.Namespace) -> None:
    """Judge the goals; write what is to be written."""
    from tests.bench import goals, page  # numpy comes with them, see parts

    print(f"\n{NOTE}\n")
    print("Small traces: goals are not judged" if options.quick else terminal(goals.COLUMNS, page.verdicts(figures)))
    if options.json:
        page.record(figures, options.json)
    if options.update:
        update(figures)


def update(figures: Figures) -> None:
    """Parts that were not measured now stay as they are, if they are of the same machine and programs."""
    from docs import generate
    from tests.bench import page

    before = page.recorded()
    if set(figures["parts"]) != set(PARTS):
        if any(before.get(what) not in (None, figures[what]) for what in ("machine", "versions")):
            sys.exit(
                "bench: what is on record was measured on another machine or with other programs; update all parts"
            )
        kept = {**before["parts"], **figures["parts"]}
        figures["parts"] = {name: kept[name] for name in PARTS if name in kept}
    page.record(figures)
    changed = generate.rewrite(generate.ROOT / "docs" / "benchmarks.md")
    print(f"docs/benchmarks.md: {'written' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
