"""``python -m dashboards``: writes the JSON of every dashboard to sensor/grafana/dashboards/."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.dependencies import dependencies
from dashboards.events import events
from dashboards.overview import overview
from dashboards.pairs import pairs
from dashboards.sensor import sensor
from dashboards.tcp import tcp
from dashboards.tenants import tenants
from dashboards.vm import vm

SHIPPED = Path(__file__).resolve().parents[1] / "sensor" / "grafana" / "dashboards"
BOARDS = (overview, pairs, vm, tenants, dependencies, events, tcp, sensor)


def generated() -> dict[str, str]:
    """The text of each file."""
    return {f"{made.__name__}.json": _text(made()) for made in BOARDS}


def _text(board: Dashboard) -> str:
    built = board.build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False).encode(built) + "\n"


def main() -> None:
    """Write what is not so yet."""
    SHIPPED.mkdir(parents=True, exist_ok=True)
    wanted = generated()
    for path in SHIPPED.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
            print(f"{path.name}: removed")
    for name, text in wanted.items():
        path = SHIPPED / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{name}: written")


if __name__ == "__main__":
    sys.exit(main())
