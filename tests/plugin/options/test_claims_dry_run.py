"""--claims-dry-run: what would be judged is told, and nothing is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.plugin.options.conftest import Given
from tests.plugin.project import make_project, run_pytest

ROWS = "pair,arm,score\n" + "".join(
    f"p{pair},{arm},{pair % 3 + score}\n"
    for pair in range(12)
    for arm, score in (("none", 0), ("swap", 9), ("kv", 8))
)


def test_it_collects_and_runs_nothing(given: Given) -> None:
    assert given("--claims-dry-run").models


def test_a_table_is_told_as_it_is_read(tmp_path: Path) -> None:
    project, table = make_project(tmp_path / "project"), tmp_path / "table"
    table.mkdir()
    (table / "rows.csv").write_text(ROWS)
    cell = {"base": "none", "source": "swap", "patched": "kv"}
    described = {
        "schema": 1,
        "table": "rows.csv",
        "model": "their/model",
        "n_layers": 32,
        "columns": {"pair": "pair", "arm": "arm", "score": "score"},
        "claims": {"kv-cache-transfers-80": {"L18-w16": cell}},
    }
    (table / "replay.yaml").write_text(json.dumps(described))
    run = run_pytest(
        project, "claims", "--claims-replay", str(table), "--claims-dry-run", out=tmp_path / "out"
    )
    assert run.code == 0
    assert "rows.csv: 36 rows read, 12 pairs, 3 arms, 1 seed" in run.stdout
    assert "kv-cache-transfers-80 L18-w16: base = none, source = swap, patched = kv" in run.stdout
    assert not [*(tmp_path / "out").rglob("*")]
