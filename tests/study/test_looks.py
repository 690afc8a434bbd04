"""Looks at the data on the way, and the share of 0.05 that a study is judged at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, Family, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import Evidence, to_json
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.study.study import PROBE_PAIRS, ModelStudy
from kv_claims.tasks.task import Task
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

HERE, ELSEWHERE = Patch("kv", "12", "last(16)"), Patch("kv", "9", "last(16)")
"""On the stored model layer 12 carries the behavior: last(16) of it about 0.4, layer 9 nothing."""
AT_MOST, FAR_OFF, NARROW = Region(high=0.12), Region(0.7, 0.9), Region(0.37, 0.47)
"""Of these patches: true of ELSEWHERE, false of HERE, and too narrow around HERE to be shown."""


def claim(region: Region, **asserted: Any) -> Claim:
    return Claim("a-claim", says="A sentence.", cites="a test", transfer=region, **asserted)


def study_of(model: LoadedModel, task: Task, ledger: Path | None = None, n: int = 40) -> ModelStudy:
    return ModelStudy(Runner(model, task, Sampling(8), Ledger(ledger)), n, n_seeds=1)


def judged(study: ModelStudy, asserted: Claim, patch: Any = HERE, **cell: Any) -> Evidence:
    return study.judge(Cell.of(asserted, "cell", patch, **cell))[0]


@pytest.fixture(scope="module")
def study(stored: LoadedModel, stored_task: Task) -> ModelStudy:
    """Shared by tests that look at evidence only: what their cells share runs once."""
    return study_of(stored, stored_task)


def trials_of(study: ModelStudy) -> list[Trial]:
    return list(study.runner.ledger.trials())


def looks_of(evidence: Evidence) -> dict[str, Any]:
    return dict(evidence.multiplicity["looks"])


# --- when it stops ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "patch", "word"),
    # None of 12 pairs changes elsewhere: at a third of 0.05 that leaves up to 0.29.
    [(Region(high=0.3), ELSEWHERE, "supported"), (FAR_OFF, HERE, "refuted")],
    ids=["supported", "refuted"],
)
def test_it_stops_at_the_first_look_that_decides(
    stored: LoadedModel, stored_task: Task, region: Region, patch: Patch, word: str
) -> None:
    study = study_of(stored, stored_task)
    evidence = judged(study, claim(region, looks=(12, 24, 36)), patch)
    assert (evidence.verdict, evidence.pairs, evidence.clusters) == (word, 12, 12)
    looks = looks_of(evidence)
    assert looks["planned"] == [12, 24, 36]
    assert looks["pairs_spared"] == 24
    assert looks["taken"] == [
        {
            "pairs": 12,
            "verdict": word,
            "estimate": evidence.estimate,
            "p_supported": evidence.p_supported,
            "p_refuted": evidence.p_refuted,
        }
    ]
    # What was spared was not run: not by the cell, and not by the arms that cells share.
    assert {trial.pair_index for trial in trials_of(study)} == set(range(12))
    n = len(evidence.arms) * 12
    assert evidence.trials == {"planned": n, "run": n, "failed": 0}


def test_it_goes_on_while_nothing_decides_and_the_last_look_stands(study: ModelStudy) -> None:
    evidence = judged(study, claim(NARROW, looks=(12, 24, 40)))
    looks = looks_of(evidence)
    assert evidence.verdict == "inconclusive"
    assert [look["pairs"] for look in looks["taken"]] == [12, 24, 40]
    assert [look["verdict"] for look in looks["taken"]] == ["inconclusive"] * 3
    assert looks["pairs_spared"] == 0
    assert len({look["estimate"] for look in looks["taken"]}) == 3
    assert looks["taken"][-1]["estimate"] == evidence.estimate
    assert (evidence.pairs, evidence.scorer["clusters"]) == (40, 40)
    # A self-patch is decoded for the first pairs alone, at every look.
    n = (len(evidence.arms) - 1) * 40 + PROBE_PAIRS
    assert evidence.trials == {"planned": n, "run": n, "failed": 0}


def test_a_look_in_the_middle_may_decide(study: ModelStudy) -> None:
    """A region that ten pairs leave open, and more of them do not."""
    evidence = judged(study, claim(Region(0.0, 0.55), looks=(10, 30, 40)))
    assert [look["verdict"] for look in looks_of(evidence)["taken"]] == [
        "inconclusive",
        "supported",
    ]
    assert (evidence.verdict, evidence.pairs) == ("supported", 30)
    assert looks_of(evidence)["pairs_spared"] == 10


@pytest.mark.parametrize("pairs", [20, 30, 40])
def test_nothing_but_declared_looks_is_looked_at(study: ModelStudy, pairs: int) -> None:
    """Every other number of pairs would be one more chance to err, however a run is taken up."""
    fewer = ModelStudy(study.runner, pairs, n_seeds=1)
    evidence = judged(fewer, claim(NARROW, looks=(20, 60, 80)))
    looks = looks_of(evidence)
    assert [look["pairs"] for look in looks["taken"]] == [20]
    assert evidence.pairs == 20
    assert (looks["planned"], looks["pairs_spared"]) == ([20, 60, 80], 0)
    # However many there are left, each spends a third.
    assert evidence.multiplicity["alpha"] == pytest.approx(0.05 / 3)


def test_before_its_first_look_a_claim_is_not_run_and_not_decided(
    stored: LoadedModel, stored_task: Task
) -> None:
    study = study_of(stored, stored_task, n=14)
    evidence = judged(study, claim(AT_MOST, looks=(20, 60)))
    assert evidence.verdict == "inconclusive"
    assert evidence.reason == (
        "not looked at yet: its first look is after 20 pairs, 14 were asked for"
    )
    assert (evidence.pairs_needed, evidence.estimate, evidence.interval) == (20, None, None)
    assert looks_of(evidence)["taken"] == []
    assert trials_of(study) == []


def test_more_pairs_at_hand_than_the_last_look_asks_for_are_not_run(
    stored: LoadedModel, stored_task: Task
) -> None:
    study = study_of(stored, stored_task)
    evidence = judged(study, claim(NARROW, looks=(10, 12)))
    assert evidence.pairs == 12
    assert {trial.pair_index for trial in trials_of(study)} == set(range(12))


def test_what_is_invalid_for_want_of_a_gap_is_so_at_the_last_look_only(
    study: ModelStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lexicon word anywhere: no gap between source and base, at whatever look."""
    monkeypatch.setattr(type(study.task.scorer), "__call__", lambda *_: 0.0)
    fresh = ModelStudy(study.runner, 40, n_seeds=1)
    evidence = judged(fresh, claim(FAR_OFF, looks=(12, 24)))
    assert evidence.reason.startswith("no-ceiling")
    assert [look["pairs"] for look in looks_of(evidence)["taken"]] == [12, 24]
    assert {look["verdict"] for look in looks_of(evidence)["taken"]} == {"invalid"}


def test_where_the_instrument_fails_it_stops_at_once(
    stored: LoadedModel, stored_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rotation, "__call__", lambda _self, _layer, keys, _shift: keys)
    study = study_of(stored, stored_task)
    evidence = judged(study, claim(NARROW, looks=(12, 24, 36)))
    assert (evidence.verdict, evidence.pairs) == ("invalid", 12)
    assert evidence.reason.startswith("unrotated-keys")
    assert len(looks_of(evidence)["taken"]) == 1
    assert looks_of(evidence)["pairs_spared"] == 24
    assert {trial.pair_index for trial in trials_of(study)} == set(range(12))


def test_what_says_nothing_by_construction_is_not_looked_at(study: ModelStudy) -> None:
    asserted = claim(Region(0.5, 1.5), looks=(12, 24), outcome="pr@27/32")
    evidence = judged(study, asserted, Patch("v_proj", "27/32", "last(16)"))
    assert evidence.reason.startswith("measured-where-patched")
    assert looks_of(evidence) == {"planned": [12, 24], "taken": [], "pairs_spared": 0}


# --- what a look finds -----------------------------------------------------------------------


def test_a_look_is_what_a_study_of_so_many_pairs_would_be_at_the_same_rate(
    study: ModelStudy,
) -> None:
    looked = judged(study, claim(NARROW, looks=(20, 40)))
    assert len(looks_of(looked)["taken"]) == 2
    for look in looks_of(looked)["taken"]:
        # One of two headline tests has the rate of one of two looks.
        alone = judged(
            ModelStudy(study.runner, look["pairs"], n_seeds=1),
            claim(NARROW, family=Family("two", 2)),
        )
        assert alone.multiplicity["alpha"] == looked.multiplicity["alpha"] == 0.025
        assert look == {
            "pairs": alone.pairs,
            "verdict": alone.verdict,
            "estimate": alone.estimate,
            "p_supported": alone.p_supported,
            "p_refuted": alone.p_refuted,
        }
    assert alone.pairs == 40
    for name in ("estimate", "interval", "level", "interval_other", "means", "controls", "trials"):
        assert getattr(looked, name) == getattr(alone, name), name


def test_a_look_spends_its_share_so_what_decides_at_005_may_not_decide_there(
    study: ModelStudy,
) -> None:
    """The upper end of a region just above the 90% interval: shown at 0.05, not at 0.05 / 2."""
    once = judged(study, claim(Region(high=2.0), looks=()))
    assert once.interval is not None
    high = once.interval[1] + 1e-6
    asked = [claim(Region(high=high), looks=looks) for looks in ((), (39, 40))]
    at_once, at_two = (judged(study, one) for one in asked)
    assert (at_once.verdict, at_once.multiplicity["raw"]) == ("supported", "supported")
    assert (at_two.verdict, at_two.multiplicity["raw"]) == ("inconclusive", "supported")


def test_a_resumed_run_gives_the_same_evidence(
    stored: LoadedModel, stored_task: Task, tmp_path: Path
) -> None:
    asserted = claim(NARROW, looks=(10, 12, 14))
    whole = judged(study_of(stored, stored_task, tmp_path / "whole"), asserted)
    cut = tmp_path / "cut"
    cut.mkdir()
    # Half of the ledger, as a run leaves it that was killed at some look.
    lines = (tmp_path / "whole/main.jsonl").read_text().splitlines(keepends=True)
    (cut / "main.jsonl").write_text("".join(lines[: len(lines) // 2]))
    for folder, missing in ((cut, len(lines) - len(lines) // 2), (tmp_path / "whole", 0)):
        before = len((folder / "main.jsonl").read_text().splitlines())
        again = judged(study_of(stored, stored_task, folder), asserted)
        assert to_json(again.__dict__) == to_json(whole.__dict__)
        assert len((folder / "main.jsonl").read_text().splitlines()) == before + missing


def test_a_late_pair_that_does_not_fit_is_an_error_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pair 24 has a prompt of 5 tokens; the first look would end at 12 pairs."""
    task = number_task((*[(20, 24)] * 24, (5, 24)))
    model = tiny("llama")
    assert model.kept  # which takes two tokens
    monkeypatch.setattr(type(model.network), "forward", None)
    study = ModelStudy(Runner(model, task, Sampling(4), Ledger()), 25, n_seeds=1)
    with pytest.raises(UsageError, match=r"last\(12\).*expected a window that fits both"):
        judged(study, claim(FAR_OFF, looks=(12, 24)), Patch("kv", "1", "last(12)"))
    outcome = claim(FAR_OFF, looks=(12, 24), outcome="rv")
    with pytest.raises(UsageError, match="16"):
        judged(study, outcome, Patch("kv", "1", "last(4)"))
    assert not len(study.runner.ledger)


# --- one of how many -------------------------------------------------------------------------


def test_one_cell_of_eight_is_judged_at_an_eighth(study: ModelStudy) -> None:
    evidence = judged(study, claim(FAR_OFF), siblings=8)
    found = evidence.multiplicity
    assert {name: found[name] for name in ("family", "size", "alpha", "raw", "holm")} == {
        "family": "a-claim",
        "size": 8,
        "alpha": 0.05 / 8,
        "raw": "refuted",
        "holm": None,
    }
    assert looks_of(evidence)["planned"] == []
    assert (evidence.verdict, evidence.level) == ("refuted", 1 - 0.05 / 8)
    shared = next(check for check in evidence.checks if check["name"] == "best-of-k")
    assert shared["passed"] is True
    assert shared["detail"].startswith("one of 8 in 'a-claim': judged at level 0.99375")


def test_beside_it_stands_the_word_of_a_test_that_is_alone(study: ModelStudy) -> None:
    alone = judged(study, claim(Region(high=2.0)))
    assert alone.interval is not None
    asserted = claim(Region(high=alone.interval[1] + 1e-6))
    one, of_eight = judged(study, asserted), judged(study, asserted, siblings=8)
    assert (one.verdict, one.multiplicity["raw"], one.multiplicity["size"]) == (
        "supported",
        "supported",
        1,
    )
    assert (of_eight.verdict, of_eight.multiplicity["raw"]) == ("inconclusive", "supported")
    assert one.estimate == of_eight.estimate
    assert one.p_supported == of_eight.p_supported


def test_family_and_looks_multiply(study: ModelStudy) -> None:
    evidence = judged(study, claim(NARROW, family=Family("five", 5), looks=(20, 40)))
    assert evidence.multiplicity["alpha"] == pytest.approx(0.05 / 10)
    shared = next(check for check in evidence.checks if check["name"] == "best-of-k")
    assert shared["detail"].startswith("one of 5 in 'five', at one of 2 looks: ")


# --- beside the verdict ----------------------------------------------------------------------

GAP = Part.gap("loglik", Region(low=0.0))


def test_sensitivity_and_the_other_scorer_stand_beside_behavior(study: ModelStudy) -> None:
    evidence = judged(study, claim(FAR_OFF))
    (part,) = json.loads(to_json(evidence.__dict__))["parts"]
    (lines,) = part["sensitivity"]["lines"]
    assert (lines["by"], lines["clusters"]) == ("pair", 40)
    assert lines["estimate"] == pytest.approx(evidence.estimate)
    assert lines["bootstrap"] is not None
    assert len(lines["sign_flips"]) == 2
    other = part["other_scorer"]
    assert set(other) == {"scorer", "verdict", "estimate"}
    assert other["scorer"] == "published" != study.task.scorer.name
    assert other["verdict"] in ("supported", "refuted", "inconclusive", "invalid")


def test_what_is_no_score_of_a_text_has_no_other_scorer(study: ModelStudy) -> None:
    asserted = Claim(
        "both",
        says="A sentence.",
        cites="a test",
        all_of=(Part.transfer("behavior", FAR_OFF), GAP),
        given=(Part.gap("rv", Region(low=-1.0)),),
    )
    evidence = judged(study, asserted)
    scorers = [part["other_scorer"] for part in evidence.parts]
    assert [scorer is not None for scorer in scorers] == [True, False, False]
    assert all(part["sensitivity"]["lines"] for part in evidence.parts)
    assert [len(part["spreads"]) for part in evidence.parts] == [1, 1, 1]


def test_what_was_not_run_has_nothing_beside_it(study: ModelStudy) -> None:
    evidence = judged(study, claim(Region(0.5, 1.5)), Patch("kv", "all", "all"))
    (part,) = evidence.parts
    assert (part["sensitivity"], part["other_scorer"], part["spreads"]) == (None, None, [])


def test_what_stands_beside_a_verdict_decides_nothing(
    study: ModelStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kv_claims.study import verdicts

    asked = [(claim(AT_MOST), ELSEWHERE), (claim(FAR_OFF), HERE), (claim(NARROW), HERE)]
    with_them = [judged(study, *one) for one in asked]
    monkeypatch.setattr(verdicts, "_beside", lambda *_args: verdicts.Beside())
    without = [judged(study, *one) for one in asked]
    for one, other in zip(with_them, without, strict=True):
        assert other.parts[0]["sensitivity"] is None
        beside = {name: one.parts[0][name] for name in ("sensitivity", "other_scorer")}
        other.parts[0].update(beside)
        assert to_json(other.__dict__) == to_json(one.__dict__)
    assert [one.verdict for one in without] == ["supported", "refuted", "inconclusive"]
