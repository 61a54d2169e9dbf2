"""``vmsensor grafana export``: files that a stock Grafana reads when it starts.

DIR/datasources/vmsensor.yaml
DIR/dashboards/vmsensor.yaml        names the directory with the dashboards
DIR/dashboards/vmsensor/*.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensor.errors import OutputError
from sensor.grafana import FOLDER, DataSource, dashboards

TOKEN_VARIABLE = "INFLUXDB_V2_TOKEN"
PASSWORD_VARIABLE = "INFLUXDB_PASSWORD"
"""Of Grafana's own environment: no secret is written to a file."""


def export(directory: Path, sources: Sequence[DataSource], seen_at: str) -> list[Path]:
    """Write the files; ``seen_at`` is where Grafana sees the directory. OutputError when they cannot be written."""
    described = [source.to_json(f"${_variable(source)}") for source in sources]
    texts = {
        Path("datasources/vmsensor.yaml"): _yaml({"apiVersion": 1, "datasources": described}),
        Path("dashboards/vmsensor.yaml"): _yaml({"apiVersion": 1, "providers": [_provider(seen_at)]}),
        **{
            Path("dashboards/vmsensor") / name: json.dumps(board, indent=1, ensure_ascii=False) + "\n"
            for name, board in dashboards().items()
        },
    }
    written = []
    for relative, text in texts.items():
        path = directory / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot write the file: {error.strerror}") from None
        written.append(path)
    return written


def _variable(source: DataSource) -> str:
    return PASSWORD_VARIABLE if ":" in source.settings.token else TOKEN_VARIABLE


def _provider(seen_at: str) -> dict[str, Any]:
    path = f"{seen_at.rstrip('/')}/dashboards/vmsensor"
    return {
        "name": "vmsensor", "type": "file", "folder": FOLDER, "folderUid": FOLDER, "allowUiUpdates": False,
        "updateIntervalSeconds": 60, "options": {"path": path},
    }  # fmt: skip


def _yaml(value: dict[str, Any]) -> str:
    """YAML in its JSON form, which every YAML reader takes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
