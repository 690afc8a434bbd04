"""Prompts that are the same tokens: one cluster, in a run, in a table, and when it is judged again.

Texts that differ in a word that the model does not know are the same to it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.compare import compare
from kv_claims.evidence.evidence import Evidence, plain, to_json
from kv_claims.evidence.stored import load_run
from kv_claims.judging.verdict import judge
from kv_claims.models.load import LoadedModel
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER, Settings
from kv_claims.plugin.write import write_reports
from kv_claims.replay.run import ReplayedRun
from kv_claims.run.arms import controls
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.scripting import run_study
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Prompt, Task

HERE = Patch("kv", layers="12", positions="last(16)")
AT_MOST = Region(high=0.25)
GAP = Part.gap("behavior", Region(low=0.0))
SPREAD = Part.gap("distinct_share", Region(low=-1.0))


def claim(**asserted: Any) -> Claim:
    return Claim("c", says="s", cites="t", **{"transfer": Region(0.1, 0.95), **asserted})


def twins(task: Task, groups: int, each: int, *, bases: bool = True) -> Task:
    """So many pairs of prompts, each written in so many ways that the model reads alike."""

    def written(prompts: tuple[Prompt, ...], doubled: bool) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(f"{prompt.id}-{n}", prompt.family, f"{prompt.text} zork{chr(97 + n)} river")
            for prompt, n in (
                (prompts[g if doubled else g * each + n], n)
                for g in range(groups)
                for n in range(each)
            )
        )

    return replace(
        task, name="twins", sources=written(task.sources, True), bases=written(task.bases, bases)
    )


@pytest.fixture(scope="module")
def many(stored: LoadedModel) -> Task:
    assert stored.planted is not None
    return stored.planted.task(60)


def study_of(model: LoadedModel, task: Task, pairs: int, folder: Path | None = None) -> ModelStudy:
    return ModelStudy(Runner(model, task, Sampling(6), Ledger(folder)), pairs, n_seeds=1)


def check(evidence: Evidence, name: str) -> dict[str, Any]:
    (found,) = (one for one in evidence.checks if one["name"] == name)
    return found


# --- clusters ------------------------------------------------------------------------------


def test_texts_of_equal_tokens_are_one_cluster(stored: LoadedModel, many: Task) -> None:
    study = study_of(stored, twins(many, 12, 3), 36)
    evidence, expected = study.judge(Cell.of(claim(), "cell", HERE))
    assert expected is None
    assert (evidence.pairs, evidence.clusters) == (36, 12)
    assert check(evidence, "clusters-ignored") == {
        "name": "clusters-ignored",
        "passed": True,
        "detail": "36 pairs judged by source (12) and base (12); prompts shared: source (12) and "
        "base (12) (36 source texts are 12 sequences of tokens; 36 base texts are 12 sequences of "
        "tokens)",
    }
    assert evidence.provenance["tokens"]["with_unknown_words"] == 72
    assert evidence.verified


def test_only_the_side_that_repeats_is_clustered(stored: LoadedModel, many: Task) -> None:
    study = study_of(stored, twins(many, 12, 3, bases=False), 36)
    evidence, _ = study.judge(Cell.of(claim(), "cell", HERE))
    assert evidence.clusters == 12
    (line,) = evidence.parts[0]["sensitivity"]["lines"]
    assert (line["by"], line["clusters"]) == ("source", 12)
    # A cluster is shown by the name of a prompt, not by a hash.
    assert line["without_cluster"]["low_without"] in {f"source-{i:03d}-0" for i in range(12)}


def test_a_table_of_run_study_is_judged_by_tokens(stored: LoadedModel, many: Task) -> None:
    task = twins(many, 10, 2)
    frame = run_study(stored, task, {"patched": HERE}, max_new_tokens=6)
    found = judge(frame, Region(0.1, 0.95))
    assert (found.pairs, found.clusters) == (20, 10)
    assert set(frame["source"]) == {prompt.id for prompt in task.sources}
    bare = frame.drop(columns=["source_tokens_sha", "base_tokens_sha"])
    assert judge(bare, Region(0.1, 0.95)).clusters == 20


def test_a_donor_that_is_unrelated_has_other_tokens(stored: LoadedModel, many: Task) -> None:
    task = twins(many, 2, 30)
    task = replace(
        task, bases=tuple(replace(base, family=str(n)) for n, base in enumerate(task.bases))
    )
    runner = Runner(stored, task, Sampling(4), Ledger())
    own = 0
    for pair in task.pairs:
        arm = controls([HERE], 16, about_layer=False)["unrelated-base"]
        *_, donor = runner.rows.prompts(runner.canonical(arm), pair)
        assert donor not in (runner.rows.tokens(pair.base), runner.rows.tokens(pair.source))
        own += runner.rows.tokens(next(task.unrelated(pair))) == runner.rows.tokens(pair.base)
    assert own > 10, "by text alone many a donor is the pair's own base"


# --- source and base of equal tokens -------------------------------------------------------


def same_ends(task: Task) -> Task:
    """Of the second and the fourth pair, source and base are the same tokens."""
    sources = list(task.sources)
    for n in (1, 3):
        sources[n] = replace(sources[n], text=f"{task.bases[n].text} zorka")
    bases = [replace(base, text=f"{base.text} zorkb") for base in task.bases]
    return replace(task, name="same-ends", sources=tuple(sources), bases=tuple(bases))


def test_source_and_base_of_equal_tokens_are_one_error_before_a_model_runs(
    stored: LoadedModel, many: Task
) -> None:
    task = same_ends(many)
    wanted = (
        r"^pair 1 \(source 'source-001', base 'base-001'\): to planted:stored-at-layer both "
        r"prompts are the same \d+ tokens, and those of 1 more pairs; expected a difference to "
        r"transfer$"
    )
    with pytest.raises(UsageError, match=wanted):
        study_of(stored, task, 12)
    with pytest.raises(UsageError, match=wanted):
        run_study(stored, task, {"patched": HERE}, pairs=12)
    assert study_of(stored, task, 1).n_pairs == 1


# --- too few -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asserted",
    [
        pytest.param({}, id="one-part"),
        pytest.param({"looks": (20, 45)}, id="looks"),
        pytest.param(
            {
                "transfer": None,
                "all_of": (Part.transfer("behavior", AT_MOST), SPREAD),
                "given": (GAP,),
            },
            id="parts-and-given",
        ),
    ],
)
def test_too_few_clusters_are_known_before_a_trial_runs(
    asserted: dict[str, Any],
    stored: LoadedModel,
    many: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = Cell.of(claim(**asserted), "cell", HERE, siblings=2)
    before = study_of(stored, twins(many, 9, 5), 45)
    done = before.run_cell(cell)
    evidence = done.evidence
    assert before.runner.ran == before.runner.read == 0
    assert evidence.verdict == "invalid"
    assert "enough-pairs: 9 clusters of pairs by source, at least 10 wanted" in evidence.reason
    assert (evidence.pairs, evidence.clusters) == (45, 9)
    assert evidence.trials == {"planned": 0, "run": 0, "failed": 0}
    assert done.tables == [None] * len(evidence.parts)
    # What the judge says, who has the trials, in every part.
    monkeypatch.setattr(ModelStudy, "too_few", lambda *_: None)
    after = study_of(stored, twins(many, 9, 5), 45)
    judged, _ = after.judge(cell)
    assert after.runner.ran > 200
    assert (judged.verdict, judged.reason) == (evidence.verdict, evidence.reason)
    for one, other in zip(evidence.parts, judged.parts, strict=True):
        for name in ("verdict", "reason", "level", "estimate", "region"):
            assert one[name] == other[name], name
    assert (judged.pairs, judged.clusters) == (evidence.pairs, evidence.clusters)
    assert check(judged, "enough-pairs") == check(evidence, "enough-pairs")


def test_texts_alone_show_it_where_they_do(stored: LoadedModel, many: Task) -> None:
    study = study_of(stored, many, 9)
    evidence, _ = study.judge(Cell.of(claim(), "cell", HERE))
    assert study.runner.ran == 0
    assert evidence.reason == "enough-pairs: 9 pairs, at least 10 wanted"


def test_the_last_look_counts(stored: LoadedModel, many: Task) -> None:
    """The first look has 7 clusters, which the next may mend; the only one of the second has 7."""
    task = twins(many, 20, 3)
    study = study_of(stored, task, 60)
    mended, _ = study.judge(Cell.of(claim(looks=(20, 60)), "cell", HERE))
    first = mended.multiplicity["looks"]["taken"][0]
    assert (first["pairs"], first["verdict"]) == (20, "invalid")
    assert mended.clusters == 20
    known = study_of(stored, task, 50)
    evidence, _ = known.judge(Cell.of(claim(looks=(20, 60)), "cell", HERE))
    assert known.runner.ran == 0
    assert (evidence.verdict, evidence.pairs, evidence.clusters) == ("invalid", 20, 7)


# --- judged again --------------------------------------------------------------------------


def finished(model: LoadedModel, task: Task, pairs: int, out: Path) -> tuple[ModelStudy, Cell]:
    """A run of one cell in a folder, on a model that brings no task of its own."""
    out.mkdir()
    (out / "task.yaml").write_text(
        yaml.safe_dump(
            {
                "schema": 1,
                **{name: getattr(task, name) for name in ("name", "about", "pairing")},
                "scorer": "lexicon",
                "lexicon": sorted(task.lexicon),
                "sources": [dict(vars_of(prompt)) for prompt in task.sources],
                "bases": [dict(vars_of(prompt)) for prompt in task.bases],
            }
        ),
        encoding="utf-8",
    )
    own = load_task(out / "task.yaml")
    study = study_of(replace(model, name="small", planted=None), own, pairs, out / LEDGER_FOLDER)
    cell = Cell.of(claim(), "cell", HERE)
    one = {**json.loads(to_json(study.judge(cell)[0].__dict__)), "test": "a test"}
    settings = Settings(
        root=out, models=("small",), task=out / "task.yaml", pairs=pairs, out=out, device="cpu"
    )
    write_reports(ClaimsSession(settings, evidence=[one]))
    return study, cell


def vars_of(prompt: Prompt) -> dict[str, str]:
    return {"id": prompt.id, "family": prompt.family, "text": prompt.text}


def again(folder: Path, cell: Cell) -> dict[str, Any]:
    source = ReplayedRun.open(folder, (), lambda _, file: load_task(file or ""), None)
    return dict(plain(source.study("small").judge(cell)[0].__dict__))


@pytest.mark.parametrize("groups", [12, 9])
def test_a_replay_has_the_clusters_of_the_run(
    groups: int, stored: LoadedModel, many: Task, tmp_path: Path
) -> None:
    """It has no model, and so no tokenizer: what it needs is stored with the trials."""
    folder = tmp_path / "run"
    study, cell = finished(stored, twins(many, groups, 3), groups * 3, folder)
    (first,) = load_run(folder).evidence.values()
    second = again(folder, cell)
    assert (first["clusters"], first["verdict"] == "invalid") == (groups, groups == 9)
    assert bool(study.runner.ran) == (groups == 12)
    told = [{c["name"]: c for c in one["checks"]} for one in (first, second)]
    assert told[1].pop("claim-edited")["passed"]
    assert told[0] == told[1]
    for name in ("verdict", "reason", "clusters", "pairs", "estimate", "interval", "scorer"):
        assert first[name] == second[name], name
    assert first["parts"] == second["parts"]


def test_a_comparison_has_the_clusters_of_the_run_that_has_fewer(
    stored: LoadedModel, many: Task, tmp_path: Path
) -> None:
    """Another tokenizer may tell the texts apart; to one of the runs they are repeats."""
    folder = tmp_path / "run"
    finished(stored, twins(many, 12, 3), 36, folder)
    first = load_run(folder)
    apart = replace(
        first,
        trials=first.trials.assign(
            source_tokens_sha=first.trials["source_sha"], base_tokens_sha=first.trials["base_sha"]
        ),
    )
    noise = np.random.default_rng(0).normal(0.0, 3.0, len(first.trials))
    moved = replace(apart, trials=apart.trials.assign(score=apart.trials["score"] + noise))
    for one, other in ((first, moved), (moved, first)):
        (part,) = compare(one, other).cells[0].parts
        assert part.difference is not None
        assert part.difference.clusters == 12
        assert part.pairs == 36
