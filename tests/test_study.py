"""A study on a ledger that holds more, or other, trials than it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cell import Cell
from harness.claim import Claim, Region
from harness.evidence import Evidence
from harness.models.load import LoadedModel
from harness.models.rotary import Rotation
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.spec import Patch
from harness.study import ModelStudy
from harness.tasks.scorers import Lexicon
from harness.tasks.task import Prompt, Task

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
    assert (few.verdict, more.verdict) == ("supported", "supported")
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
    assert fresh.verdict == "supported"
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


@pytest.mark.parametrize(
    ("layers", "positions"),
    [("all", "all"), ("0:16", "first(100%)"), ("all", "last(15)")],
    ids=["all", "percent", "last"],
)
def test_the_full_swap_is_no_finding_however_it_is_spelled(
    stored: LoadedModel, layers: str, positions: str
) -> None:
    study = ModelStudy(Runner(stored, alike(12), Sampling(4), Ledger()), 12, n_seeds=1)
    evidence, _ = study.judge(Cell.of(CLAIM, "cell", Patch("kv", layers, positions)))
    assert evidence.verdict == "invalid"
    assert evidence.reason.startswith("full-swap-is-the-donor")


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


def test_a_wrong_layer_that_cannot_be_had_is_said(stored: LoadedModel, stored_task: Task) -> None:
    claim = Claim("c", says="s", cites="c", transfer=Region(0.7, 0.9), about="layer")
    study = ModelStudy(Runner(stored, stored_task, Sampling(8), Ledger()), 12, n_seeds=1)
    evidence, _ = study.judge(Cell.of(claim, "cell", Patch("kv", "4:13", "last(32)")))
    found = next(c for c in evidence.checks if c["name"] == "control wrong-layer")
    assert found["passed"] is None
    assert not evidence.verified


def test_evidence_has_the_layers_as_claimed_and_as_resolved(
    stored: LoadedModel, stored_task: Task
) -> None:
    study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    evidence, _ = study.judge(Cell.of(CLAIM, "cell", Patch("kv", "25/32", "last(16)")))
    assert (evidence.patch["layers"], evidence.patch["resolved_layers"]) == ("25/32", [12])
