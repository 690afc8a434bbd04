"""Finished runs on disk, made in memory: a folder each, as `pytest claims` leaves one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import to_json
from kv_claims.evidence.stored import Key
from kv_claims.models.load import LoadedModel
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER, Settings
from kv_claims.plugin.write import write_reports
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy

ROOT = Path(__file__).parents[1]
PAIRS, TOKENS = 30, 18
"""Pairs enough to show that a control that changes none of them changes few (29)."""
HERE, THERE = (Patch("kv", layers=layer, positions="last(16)") for layer in ("12", "9"))
WIDE = Patch("kv", layers="12", positions="last(32)")


def claim(name: str, **asserted: Any) -> Claim:
    return Claim(name, **{"says": "A sentence.", "cites": "a test", **asserted})


BOTH = (
    Part.transfer("behavior", Region(0.1, 0.9)),
    Part.gap("pr@27/32/generated", Region(low=-90.0)),
)
KINDS: tuple[Cell, ...] = (
    Cell.of(claim("transfer", transfer=Region(0.1, 0.95), about="layer"), "a", HERE, siblings=2),
    Cell.of(claim("nothing", transfer=Region(high=0.12)), "a", [THERE, Patch("v", "3", "all")]),
    Cell.of(claim("order", difference=Region(low=0.0)), "a", HERE, THERE),
    Cell.of(claim("gap", gap=Region(low=0.0)), "a"),
    Cell.of(claim("geometry", gap=Region(high=0.1), outcome="rv"), "a"),
    Cell.of(claim("both", all_of=BOTH, given=(Part.gap("behavior", Region(low=0.0)),)), "a", HERE),
    Cell.of(
        claim("neither", all_of=(Part.transfer("behavior", Region(0.6, 0.9)), BOTH[1])), "a", HERE
    ),
    Cell.of(claim("looks", transfer=Region(high=0.4), looks=(10, PAIRS)), "a", THERE),
    Cell.of(claim("loglik", transfer=Region(0.1, 0.9), outcome="loglik"), "a", HERE),
    Cell.of(
        claim("pasted", transfer=Region(0.9, 1.1), outcome="pr@27/32"),
        "a",
        Patch("v_proj", "27/32", "last(16)"),
    ),
)
"""One claim of each kind."""


def make_run(
    out: Path,
    model: LoadedModel,
    cells: Sequence[Cell] = KINDS,
    *,
    pairs: int = PAIRS,
    seeds: int = 1,
    temperature: float = 0.7,
    max_new_tokens: int = TOKENS,
) -> Path:
    """Run and judge cells on a planted model; what is in the folder's ledger is not run again."""
    settings = Settings(
        root=ROOT,
        models=(model.name,),
        device="cpu",
        pairs=pairs,
        seeds=seeds,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        out=out,
    )
    sampling = Sampling(max_new_tokens, temperature)
    ledger = Ledger(out / LEDGER_FOLDER)
    runner = Runner(model, settings.task_of(model.name), sampling, ledger)
    study = ModelStudy(runner, n_pairs=pairs, n_seeds=seeds)
    found = [json.loads(to_json(study.judge(cell)[0].__dict__)) for cell in cells]
    write_reports(ClaimsSession(settings, evidence=[{**one, "test": "a test"} for one in found]))
    return out


def key_of(name: str, model: str = "planted:stored-at-layer") -> Key:
    return Key(name, "a", model)


def edited_copy(run: Path, to: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run's folder, its evidence edited."""
    shutil.copytree(run, to)
    path = to / "evidence.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(to_json(content), encoding="utf-8")
    return to
