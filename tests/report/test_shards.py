"""A trial that two shards of the ledger hold: merged where they agree, else no verdict stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER
from kv_claims.plugin.write import write_reports
from kv_claims.report.shards import NAME, in_dispute, invalidate
from kv_claims.run.ledger import SELF_PATCHES, Ledger
from kv_claims.run.trial import Trial


def second_shard(state: ClaimsSession, change: Callable[[Trial], Trial], arm: str) -> list[Trial]:
    """Write a second shard that holds the trials of an arm again, as changed."""
    folder = state.settings.out / LEDGER_FOLDER
    some = [change(trial) for trial in Ledger(folder).trials() if trial.arm == arm]
    assert some
    Ledger(folder, "worker").append(some)
    return some


def same(trial: Trial) -> Trial:
    return trial


def other(trial: Trial) -> Trial:
    return replace(trial, tokens=(1, *trial.tokens[1:])) if trial.pair_index == 3 else trial


def written(state: ClaimsSession) -> dict[str, Any]:
    write_reports(state)
    return dict(json.loads((state.settings.out / "evidence.json").read_text(encoding="utf-8")))


def test_shards_that_agree_are_one_run(state: ClaimsSession) -> None:
    before = written(state)
    rows = pd.read_parquet(state.settings.out / "trials.parquet")
    assert len(second_shard(state, same, "base")) == 12
    assert written(state) == before
    assert pd.read_parquet(state.settings.out / "trials.parquet").equals(rows)


def test_shards_that_disagree_on_a_shared_arm_make_every_verdict_invalid(
    state: ClaimsSession,
) -> None:
    assert {one["verdict"] for one in state.evidence} == {"refuted"}
    second_shard(state, other, "base")
    content = written(state)
    for one in content["evidence"]:
        assert one["verdict"] == one["parts"][0]["verdict"] == "invalid"
        assert one["reason"].startswith(f"{NAME}: 1 trials were recorded twice with other results")
        assert "arm base, pair " in one["reason"]
        assert re.search(r"in worker\.jsonl line \d+ than in main\.jsonl line", one["reason"])
        assert (one["p_supported"], one["p_refuted"]) == (None, None)
        assert one["multiplicity"]["holm"]["verdict"] == "invalid"
        assert [c["passed"] for c in one["checks"] if c["name"] == NAME] == [False]
    (swap,) = content["instrument"]
    assert swap["passed"] is False
    assert all(map(in_dispute, [*content["evidence"], swap]))
    words = [family["words"]["share"] for family in content["families"]]
    assert words == [{"invalid": 1}] * len(words)
    report = (state.settings.out / "report.md").read_text(encoding="utf-8")
    assert NAME in report


def test_verdicts_that_do_not_rest_on_the_disputed_trial_stand(state: ClaimsSession) -> None:
    disputed = state.evidence[0]["arms"]["patched"]
    state.evidence[1]["arms"] = {"base": "base", "source": "source"}
    second_shard(state, other, disputed)
    first, second = written(state)["evidence"]
    assert (first["verdict"], second["verdict"]) == ("invalid", "refuted")
    assert not in_dispute(second)


@pytest.mark.parametrize("field", ["pairs", "seeds"])
def test_pairs_and_seeds_that_were_not_judged_are_not_asked(
    field: str, state: ClaimsSession
) -> None:
    second_shard(state, other, "base")
    one = {**state.evidence[0], field: 3 if field == "pairs" else 0}
    ledger = Ledger(state.settings.out / LEDGER_FOLDER)
    assert invalidate([one], ledger) == [one]


def test_likelihoods_in_dispute_count_as_well(every_kind: ClaimsSession) -> None:
    folder = every_kind.settings.out / LEDGER_FOLDER
    first = next(one for one in Ledger(folder).likelihoods.all() if one.arm == "base")
    Ledger(folder, "worker").likelihoods.append([replace(first, source_tokens=1)])
    found = invalidate(every_kind.evidence, Ledger(folder))
    disputed = {one["claim"] for one in found if in_dispute(one)}
    assert {"loglik", "both"} <= disputed


@pytest.mark.parametrize("role", ["patched", "versus"])
def test_self_patches_in_dispute_count_as_well(role: str, every_kind: ClaimsSession) -> None:
    folder = every_kind.settings.out / LEDGER_FOLDER
    arms = {one["arms"][role] for one in every_kind.evidence if role in one["arms"]}
    first = next(one for one in Ledger(folder).self_patches.all() if one.arm in arms)
    shard = f"worker-{role}"
    Ledger(folder, shard).self_patches.append([replace(first, beyond_rounding=1)])
    try:
        found = invalidate(every_kind.evidence, Ledger(folder))
    finally:
        (folder / SELF_PATCHES / f"{shard}.jsonl").unlink()
    disputed = [one for one in found if in_dispute(one)]
    assert disputed
    assert all(first.arm in one["arms"].values() for one in disputed)


def test_a_ledger_that_is_only_read_is_left_alone(tmp_path: Path, state: ClaimsSession) -> None:
    from kv_claims.run.ledger import Records

    second_shard(state, other, "base")
    folder = state.settings.out / LEDGER_FOLDER
    (folder / "torn.jsonl").write_text("a torn line")
    before = sorted(path.name for path in folder.rglob("*"))
    found = Records(Trial, folder, read_only=True)
    assert len(found.bad_lines) == 2
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert len(Records(Trial, tmp_path / "gone", read_only=True)) == 0
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("dtype", "margin", "disputed"),
    [
        ("float32", 5e-6, False),
        ("float32", 1e-3, True),
        ("float64", 5e-6, True),
        ("bfloat16", 5e-6, True),
    ],
)
def test_two_batches_may_part_at_a_near_tie_in_float32_alone(
    dtype: str, margin: float, disputed: bool, state: ClaimsSession
) -> None:
    second_shard(state, lambda trial: replace(other(trial), margin=margin), "base")
    one = state.evidence[0]
    one = {**one, "provenance": {**one["provenance"], "dtype": dtype}}
    (found,) = invalidate([one], Ledger(state.settings.out / LEDGER_FOLDER))
    assert in_dispute(found) is disputed


def test_what_parts_in_many_trials_is_no_rounding(state: ClaimsSession) -> None:
    def everywhere(trial: Trial) -> Trial:
        return replace(trial, tokens=(1, *trial.tokens[1:]), margin=1e-9)

    second_shard(state, everywhere, "base")
    one = state.evidence[0]
    one = {**one, "provenance": {**one["provenance"], "dtype": "float32"}}
    (found,) = invalidate([one], Ledger(state.settings.out / LEDGER_FOLDER))
    assert in_dispute(found)
