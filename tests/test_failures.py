"""One test for each failure of docs/failures.md, of its name: put in, it is caught by that name.

Each goes into the real pipeline: a study of a small model, or the loading of a task. And the
reverse: without it the same check passes, or the same input is accepted. What each check sees
besides is in `judging/test_instrument.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kv_claims import judge, run_study
from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging import decide
from kv_claims.judging.estimand import Contrast
from kv_claims.measure.behavior import behavior
from kv_claims.models.load import LoadedModel
from kv_claims.planted.build import save_planted
from kv_claims.planted.catalog import CATALOG
from kv_claims.plugin.settings import Settings
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study import verdicts
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.generation import Generation
from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Published
from kv_claims.tasks.task import Task
from tests.conftest import ROOT
from tests.judging import defects
from tests.judging.defects import BEHAVIOR, STORED, STUDIES, Study, judged, judged_as, model_of
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

SEPARATED = number_task(((17, 24), (30, 18), (20, 20), (19, 33)))
"""Prompts that are all long enough for a window of 16."""
TASK: dict[str, Any] = {
    "schema": 1,
    "name": "weather",
    "about": "a task",
    "scorer": "lexicon",
    "lexicon": ["rain"],
    "pairing": "one-to-one",
    "sources": [{"id": f"s{i}", "family": f"s{i}", "text": f"Source {i}."} for i in range(12)],
    "bases": [{"id": f"b{i}", "family": f"b{i}", "text": f"Base {i}."} for i in range(12)],
}


def slug(name: str) -> str:
    """The name of a failure as that of a test."""
    return "test_" + name.replace("-", "_").replace(">", "_over_").replace(".", "")


def test_every_failure_of_the_docs_has_its_test_here() -> None:
    rows = (ROOT / "docs/failures.md").read_text(encoding="utf-8").splitlines()
    names = [row.split("|")[1].strip() for row in rows if row.startswith("|")][2:]
    assert len(names) == len(set(names)) == 18
    here = {name for name in globals() if name.startswith("test_")}
    assert here - {"test_every_failure_of_the_docs_has_its_test_here"} == {
        slug(name) for name in names
    }


# --- what stands for a defect, and for none --------------------------------------------------


@cache
def without_a_defect(study: str) -> Evidence:
    """The evidence of a study of `defects.STUDIES` as the program is."""
    return judged(study)


def checks_of(evidence: Evidence) -> dict[str, bool | None]:
    return {check["name"]: check["passed"] for check in evidence.checks}


def assert_invalid(evidence: Evidence, failure: str) -> None:
    """The word is *invalid*, and the reason has the failure's name."""
    assert evidence.verdict == "invalid"
    # Reasons are listed as `name: detail; name: detail`.
    assert re.search(rf"(^|; ){re.escape(failure)}: ", evidence.reason), evidence.reason


def assert_caught(failure: str, study: str, inject: Callable[[pytest.MonkeyPatch], None]) -> None:
    """With a defect a study is invalid by this name; without it the same check passes."""
    with pytest.MonkeyPatch.context() as patch:
        inject(patch)
        assert_invalid(judged(study), failure)
    healthy = without_a_defect(study)
    assert checks_of(healthy)[failure] is True
    assert failure not in healthy.reason


def judged_on(
    model: LoadedModel, task: Task, claim: Claim, patch: Patch | None, *, tokens: int = 6
) -> Evidence:
    """Twelve pairs of a task, judged."""
    runner = Runner(model, task, Sampling(tokens), Ledger())
    return ModelStudy(runner, 12, n_seeds=1).judge(Cell.of(claim, "cell", patch))[0]


def planted(name: str, claim: Claim, patch: Patch, *, tokens: int = 6) -> Evidence:
    """Twelve pairs of a planted model's own task, judged."""
    model = model_of(f"planted:{name}")
    assert model.planted is not None
    return judged_on(model, model.planted.task(12), claim, patch, tokens=tokens)


def written(folder: Path, task: dict[str, Any]) -> Path:
    """A task as a file; JSON is YAML."""
    path = folder / "task.yaml"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


# --- the eighteen, in the order of docs/failures.md -------------------------------------------


def test_duplicate_last_token() -> None:
    assert_caught("duplicate-last-token", "splice", defects.last_token_twice)


@pytest.mark.parametrize("study", ["splice", "in-prefill", "held"])
def test_unrotated_keys(study: str) -> None:
    assert_caught("unrotated-keys", study, defects.keys_not_rotated)


@pytest.mark.parametrize(
    ("study", "inject"),
    [
        ("splice", defects.hook_that_never_fires),
        ("every-step", defects.guarded_against_single_tokens),
    ],
    ids=["never", "wants-16-rows"],
)
def test_hook_never_fired(study: str, inject: Callable[[pytest.MonkeyPatch], None]) -> None:
    assert_caught("hook-never-fired", study, inject)


def test_measured_where_patched() -> None:
    """The defect is in what is claimed: 'geometry transfers', read from the rows just pasted."""
    claim = Claim("c", says="s", cites="c", transfer=Region(0.8, 1.2), outcome="pr@3")

    def pasted(site: str, layer: str) -> Evidence:
        return judged_on(tiny("llama"), SEPARATED, claim, Patch(site, layer, "last(16)"))

    tautological = pasted("v_proj", "3")
    assert_invalid(tautological, "measured-where-patched")
    # Nothing was run, so there is no number that could be taken for evidence.
    assert (tautological.estimate, tautological.trials["run"]) == (None, 0)
    # A residual pasted behind the place that is read cannot be seen there.
    assert_invalid(pasted("residual", "3"), "null-by-construction")
    seen = pasted("residual", "1")
    assert seen.trials["run"] == seen.trials["planned"] > 0
    assert {"base", "source", "patched"} <= set(seen.means)
    assert not {"measured-where-patched", "null-by-construction"} & set(checks_of(seen))


@pytest.mark.parametrize("study", ["splice", "residual"])
def test_vacuous_control(study: str) -> None:
    assert_caught("vacuous-control", study, defects.control_that_is_the_patch)


def test_no_ceiling() -> None:
    """A model whose sources behave as its bases do; and a table in which no source was run."""
    nothing = planted("inert", BEHAVIOR, STORED, tokens=20)
    assert_invalid(nothing, "no-ceiling")
    assert nothing.estimate is None
    healthy = planted("stored-at-layer", BEHAVIOR, STORED, tokens=20)
    assert healthy.verdict == "supported"
    assert checks_of(healthy)["no-ceiling"] is True

    model = model_of("planted:stored-at-layer")
    assert model.planted is not None
    frame = run_study(model, model.planted.task(12), {"patched": STORED}, max_new_tokens=6)
    unscored = judge(frame[frame["arm"] != "source"], Region(0.1, 0.9))
    assert (unscored.word, unscored.estimate) == ("invalid", None)
    assert unscored.reason == "no-ceiling: no source arm was run"
    assert judge(frame, Region(0.1, 0.9)).word == "supported"


def test_degenerate_text() -> None:
    """Layer 25/32 of this model makes five words repeat, four of which score."""
    collapsed = planted("collapse", BEHAVIOR, Patch("kv", "25/32", "last(32)"), tokens=30)
    assert_invalid(collapsed, "degenerate-text")
    # By its score alone it would be most of the source's behavior.
    assert collapsed.estimate > 0.6
    healthy = planted("collapse", BEHAVIOR, Patch("kv", "12/32", "last(16)"), tokens=30)
    assert checks_of(healthy)["degenerate-text"] is True
    # What repetition brings is told apart, and not paid for; the published score gives it 5 points.
    share, usual = (one.scorer["repetition_share"]["patched"] for one in (collapsed, healthy))
    assert share > 0.05 > usual
    collapse = "and so on " * 10
    seen = behavior(Generation(collapse), words_with_published())
    assert (seen.degenerate, seen.score_lexicon, seen.score_published) == (True, 0.0, 5.0)


def words_with_published() -> Task:
    """The planted model's words, with the seed's substrings for a scorer."""
    return replace(defects.words_task(), scorer=Published())


def test_substring_markers() -> None:
    """The planted model says 'itself' and 'mirrors'; the seed's score finds 'self' and 'mirror'."""
    words = STUDIES["words"]
    substrings = judged_as(words._replace(task=words_with_published))
    assert_invalid(substrings, "substring-markers")
    assert re.search(r"such as '\w+' in '\w+'", substrings.reason)
    # The same texts, counted by whole words.
    healthy = without_a_defect("words")
    assert healthy.verdict == "supported"
    assert checks_of(healthy)["substring-markers"] is True

    def with_outcome(**asserted: Any) -> Evidence:
        claim = Claim("c", says="s", cites="c", **asserted)
        return judged_as(words._replace(claim=claim, patches=None if claim.gap else words.patches))

    # Nor does it matter where the score comes in: by the outcome, or without any patch.
    assert_invalid(
        with_outcome(transfer=Region(0.1, 0.9), outcome="score_published"), "substring-markers"
    )
    assert_invalid(
        with_outcome(gap=Region(low=0.0), outcome="score_published"), "substring-markers"
    )
    assert checks_of(with_outcome(gap=Region(low=0.0)))["substring-markers"] is True
    other = with_outcome(gap=Region(low=-1.0), outcome="distinct_share")
    found = next(check for check in other.checks if check["name"] == "substring-markers")
    assert (found["passed"], found["detail"][:14]) == (True, "does not apply")
    # And in whatever scorer the defect is.
    assert_caught("substring-markers", "words", defects.letters_inside_words)


def test_cache_aliasing() -> None:
    assert_caught("cache-aliasing", "splice", defects.write_into_the_store)


@pytest.mark.parametrize(
    "inject",
    [defects.every_pair_for_itself, defects.table_without_prompts],
    ids=["ignored", "not-in-the-table"],
)
def test_clusters_ignored(inject: Callable[[pytest.MonkeyPatch], None]) -> None:
    assert_caught("clusters-ignored", "crossed", inject)
    healthy = without_a_defect("crossed")
    # 24 pairs of 11 sources and 12 bases: judged by source and by base, of which one is shown.
    assert (healthy.verdict, healthy.pairs, healthy.clusters) == ("supported", 24, 11)
    (detail,) = (c["detail"] for c in healthy.checks if c["name"] == "clusters-ignored")
    assert detail.startswith("24 pairs judged by source (11) and base (12)")
    # So are pairs of a claim without a patch.
    gap: Study = STUDIES["crossed"]._replace(
        claim=Claim("c", says="s", cites="c", gap=Region(low=0.0)), patches=None
    )
    assert judged_as(gap).verdict == "supported"
    with pytest.MonkeyPatch.context() as patch:
        inject(patch)
        assert_invalid(judged_as(gap), "clusters-ignored")


def no_difference_found(patch: pytest.MonkeyPatch) -> None:
    """A rule that reads p > 0.05 of no difference as sameness."""
    real = decide.edge_tests

    def lenient(compared: Contrast, region: Region) -> Any:
        found = real(compared, region)
        differs = stats.ttest_1samp(compared.effect, 0.0, axis=-1).pvalue
        return found._replace(p_supported=np.where(differs > 0.05, 0.0, 1.0))

    patch.setattr(decide, "edge_tests", lenient)


def test_same_is_not_p_over_005() -> None:
    """Two windows that differ by little, on 12 noisy pairs: no difference shows, nor sameness."""
    claim = Claim("c", says="s", cites="c", difference=Region(-0.05, 0.05))
    model = model_of("planted:stored-at-layer")
    assert model.planted is not None

    def compared(margin: float = 0.05, pairs: int = 12) -> Evidence:
        runner = Runner(model, model.planted.task(pairs), Sampling(6), Ledger())
        asked = replace(claim, difference=Region(-margin, margin))
        one, other = (Patch("kv", "25/32", f"last({width})") for width in (16, 15))
        return ModelStudy(runner, pairs, n_seeds=1).judge(Cell.of(asked, "cell", one, other))[0]

    honest = compared()
    assert honest.verdict == "inconclusive"
    assert honest.pairs_needed is not None
    # With a margin that the pairs can show, the same comparison is sameness, and checked as such.
    shown = compared(margin=0.3, pairs=40)
    assert shown.verdict == "supported"
    assert checks_of(shown)["same-is-not-p>0.05"] is True
    with pytest.MonkeyPatch.context() as patch:
        no_difference_found(patch)
        assert_invalid(compared(), "same-is-not-p>0.05")
    # Sameness without a margin cannot be claimed at all.
    with pytest.raises(UsageError, match="expected at least one finite end"):
        Region()


def at_full_alpha(patch: pytest.MonkeyPatch) -> None:
    """Each of many cells is judged as if it were the only one."""
    real = verdicts.judge_part

    def alone(*given: Any, **more: Any) -> Any:
        return real(*given, **{**more, "alpha": 0.05})

    patch.setattr(verdicts, "judge_part", alone)


def test_best_of_k() -> None:
    """A cell that is 'supported' as the best of eight, and would be so alone."""
    model = model_of("planted:stored-at-layer")
    assert model.planted is not None

    def cell(region: Region, siblings: int) -> Evidence:
        runner = Runner(model, model.planted.task(12), Sampling(12), Ledger())
        claim = Claim("c", says="s", cites="c", transfer=region)
        asked = Cell.of(claim, "cell", STORED, siblings=siblings)
        return ModelStudy(runner, 12, n_seeds=1).judge(asked)[0]

    wide = Region(high=5.0)
    alone, of_eight = cell(wide, 1).interval, cell(wide, 8).interval
    # An edge that the interval of one test clears, and that of one of eight does not.
    between = Region(high=(alone[1] + of_eight[1]) / 2)
    assert cell(between, 1).verdict == "supported"
    honest = cell(between, 8)
    assert (honest.verdict, honest.multiplicity["raw"]) == ("inconclusive", "supported")
    assert honest.multiplicity["alpha"] == 0.05 / 8
    assert checks_of(honest)["best-of-k"] is True
    with pytest.MonkeyPatch.context() as patch:
        at_full_alpha(patch)
        assert_invalid(cell(between, 8), "best-of-k")
    assert cell(between, 8).verdict == "inconclusive"


@pytest.mark.parametrize(
    "arm", ["source$", "noise>", "base>"], ids=["judged", "control", "self-patch"]
)
def test_silent_n(arm: str) -> None:
    """One trial of one arm does not come back."""
    lose = defects.changed_trials(
        lambda t: None if t.pair_index == 3 and re.match(arm, t.arm) else t
    )
    assert_caught("silent-n", "splice", lose)
    healthy = without_a_defect("splice")
    assert healthy.trials["run"] == healthy.trials["planned"]


def test_unread_thresholds(tmp_path: Path) -> None:
    """Criteria that no code reads, in a task file and in a claim."""
    read = load_task(written(tmp_path, TASK))
    assert (read.name, len(read.pairs)) == ("weather", 12)
    path = written(tmp_path, {**TASK, "pass_criteria": {"transfer": 0.8}})
    with pytest.raises(UsageError, match="unknown key pass_criteria; expected about, "):
        load_task(path)
    # So it ends before a run does anything: this is what `pytest claims` checks first.
    save_planted(CATALOG["stored-at-layer"], tmp_path / "model")
    run = Settings(root=ROOT, models=(str(tmp_path / "model"),), task=path, out=tmp_path / "out")
    with pytest.raises(UsageError, match="unknown key pass_criteria"):
        run.check()
    written(tmp_path, TASK)
    run.check()

    said = {"id": "c", "says": "s", "cites": "c"}
    assert Claim(**said, transfer=Region(0.7, 0.9), margin=0.2).margin == 0.2
    with pytest.raises(UsageError, match=r"margin 0\.2: no part is about a patch"):
        Claim(**said, gap=Region(low=0.0), margin=0.2)


def test_prompt_drift(tmp_path: Path) -> None:
    """Trials of other texts or tokens than the task's, and a task with one id for two texts."""
    for side in ("source_sha", "base_sha", "source_tokens_sha", "base_tokens_sha"):
        other = defects.changed_trials(lambda t, side=side: replace(t, **{side: "0" * 64}))
        assert_caught("prompt-drift", "splice", other)
    twice = [*TASK["sources"][:11], {**TASK["sources"][0], "text": "Another text."}]
    with pytest.raises(UsageError, match="'s0': the id is used twice"):
        load_task(written(tmp_path, {**TASK, "sources": twice}))
    # A text that changes under its id is another pair, so nothing of the old one is used for it.
    changed = [{**TASK["sources"][0], "text": "Another text."}, *TASK["sources"][1:]]
    before, after = (
        load_task(written(tmp_path, {**TASK, "sources": some})).pairs
        for some in (TASK["sources"], changed)
    )
    assert [a.id == b.id for a, b in zip(before, after, strict=True)] == [False, *[True] * 11]


def test_prompt_scored() -> None:
    with_its_prompt = defects.changed_trials(lambda t: replace(t, text="1 2 3 " + t.text))
    assert_caught("prompt-scored", "splice", with_its_prompt)


def test_short_window() -> None:
    """Windows of the patch, of the prompt and of the generation: none is made to fit."""
    for study, positions, fits in (("splice", "last(99)", "last(6)"), ("splice", "first(7)", None)):
        with pytest.raises(UsageError, match=re.escape(positions)):
            judged_as(STUDIES[study]._replace(patches=(Patch("kv", "1", positions),)))
        assert fits is None or without_a_defect(study).patch["positions"] == fits

    def with_outcome(outcome: str, *, task: Task = SEPARATED, tokens: int = 18) -> Evidence:
        claim = Claim("c", says="s", cites="c", gap=Region(low=-99.0), outcome=outcome)
        return judged_on(tiny("llama"), task, claim, None, tokens=tokens)

    with pytest.raises(UsageError, match="its window has 16 tokens, the prompt has 9"):
        with_outcome("pr@3", task=number_task())
    with pytest.raises(UsageError, match="16 were generated, of which the model has read 15"):
        with_outcome("pr@3/generated", tokens=16)
    for outcome in ("pr@3", "pr@3/generated"):
        fits = with_outcome(outcome)
        assert "short-window" not in checks_of(fits)
        assert fits.verdict == "supported"

    # What is only seen in the run: stop tokens leave some generations too short.
    stopping = replace(tiny("llama"))
    stopping.__dict__["stop_ids"] = frozenset(range(0, 97, 30))
    claim = Claim("c", says="s", cites="c", gap=Region(low=-99.0), outcome="pr@3/generated")
    assert_invalid(judged_on(stopping, SEPARATED, claim, None, tokens=18), "short-window")


def test_full_swap_is_the_donor() -> None:
    """As a finding it is invalid; as the instrument's check it sees a swap that is not whole."""
    finding = judged_as(STUDIES["splice"]._replace(patches=(Patch("kv", "all", "all"),)))
    assert_invalid(finding, "full-swap-is-the-donor")
    assert (finding.estimate, finding.trials["run"]) == (None, 0)
    assert_caught("full-swap", "splice", defects.other_token_in_the_full_swap)
    # All positions of some layers, and some positions of all layers, are no full swap.
    for part in (Patch("kv", "0:3", "all"), Patch("kv", "all", "last(4)")):
        anywhere = replace(STUDIES["splice"].claim, about=None)
        evidence = judged_as(STUDIES["splice"]._replace(claim=anywhere, patches=(part,)))
        assert "full-swap-is-the-donor" not in evidence.reason
        assert evidence.trials["run"] == evidence.trials["planned"] > 0
