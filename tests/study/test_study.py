"""A study: one claim's arms, run and judged, of every kind of claim.

Also on a ledger that holds more, or other, trials than it asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import Patch
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.evidence.evidence import Evidence, plain, to_json
from kv_claims.measure.separation import auc, repetition_share
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation
from kv_claims.pins.passes import outcome
from kv_claims.pins.pin import pin_of, why_not_pinned
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study import shown as shown_module
from kv_claims.study.cell import Cell
from kv_claims.study.plan import plan_of
from kv_claims.study.study import ModelStudy
from kv_claims.study.testable import runs_donor
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

CLAIM = Claim("at-most-12", says="At most 12%.", cites="a test", transfer=Region(high=0.12))
PATCH = Patch("kv", layers="9", positions="last(16)")


def judged(model: LoadedModel, task: Task, ledger: Path, pairs: int) -> Evidence:
    runner = Runner(model, task, Sampling(4), Ledger(ledger))
    return ModelStudy(runner, pairs, n_seeds=1).judge(Cell.of(CLAIM, "cell", PATCH))[0]


def test_more_pairs_than_the_ledger_holds_run_the_missing_ones(
    stored: LoadedModel, stored_task: Task, tmp_path: Path
) -> None:
    few = judged(stored, stored_task, tmp_path, 12)
    more = judged(stored, stored_task, tmp_path, 40)
    fresh = judged(stored, stored_task, tmp_path / "fresh", 40)
    # Of 12 pairs none changes, and 22% of all might: too few for a claim of at most 12%.
    assert (few.verdict, more.verdict) == ("inconclusive", "supported")
    assert (more.means, more.estimate) == (fresh.means, fresh.estimate)
    assert more.trials == fresh.trials


def test_fewer_pairs_than_the_ledger_holds_end_as_a_run_of_their_own(
    stored: LoadedModel, tmp_path: Path
) -> None:
    assert stored.planted is not None
    task = stored.planted.task(300)
    judged(stored, task, tmp_path, 300)
    few = judged(stored, task, tmp_path, 12)
    fresh = judged(stored, task, tmp_path / "fresh", 12)
    assert fresh.verdict == "inconclusive"
    assert few.means == fresh.means
    assert (few.verdict, few.reason) == (fresh.verdict, fresh.reason)


def alike(n: int) -> Task:
    """Pairs of equal length with the same last word: the whole cache makes the base the source."""
    words = [f"{w}" for w in ("river", "mirror", "lantern", "castle", "orchard", "stone")]

    def made(side: str, i: int) -> Prompt:
        text = [words[(i + k) % 6] for k in range(14)] if side == "s" else ["river"] * 14
        return Prompt(f"{side}{i}", f"{side}{i}", " ".join([*text, *(["lamp"] * (i + 1)), "lamp"]))

    return Task(
        name="alike",
        about="equal lengths",
        sources=tuple(made("s", i) for i in range(n)),
        bases=tuple(made("b", i) for i in range(n)),
        pairing="one-to-one",
        scorer=Lexicon(frozenset({"mirror"})),
        lexicon=frozenset({"mirror"}),
    )


WHOLE = {
    "all": [Patch("kv", "all", "all")],
    "percent": [Patch("kv", "0:16", "first(100%)")],
    "last": [Patch("kv", "all", "last(15)")],
    "depths": [Patch("kv", "+".join(f"{layer}/16" for layer in range(16)), "all")],
    "a-range-of-depths": [Patch("kv", "0/1:1/1", "all")],
    "heads": [Patch("kv", "all", "all", heads="0")],  # it has one
    "a-mix-of-all": [Patch("kv", "all", "all", mode="mix(1.0)")],
    "k-and-v": [Patch("k", "all", "all"), Patch("v", "all", "all")],
    "k-and-a-window-of-v": [Patch("k", "all", "all"), Patch("v", "all", "first(100%)")],
    "by-layers": [Patch("kv", "0:5", "all"), Patch("kv", "5:16", "last(15)")],
    "every-step": [Patch("kv", "all", "all", active="every_step")],
    "held": [Patch("kv", "all", "all", active="every_step(held)")],
    "in-prefill": [Patch("kv_proj", "all", "all")],
    "k-spliced-and-v-not": [Patch("k", "all", "all"), Patch("v_proj", "all", "all")],
    "the-first-layer-and-what-follows": [Patch("kv", "0", "all"), Patch("residual", "0", "all")],
}
"""Nothing of the base is left in the cache; of some its last token is."""


@pytest.mark.parametrize("spelling", WHOLE)
def test_the_full_swap_is_no_finding_however_it_is_spelled(
    stored: LoadedModel, spelling: str
) -> None:
    study = ModelStudy(Runner(stored, alike(12), Sampling(4), Ledger()), 12, n_seeds=1)
    evidence, expected = study.judge(Cell.of(CLAIM, "cell", WHOLE[spelling]))
    assert evidence.verdict == "invalid"
    assert evidence.reason.startswith("full-swap-is-the-donor")
    assert expected is None or expected.because == "full-swap-is-the-donor"
    assert not evidence.arms  # nothing was run


NOT_WHOLE = {
    "a-position-less": [Patch("kv", "all", "last(14)")],
    "a-layer-less": [Patch("kv", "0:15", "all")],
    "a-share": [Patch("kv", "all", "all", mode="mix(0.9)")],
    "keys": [Patch("k", "all", "all")],
    "a-v-less": [Patch("k", "all", "all"), Patch("v", "0:15", "all")],
    "what-follows-from-the-first": [Patch("residual", "0", "all")],
    "appended": [Patch("kv", "all", "last(4)", mode="append")],
}


@pytest.mark.parametrize("spelling", NOT_WHOLE)
def test_what_leaves_some_of_the_base_is_no_full_swap(stored: LoadedModel, spelling: str) -> None:
    study = ModelStudy(Runner(stored, alike(1), Sampling(4), Ledger()), 1, n_seeds=1)
    plan = plan_of(Cell.of(CLAIM, "cell", NOT_WHOLE[spelling]), study.model, 1)
    assert runs_donor(plan.sides, 16, study._extents(plan)) is None


def test_a_window_that_covers_some_base_is_said_of_how_many() -> None:
    """Sources of 20 tokens: the window is all that the shorter bases have."""
    patches = (Patch("kv", "all", "last(8)"),)
    found = runs_donor([patches], 16, [(20, 9), (20, 12), (9, 9), (9, 15)])
    assert found is not None
    assert found.detail.startswith(
        "replacing the whole cache at every layer runs the source prompt (in 2 of 4 pairs)"
    )


def test_keys_that_are_not_rotated_are_seen_even_where_nothing_reads_them(
    stored: LoadedModel, stored_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted models have zero queries: their logits cannot tell, their keys can."""
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    good, _ = study.judge(Cell.of(CLAIM, "cell", PATCH))
    monkeypatch.setattr(Rotation, "__call__", lambda _self, _layer, keys, _shift: keys)
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    bad, _ = study.judge(Cell.of(CLAIM, "cell", PATCH))

    def check(evidence: Evidence) -> bool | None:
        return next(c["passed"] for c in evidence.checks if c["name"] == "unrotated-keys")

    assert (check(good), check(bad)) == (True, False)
    assert bad.verdict == "invalid"


LAYER = Claim("layer", says="s", cites="c", transfer=Region(0.7, 0.9), about="layer")
ORDER = Claim("order", says="s", cites="c", difference=Region(low=0.1))
GEOMETRY = Claim("pr", says="s", cites="c", transfer=Region(low=0.5), outcome="pr@20")

NOT_HERE: dict[str, tuple[Cell, str]] = {
    "beyond": (Cell.of(CLAIM, "c", Patch("kv", "16", "last(4)")), "'16' is out of range"),
    "depths": (
        Cell.of(CLAIM, "c", Patch("kv", "24/32+25/32", "last(4)")),
        "'24/32' and '25/32' meet in layer 12 of 16",
    ),
    "empty": (Cell.of(CLAIM, "c", Patch("kv", "16/32:17/32", "last(4)")), "is empty on 16 layers"),
    "head": (Cell.of(CLAIM, "c", Patch("kv", "9", "last(4)", heads="7")), "'7' is out of range"),
    "apart": (
        Cell.of(CLAIM, "c", [Patch("k", "24/32", "all"), Patch("kv", "25/32", "all")]),
        "both write 'k' of layer 12",
    ),
    "one arm": (
        Cell.of(ORDER, "c", Patch("kv", "24/32", "all"), Patch("kv", "25/32", "all")),
        "both arms are source>kv@12/all",
    ),
    "wrong layer": (
        Cell.of(LAYER, "c", Patch("kv", "4:13", "last(32)")),
        "it is about layers, and those half the depth away, which are its control, meet",
    ),
    "outcome": (Cell.of(GEOMETRY, "c", Patch("kv", "9", "last(4)")), "'20' is out of range"),
}
"""Cells that other models have, and one of 16 layers and 2 KV heads has not."""


@pytest.mark.parametrize("case", NOT_HERE)
def test_a_cell_that_the_model_has_not_is_invalid_and_nothing_is_run(
    case: str, stored: LoadedModel, stored_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, message = NOT_HERE[case]
    monkeypatch.setattr(type(stored.network), "forward", None)
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    done = study.run_cell(cell)
    evidence = done.evidence
    assert (evidence.verdict, evidence.expected) == ("invalid", "invalid")
    assert evidence.reason.startswith("no-such-cell: ")
    assert message in evidence.reason
    assert [check["name"] for check in evidence.checks] == ["no-such-cell"]
    assert evidence.trials == {"planned": 0, "run": 0, "failed": 0}
    assert outcome(evidence.verdict, evidence.reason, done.expected, strict=False)[0] == "pass"
    told = plain(evidence.__dict__)
    assert why_not_pinned(told) is None
    pin = pin_of(told, done.tables, test="t", pairs_asked=12)
    assert (pin.verdict, pin.failed, pin.arms) == ("invalid", ("no-such-cell",), {})
    assert evidence.patch["text"] == str(cell.patches[0])
    assert evidence.patch["resolved_layers"] == (
        []
        if case in ("beyond", "depths", "empty")
        else list(resolve_layers(cell.patches[0].layers, 16))
    )


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell.of(CLAIM, "c", Patch("kv", "9+9", "last(4)")), "'9' and '9' meet"),
        (Cell.of(CLAIM, "c", Patch("kv", "7:3", "last(4)")), "is empty"),
        (Cell.of(CLAIM, "c", Patch("kv", "2000", "last(4)")), "'2000' is out of range"),
        (
            Cell.of(CLAIM, "c", [Patch("k", "9", "all"), Patch("kv", "9", "all")]),
            "both write 'k' of layer 9",
        ),
        (Cell.of(ORDER, "c", Patch("kv", "9", "all"), Patch("kv", "9", "all")), "both arms are"),
        (Cell.of(CLAIM, "c", Patch("kv", "9", "last(999)")), "expected a window that fits both"),
    ],
    ids=["twice", "backwards", "2000", "apart", "one-arm", "window"],
)
def test_a_cell_that_no_model_could_have_is_an_error(
    cell: Cell, message: str, stored: LoadedModel, stored_task: Task
) -> None:
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    with pytest.raises(UsageError, match=message) as raised:
        study.run_cell(cell)
    assert not isinstance(raised.value, NoSuchCellError)


def test_evidence_has_the_layers_as_claimed_and_as_resolved(
    stored: LoadedModel, stored_task: Task
) -> None:
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    evidence, _ = study.judge(Cell.of(CLAIM, "cell", Patch("kv", "25/32", "last(16)")))
    assert (evidence.patch["layers"], evidence.patch["resolved_layers"]) == ("25/32", [12])


# --- claims of every kind ------------------------------------------------------------------

HERE, ELSEWHERE = Patch("kv", "12", "last(16)"), Patch("kv", "9", "last(16)")
"""On the stored model layer 12 carries the behavior: last(16) of it about 0.4, layer 9 nothing."""
GAP = Part.gap("behavior", Region(low=0.01))
TRANSFER = Part.transfer("behavior", Region(0.1, 0.9))
Judge = Callable[..., Evidence]


def claim(**asserted: Any) -> Claim:
    return Claim("a-claim", says="A sentence.", cites="a test", **asserted)


@pytest.fixture(scope="module")
def runner(stored: LoadedModel, stored_task: Task) -> Runner:
    """One ledger for the tests below: what their cells share runs once."""
    return Runner(stored, stored_task, Sampling(8), Ledger())


@pytest.fixture
def judge(runner: Runner) -> Judge:
    def judge(asserted: Claim, patch: Any = None, versus: Any = None) -> Evidence:
        study = ModelStudy(runner, n_pairs=40, n_seeds=1)
        return study.judge(Cell.of(asserted, "cell", patch, versus))[0]

    return judge


def passed(evidence: Evidence) -> dict[str, bool | None]:
    return {check["name"]: check["passed"] for check in evidence.checks}


def test_a_difference_is_of_two_patches(judge: Judge) -> None:
    asserted = claim(difference=Region(low=0.15))
    more = judge(asserted, HERE, ELSEWHERE)
    assert (more.verdict, more.expected) == ("supported", "supported")
    assert more.versus is not None
    assert (more.patch["resolved_layers"], more.versus["resolved_layers"]) == ([12], [9])
    assert {"base", "source", "patched", "versus"} <= set(more.means)
    wanted = more.means["patched"] - more.means["versus"]
    assert more.estimate == pytest.approx(wanted / (more.means["source"] - more.means["base"]))
    assert more.arms["versus"] == f"source>{ELSEWHERE}"
    assert more.fired["versus"]["fired"] == more.fired["versus"]["planned"] == 40 * 2
    # Both arms' self-patches are written for every pair, not the first one's alone.
    detail = next(c["detail"] for c in more.checks if c["name"] == "self-patch")
    assert "0 numbers changed in 80 caches" in detail
    less = judge(asserted, ELSEWHERE, HERE)
    assert (less.verdict, less.expected) == ("refuted", "refuted")
    assert less.estimate == pytest.approx(-more.estimate)


def test_a_gap_needs_no_patch_and_runs_none(judge: Judge) -> None:
    evidence = judge(claim(gap=Region(low=0.01)))
    assert (evidence.verdict, evidence.expected) == ("supported", "supported")
    assert (evidence.patch, evidence.versus) == (None, None)
    assert set(evidence.arms) == {"base", "source", "full-swap"}
    assert evidence.estimate == pytest.approx(evidence.means["source"] - evidence.means["base"])
    assert evidence.trials == {"planned": 120, "run": 120, "failed": 0}
    assert evidence.verified
    assert passed(evidence)["full-swap"] is True
    assert judge(claim(gap=Region(high=0.0))).verdict == "refuted"


def test_a_conjunction_is_supported_by_all_its_parts_and_refuted_by_one(judge: Judge) -> None:
    both = judge(claim(all_of=(TRANSFER, GAP)), HERE)
    assert (both.verdict, both.expected) == ("supported", "supported")
    assert [part["verdict"] for part in both.parts] == ["supported", "supported"]
    assert [part["estimand"] for part in both.parts] == ["transfer", "gap"]
    assert [part["given"] for part in both.parts] == [False, False]
    assert both.p_supported == max(part["p_supported"] for part in both.parts)
    assert (both.estimate, both.region) == (both.parts[0]["estimate"], both.parts[0]["region"])
    one = judge(claim(all_of=(TRANSFER, replace(GAP, region=Region(high=0.0)))), HERE)
    assert [part["verdict"] for part in one.parts] == ["supported", "refuted"]
    assert (one.verdict, one.expected) == ("refuted", "refuted")
    # Either of two parts could refute by chance: each is refuted at half the rate.
    assert one.parts[1]["level"] == pytest.approx(0.975)


def test_what_is_given_must_hold_or_nothing_is_tested(judge: Judge) -> None:
    held = judge(claim(transfer=Region(0.1, 0.9), given=(GAP,)), HERE)
    assert (held.verdict, held.expected) == ("supported", "supported")
    assert [part["given"] for part in held.parts] == [False, True]
    broken = replace(GAP, region=Region(high=0.0))
    untested = judge(claim(transfer=Region(0.1, 0.9), given=(broken,)), HERE)
    assert (untested.verdict, untested.expected) == ("invalid", "invalid")
    assert untested.reason.startswith("premise: behavior gap")


def test_several_patches_are_one_arm(judge: Judge) -> None:
    patches = (HERE, Patch("v_proj", "9", "last(4)", active="every_step"))
    evidence = judge(claim(transfer=Region(0.1, 0.9)), patches)
    assert [one["site"] for one in evidence.patch["all"]] == ["kv", "v_proj"]
    assert [one["semantics"] for one in evidence.patch["all"]] == ["splice", "in-prefill"]
    assert evidence.arms["patched"] == f"source>{patches[0]}&{patches[1]}"
    # K and V before it generates, and v_proj; then v_proj with the last prompt token and 7 more.
    assert evidence.fired["patched"]["planned"] == 40 * 3
    assert evidence.fired["patched"]["fired_steps"] == 40 * 8
    assert evidence.fired["patched"]["changed_steps"] > 0
    assert all(passed(evidence)[name] for name in ("self-patch", "hook-never-fired"))


def is_plain(content: Any) -> bool:
    """Whether this is made of JSON's own types, without a NaN."""
    if isinstance(content, dict):
        return all(isinstance(key, str) and is_plain(value) for key, value in content.items())
    if isinstance(content, list):
        return all(map(is_plain, content))
    return content is None or type(content) in (str, int, bool) or content == content


KINDS: dict[str, tuple[Claim, Any, Any]] = {
    "transfer": (claim(transfer=Region(0.1, 0.9)), HERE, None),
    "difference": (claim(difference=Region(low=0.1)), HERE, ELSEWHERE),
    "gap": (claim(gap=Region(low=0.01)), None, None),
    "conjunction": (
        claim(all_of=(TRANSFER, GAP), given=(Part.gap("loglik", Region(low=0.0)),)),
        HERE,
        None,
    ),
    "geometry": (claim(gap=Region(high=0.0), outcome="rv"), None, None),
    "tautological": (
        claim(transfer=Region(0.5, 1.5), outcome="pr@27/32"),
        Patch("v_proj", "27/32", "last(16)"),
        None,
    ),
    "full-swap": (claim(transfer=Region(0.5, 1.5)), Patch("kv", "all", "all"), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_every_kind_is_plain_json_with_every_field(kind: str, judge: Judge) -> None:
    evidence = judge(*KINDS[kind])
    again = json.loads(to_json(evidence.__dict__))
    assert set(again) == {field.name for field in fields(Evidence)}
    assert is_plain(again)
    assert again["verdict"] == evidence.verdict
    assert len(again["parts"]) == len(KINDS[kind][0].parts) + len(KINDS[kind][0].given)
    for part in again["parts"]:
        assert {"outcome", "estimand", "region", "verdict", "estimate", "truth"} <= set(part)
    assert again["trials"]["failed"] == 0
    assert again["provenance"]["weights_sha"]


# --- the scorer is measured too -------------------------------------------------------------


def test_the_scorer_is_measured_on_the_texts_that_were_generated(
    judge: Judge, runner: Runner
) -> None:
    evidence = judge(claim(transfer=Region(0.1, 0.9)), HERE)
    pairs, scorer = runner.task.first_pairs(40), runner.task.scorer
    texts = {
        role: [trial.text for trial in runner.run([arm], pairs, [0])]
        for role, arm in {"base": BASE, "source": SOURCE, "patched": patched(HERE)}.items()
    }
    scores = {role: list(map(scorer, some)) for role, some in texts.items()}
    found = evidence.scorer
    assert found["auc"] == auc(scores["source"], scores["base"])
    assert found["false_positives"] == sum(score > 0 for score in scores["base"]) > 0
    assert (found["name"], found["by"], found["clusters"]) == ("lexicon", "pair", 40)
    assert found["repetition_share"] == {
        role: repetition_share(some, scorer) for role, some in texts.items()
    }


def test_base_and_source_texts_are_measured_once_a_study(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = shown_module.separation
    monkeypatch.setattr(shown_module, "separation", lambda *args: calls.append(args) or real(*args))
    study = ModelStudy(runner, n_pairs=40, n_seeds=1)
    one, other = (
        study.judge(Cell.of(claim(transfer=Region(0.1, 0.9)), "cell", patch))[0].scorer
        for patch in (HERE, ELSEWHERE)
    )
    assert len(calls) == 1
    shares = [found.pop("repetition_share") for found in (one, other)]
    assert one == other
    assert all(set(share) == {"base", "source", "patched"} for share in shares)


def test_a_second_patch_has_its_share_and_a_claim_without_a_patch_none(judge: Judge) -> None:
    two = judge(claim(difference=Region(low=0.1)), HERE, ELSEWHERE)
    assert set(two.scorer["repetition_share"]) == {"base", "source", "patched", "versus"}
    assert set(judge(claim(gap=Region(low=0.01))).scorer["repetition_share"]) == {"base", "source"}


def test_a_cell_that_was_not_run_has_no_scorer_measured(judge: Judge) -> None:
    assert judge(claim(transfer=Region(0.5, 1.5)), Patch("kv", "all", "all")).scorer == {}


# --- what cannot say anything is not run -----------------------------------------------------


@pytest.fixture
def unrun(stored: LoadedModel, stored_task: Task, monkeypatch: pytest.MonkeyPatch) -> ModelStudy:
    """A study whose model cannot run."""
    monkeypatch.setattr(type(stored.network), "forward", None)
    return ModelStudy(Runner(stored, stored_task, Sampling(20), Ledger()), 12, n_seeds=1)


@pytest.mark.parametrize(
    ("outcome", "patch", "failed"),
    [
        ("pr@27/32", Patch("v_proj", "27/32", "last(16)"), "measured-where-patched"),
        ("pr@27/32", Patch("kv", "27/32", "last(16)"), "measured-where-patched"),
        ("rv", Patch("v_proj", "5/32", "last(4)"), "measured-where-patched"),
        ("pr@27/32", Patch("residual", "27/32", "last(16)"), "null-by-construction"),
        ("pr@5/32", Patch("residual", "25/32", "last(16)"), "null-by-construction"),
        ("pr@5/32", Patch("kv", "25/32", "last(16)"), "null-by-construction"),
    ],
    ids=["v_proj", "cache", "rv", "residual-above", "residual-late", "splice-below"],
)
def test_an_outcome_that_cannot_tell_is_invalid_and_not_run(
    outcome: str, patch: Patch, failed: str, unrun: ModelStudy
) -> None:
    evidence, _ = unrun.judge(
        Cell.of(claim(transfer=Region(0.8, 1.2), outcome=outcome), "cell", patch)
    )
    assert evidence.verdict == "invalid"
    assert evidence.reason.startswith(failed)
    assert (evidence.estimate, evidence.trials["run"]) == (None, 0)
    assert not len(unrun.runner.ledger)


def test_one_part_that_cannot_tell_is_enough(unrun: ModelStudy) -> None:
    parts = (TRANSFER, Part.transfer("pr@27/32", Region(0.8, 1.2)))
    evidence, _ = unrun.judge(
        Cell.of(claim(all_of=parts), "cell", Patch("v_proj", "27/32", "last(16)"))
    )
    assert evidence.reason.startswith("measured-where-patched")
    assert [part["verdict"] for part in evidence.parts] == ["invalid", "invalid"]


def test_of_a_difference_the_second_patch_counts_as_well(unrun: ModelStudy) -> None:
    asserted = claim(difference=Region(low=0.1), outcome="pr@27/32")
    good, bad = Patch("residual", "18/32", "last(16)"), Patch("v_proj", "27/32", "last(16)")
    for pair in ((good, bad), (bad, good)):
        evidence, _ = unrun.judge(Cell.of(asserted, "cell", *pair))
        assert evidence.reason.startswith("measured-where-patched")


BOTH = r"claim 'a-claim', cell 'cell': both arms are source>kv"


@pytest.mark.parametrize("layers", ["12", "12:13"])
def test_two_arms_that_are_one_on_every_model_are_an_error(layers: str, unrun: ModelStudy) -> None:
    asserted = claim(difference=Region(low=0.1))
    with pytest.raises(UsageError, match=BOTH):
        unrun.judge(Cell.of(asserted, "cell", HERE, Patch("kv", layers, "last(16)")))


@pytest.mark.parametrize(("layers", "heads"), [("25/32", "all"), ("12", "0:{n}")])
def test_two_arms_that_are_one_on_this_model_are_no_cell_of_it(
    layers: str, heads: str, unrun: ModelStudy
) -> None:
    versus = Patch("kv", layers, "last(16)", heads=heads.format(n=unrun.model.n_kv_heads))
    evidence, _ = unrun.judge(Cell.of(claim(difference=Region(low=0.1)), "cell", HERE, versus))
    assert re.match(f"no-such-cell: {BOTH}", evidence.reason)


@pytest.mark.parametrize(
    ("asserted", "patch", "versus", "message"),
    [
        (claim(transfer=Region(0.1, 0.9)), None, None, "needs a patch"),
        (claim(difference=Region(low=0.1)), HERE, None, "needs a second patch"),
        (claim(transfer=Region(0.1, 0.9)), HERE, ELSEWHERE, "is not about a second patch"),
        (claim(gap=Region(low=0.1)), HERE, None, "is not about a patch"),
        (claim(transfer=Region(0.1, 0.9), outcome="prr"), HERE, None, "outcome 'prr'"),
    ],
    ids=["no-patch", "no-versus", "versus", "patch", "outcome"],
)
def test_a_cell_that_is_not_what_the_claim_is_about_is_an_error(
    asserted: Claim, patch: Patch | None, versus: Patch | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Cell.of(asserted, "cell", patch, versus)


def test_a_window_that_no_generation_can_fill_is_an_error(
    stored: LoadedModel, stored_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(stored.network), "forward", None)
    study = ModelStudy(Runner(stored, stored_task, Sampling(16), Ledger()), 12, n_seeds=1)
    with pytest.raises(UsageError, match="16 were generated, of which the model has read 15"):
        study.judge(Cell.of(claim(gap=Region(low=0.0), outcome="rv/generated"), "cell"))


# --- outcomes that are not text, on a model of random weights --------------------------------

LONG = ((17, 24), (30, 18), (20, 20), (19, 33))


@pytest.fixture(scope="module")
def random_runner() -> Runner:
    return Runner(tiny("llama"), number_task(LONG), Sampling(18), Ledger())


def judged_on(runner: Runner, outcome: str, patch: Patch, estimand: str = "transfer") -> Evidence:
    asserted = claim(**{estimand: Region(low=0.2)}, outcome=outcome)
    study = ModelStudy(runner, n_pairs=12, n_seeds=1)
    return study.judge(Cell.of(asserted, "cell", patch))[0]


@pytest.mark.parametrize(
    "patch",
    [
        Patch("kv", "1+2", "last(12)"),
        Patch("residual", "1", "last(4)", active="every_step"),
        Patch("kv", "all", "last(8)", mode="append"),
    ],
    ids=str,
)
@pytest.mark.parametrize("outcome", ["loglik", "kl"])
def test_likelihoods_are_judged_as_they_were_measured(
    outcome: str, patch: Patch, random_runner: Runner
) -> None:
    evidence = judged_on(random_runner, outcome, patch)
    pairs = random_runner.task.first_pairs(12)
    means = {}
    for role, arm in {"base": BASE, "source": SOURCE, "patched": patched(patch)}.items():
        some = ForcedRuns(random_runner).measure([arm], pairs, [0])
        means[role] = np.mean([one.loglik if outcome == "loglik" else -one.kl for one in some])
    for role, mean in means.items():
        assert evidence.means[role] == pytest.approx(float(mean))
    wanted = (means["patched"] - means["base"]) / (means["source"] - means["base"])
    assert evidence.estimate == pytest.approx(float(wanted))
    assert passed(evidence)["likelihood-oracle"] is True
    assert passed(evidence)["degenerate-text"] is True
    # Base, source, patched and two controls, of each pair; self-patch and full swap have none.
    assert evidence.likelihoods == 12 * 5
    assert passed(evidence)["no-ceiling"] is True


def test_geometry_is_judged_as_it_was_recorded(random_runner: Runner) -> None:
    patch = Patch("kv_proj", "1", "last(9)")
    evidence = judged_on(random_runner, "pr@3", patch)
    pairs = random_runner.task.first_pairs(12)
    means = {
        role: np.mean(
            [t.geometry["uncentred/prompt"][3] for t in random_runner.run([arm], pairs, [0])]
        )
        for role, arm in {"base": BASE, "source": SOURCE, "patched": patched(patch)}.items()
    }
    for role, mean in means.items():
        assert evidence.means[role] == pytest.approx(float(mean))
    assert evidence.likelihoods == 0
    assert evidence.outcome["layers"] == [3]
    shown = {one["outcome"]: one for one in evidence.geometry}
    assert shown["pr@27/32"]["means"]["patched"] == pytest.approx(float(means["patched"]))
    assert shown["pr@27/32"]["reach"] == "informative"


def test_a_generation_too_short_for_its_window_leaves_nothing_to_judge() -> None:
    """Stop tokens: some pairs have no number, and leaving them out would choose the pairs."""
    model = replace(tiny("llama"))
    model.__dict__["stop_ids"] = frozenset(range(0, 97, 30))
    runner = Runner(model, number_task(LONG), Sampling(20), Ledger())
    evidence = judged_on(runner, "pr@3/generated", Patch("kv_proj", "1", "last(9)"))
    trials = [t for t in runner.ledger.trials() if t.arm in ("base", "source")]
    assert {len(trial.tokens) < 17 for trial in trials} == {True, False}
    assert passed(evidence)["short-window"] is False
    # What stands in for the missing scores is no number to show, nor to plan from.
    assert (evidence.estimate, evidence.interval, evidence.means) == (None, None, {})
    assert all(part["spreads"] == [] for part in evidence.parts)
    assert evidence.verdict == "invalid"
    assert "short-window" in evidence.reason


def test_cells_share_what_they_have_in_common(random_runner: Runner) -> None:
    one, other = Patch("v", "1", "last(4)"), Patch("v", "2", "last(4)")
    judged_on(random_runner, "loglik", one)
    trials, likelihoods = len(random_runner.ledger), len(random_runner.ledger.likelihoods)
    judged_on(random_runner, "loglik", other)
    # Patched, two controls and a self-patch; of the first three, likelihoods too.
    assert len(random_runner.ledger) - trials == 4 * 12
    assert len(random_runner.ledger.likelihoods) - likelihoods == 3 * 12
    judged_on(random_runner, "kl", other)
    assert len(random_runner.ledger) - trials == 4 * 12
