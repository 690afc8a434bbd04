"""A table that a claim's test made itself: judged as our own trials are, and never verified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plain
from kv_claims.judging.checks import INSTRUMENT_CHECKS
from kv_claims.judging.parts import judge_part
from kv_claims.study.cell import Cell
from kv_claims.study.own_table import as_trials, table_study
from kv_claims.study.stated import KnownModel
from tests.runs import claim

GPT2 = KnownModel("gpt2", 12)
PATCH = Patch("residual", "9", "last(4)")
TRANSFERS = claim("transfers", transfer=Region(0.7, 0.9))
BOTH = claim(
    "both",
    all_of=(Part.transfer("behavior", Region(0.7, 0.9)), Part.transfer("loglik", Region(low=0.5))),
)
PASTED = claim("pasted", transfer=Region(0.9, 1.1), outcome="pr@27/32")


def table(pairs: int = 24, seeds: int = 1, **arms: float) -> pd.DataFrame:
    """A row a trial; scores of some spread around these means."""
    luck = np.random.default_rng(0)
    means = {"base": 1.0, "source": 11.0, "patched": 9.0, **arms}
    rows = [
        {"pair": f"p{n:02}", "arm": arm, "seed": seed, "score": mean + luck.normal(0, 0.3)}
        for arm, mean in means.items()
        for n in range(pairs)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def judged(frame: pd.DataFrame, of: Claim = TRANSFERS, *patches: Patch, **told: Any) -> Any:
    cell = Cell.of(of, "a", *(patches or (PATCH,)))
    found, expected = table_study(frame, cell, GPT2, **told).judge(cell)
    assert expected is None
    return plain(found.__dict__)


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_is_judged_as_trials_of_ours_are(seeds: int) -> None:
    frame = table(seeds=seeds, noise=1.0)
    one, own = judged(frame), judge_part(frame, TRANSFERS.parts[0])
    assert one["verdict"] == own.word == "supported"
    assert (one["estimate"], one["interval"]) == (own.estimate, list(own.interval or ()))
    assert (one["model"], one["pairs"], one["seeds"]) == ("gpt2", 24, seeds)
    assert list(one["arms"]) == ["base", "source", "patched", "noise"]
    assert one["trials"] == {"planned": len(frame), "run": len(frame), "failed": 0}


def test_the_instrument_is_not_checked_and_that_is_said() -> None:
    one = judged(table())
    checks = {each["name"]: each for each in one["checks"]}
    assert one["verified"] is False
    for name in INSTRUMENT_CHECKS:
        assert checks[name]["passed"] is None
        assert checks[name]["detail"].startswith("not run")


def test_whatever_the_order_of_rows_it_is_one_table() -> None:
    frame = table(seeds=2)
    cell = Cell.of(TRANSFERS, "a", PATCH)
    one, other = (
        as_trials(table_study(some, cell, GPT2)).sort_values(["pair_index", "arm", "seed"])
        for some in (frame, frame.sort_values(["arm", "seed", "pair"], ascending=False))
    )
    named = ["pair", "arm", "seed", "score"]
    both = [some[named].sort_values(named).reset_index(drop=True) for some in (one, other)]
    pd.testing.assert_frame_equal(*both)


@pytest.mark.parametrize("pairs", [11, 24])
def test_a_table_that_is_there_is_judged_whole_and_once(pairs: int) -> None:
    """Looks are for pairs that are yet to be run: in file order they would be chance."""
    looked = claim("transfers", transfer=Region(high=0.3), looks=(12, 24, 40))
    one = judged(table(pairs=pairs), looked)
    looks = one["multiplicity"]["looks"]
    assert [look["pairs"] for look in looks["taken"]] == [pairs]
    assert looks["planned"] == one["plan"]["looks"] == []
    assert (looks["pairs_spared"], one["pairs"], one["verdict"]) == (0, pairs, "refuted")
    assert one["multiplicity"]["alpha"] == 0.05


def test_of_several_outcomes_each_has_its_column() -> None:
    frame = table(noise=1.0)
    frame["loglik"] = frame["score"] / 2
    one = judged(frame, BOTH)
    assert [part["verdict"] for part in one["parts"]] == ["supported", "supported"]
    assert one["parts"][1]["means"]["source"] == pytest.approx(one["means"]["source"] / 2)
    rows = as_trials(table_study(frame, Cell.of(BOTH, "a", PATCH), GPT2))
    assert rows["loglik"].tolist() == (rows["behavior"] / 2).tolist()


@pytest.mark.parametrize("told", [{}, {"tokens": (51, 40)}], ids=["untold", "told"])
def test_geometry_read_where_it_was_pasted_is_invalid_whatever_is_told(
    told: dict[str, Any],
) -> None:
    """Windows at one end need no lengths of prompts."""
    one = judged(table(patched=11.0), PASTED, Patch("v_proj", "27/32", "last(16)"), **told)
    assert one["reason"].startswith("measured-where-patched: ")
    assert one["verified"] is False


def test_what_hangs_on_the_lengths_of_prompts_is_left_open_without_them() -> None:
    """Half a prompt from the start meets the last 16 rows of a short one only."""
    patch = Patch("v_proj", "27/32", "first(80%)")
    short, long = (judged(table(), PASTED, patch, tokens=(n, n)) for n in (30, 300))
    assert short["reason"].startswith("measured-where-patched: ")
    assert long["reason"].startswith("null-by-construction: ")
    assert judged(table(noise=1.0, patched=11.0), PASTED, Patch("v_proj", "24/32", "first(80%)"))[
        "verdict"
    ] in ("supported", "invalid")


def test_an_effect_without_a_control_is_inconclusive() -> None:
    """To leave a control out is never better than to show it, and nothing else changes."""
    bare, shown = judged(table()), judged(table(noise=1.0))
    assert (bare["verdict"], shown["verdict"]) == ("inconclusive", "supported")
    assert bare["reason"].startswith("no-control: no control is given (unrelated-base, noise")
    for field in ("estimate", "interval", "p_supported"):
        assert bare[field] == shown[field]
    assert judged(table(), claim("little", transfer=Region(high=0.95)))["verdict"] == "supported"


def test_arms_that_are_one_run_are_found() -> None:
    frame = table(noise=1.0)
    arms = {arm: rows["score"].to_numpy() for arm, rows in frame.groupby("arm")}

    def with_arm(arm: str, other: str) -> str:
        same = frame.assign(
            score=[
                arms[other if a == arm else a][int(p[1:])]
                for a, p in zip(frame["arm"], frame["pair"], strict=True)
            ]
        )
        one = judged(same, claim("any", transfer=Region(-0.5, 1.5)))
        assert one["verdict"] == "invalid"
        return str(one["reason"])

    assert with_arm("patched", "base").startswith("hook-never-fired: patched scores as base")
    assert with_arm("patched", "source").startswith("full-swap-is-the-donor: ")
    assert with_arm("noise", "base").startswith("vacuous-control: noise scores as base")


def test_prompts_that_repeat_are_found_unless_they_are_told() -> None:
    frame = table(noise=1.0)
    first = frame[frame["arm"] == "base"].set_index("pair")["score"]
    is_base = frame["arm"] == "base"
    shared = [f"p{int(pair[1:]) // 4:02}" for pair in frame["pair"]]
    frame.loc[is_base, "score"] = [first[pair] for pair in pd.Series(shared)[is_base]]
    assert judged(frame)["reason"].startswith("clusters-ignored: 6 scores of the base arm")
    assert "clusters-ignored" not in judged(frame.assign(base=shared))["reason"]


def test_pairs_that_share_a_prompt_are_one_cluster() -> None:
    frame = table()
    frame["base"] = [f"b{int(pair[1:]) % 12}" for pair in frame["pair"]]
    assert judged(frame)["clusters"] == 12


Edit = Callable[[pd.DataFrame], Any]
WRONG: dict[str, tuple[Edit, str]] = {
    "no frame": (lambda t: t.to_dict(), "dict, expected a pandas DataFrame"),
    "no rows": (lambda t: t.iloc[:0], "the table is empty, expected one row a trial"),
    "no seed": (lambda t: t.drop(columns="seed"), r"missing columns \['seed'\], expected"),
    "no score": (lambda t: t.drop(columns="score"), r"missing columns \['score'\], expected"),
    "a column twice": (lambda t: pd.concat([t, t["score"]], axis=1), r"\['score'\] more than once"),
    "text": (lambda t: t.astype({"score": str}), "column 'score' of type .*, expected numbers"),
    "truth": (lambda t: t.assign(score=True), "column 'score' of type bool, expected numbers"),
    "nan": (lambda t: t.assign(score=[np.nan, *t["score"][1:]]), "not finite numbers in 1 rows"),
    "no pair": (lambda t: t.assign(pair=[None, *t["pair"][1:]]), "no `pair` in 1 rows"),
    "too large": (lambda t: t.assign(score=1e60), "scores above 1e"),
    "a trial twice": (
        lambda t: pd.concat([t, t.iloc[:1]]),
        r"\(pair, arm, seed\) more than once in 2 rows",
    ),
    "an unknown arm": (
        lambda t: t.replace({"arm": {"patched": "pached"}}),
        "unknown arm 'pached', expected base, source, patched, .*; did you mean 'patched'",
    ),
    "an arm too many": (
        lambda t: pd.concat([t, t[t["arm"] == "base"].assign(arm="versus")]),
        "arm 'versus', which the claim is not about, expected base, source, patched, unrelated",
    ),
    "an arm too few": (
        lambda t: t[t["arm"] != "source"],
        "no arm source, expected base, source, patched; it has base, patched",
    ),
    "a pair too few": (lambda t: t.iloc[:-1], "arms of other pairs or seeds.* patched: 1 of 24"),
    "a seed too many": (
        lambda t: pd.concat([t, t[t["pair"] == "p03"].assign(seed=1)]),
        "pair 'p03' has other seeds than 'p00', expected the same of each",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_bad_table_is_one_error(what: str) -> None:
    edit, message = WRONG[what]
    with pytest.raises(UsageError, match=f"^judge_table: .*{message}") as error:
        judged(edit(table()))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("rv", "message"),
    [
        (None, "no column 'loglik', which the claim is about too; it has pair, arm, seed, score"),
        ("0.5", "column 'loglik' of type .*, expected numbers"),
        (np.inf, "column 'loglik' has values that are not finite numbers"),
    ],
    ids=["missing", "text", "infinite"],
)
def test_a_bad_column_of_another_outcome_is_one_error(rv: Any, message: str) -> None:
    frame = table() if rv is None else table().assign(loglik=rv)
    with pytest.raises(UsageError, match=message):
        judged(frame, BOTH)


@pytest.mark.parametrize(
    ("model", "tokens", "message"),
    [
        (KnownModel("", 12), None, "model '', expected the name of the model"),
        (KnownModel("gpt2", 0), None, "n_layers 0, expected how many layers gpt2 has, 1 or more"),
        (KnownModel("gpt2", "12"), None, "n_layers '12', expected"),  # type: ignore[arg-type]
        (KnownModel("gpt2", True), None, "n_layers True, expected"),
        (KnownModel("gpt2", 12, -1), None, "n_kv_heads -1, expected"),
        (KnownModel("gpt2", 12, 12, -1), None, "n_query_heads -1, expected how many query heads"),
        (GPT2, (51,), r"tokens \(51,\), expected \(source, base\)"),
        (GPT2, (51, 0), r"tokens \(51, 0\), expected"),
        (KnownModel("gpt2", 4), None, "'9' is out of range, expected layers 0 to 3"),
    ],
)
def test_a_model_that_is_not_told_is_one_error(
    model: KnownModel, tokens: Any, message: str
) -> None:
    cell = Cell.of(TRANSFERS, "a", PATCH)
    with pytest.raises(UsageError, match=message):
        table_study(table(), cell, model, tokens=tokens).judge(cell)
