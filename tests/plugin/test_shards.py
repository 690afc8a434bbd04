"""Workers that recorded other tokens for one trial: the run fails, whatever its tests said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.run.ledger import Ledger
from tests.plugin.project import ROOT, SMALL, STORED, Run, run_pytest


@pytest.mark.slow
def test_a_run_on_shards_that_disagree_is_invalid_and_fails(serial: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(serial.out / "ledger", out / "ledger")
    ledger = Ledger(out / "ledger")
    one = next(t for t in ledger.trials() if t.arm == "base" and "stored" in t.model)
    Ledger(out / "ledger", "other").append([replace(one, tokens=(1, *one.tokens[1:]))])
    selected = ["--model", STORED, *SMALL, "-k", "transfers_80 and L18-w16"]
    run = run_pytest(ROOT, "claims", *selected, out=out)
    assert run.code == 1, run.stdout
    assert "1 passed" in run.stdout  # its own trials were fine: the other shard came in at the end
    (found,) = run.evidence
    assert (found["verdict"], found["expected"]) == ("invalid", "refuted")
    assert found["reason"].startswith("shards-disagree: 1 trials were recorded twice")
    assert "1 of them shards-disagree: 1 trials" in run.stdout
    (named,) = run.content["run"]["ledger_lines_set_aside"]
    assert named.startswith("other.jsonl line 1")
