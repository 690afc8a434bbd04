"""Claims on what a task's own pattern or choice counts: judged as a lexicon's are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.words import MARKERS
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.patterns import Pattern
from kv_claims.tasks.scorers import Scorer
from tests.planted.test_planted_answers import model

NAME, PAIRS = "stored-at-layer", 40
SOME = "|".join(MARKERS[:30])
SCORERS: dict[str, Scorer] = {
    "presence": Pattern(rf"\b(?:{SOME})\b"),
    "rate": Pattern(SOME, "i", "rate"),
}


@pytest.mark.parametrize(
    ("scorer", "asserted"),
    [
        ("presence", {"rate": Region(0.2, 1.0), "margin": 0.2}),
        ("rate", {"transfer": Region(0.3, 1.2)}),
        ("presence", {"shift": Region(high=0.0), "margin": 0.1}),
    ],
)
def test_a_pattern_is_judged(scorer: str, asserted: dict[str, object]) -> None:
    task = replace(
        planted_task(CATALOG[NAME], n_pairs=PAIRS), scorer=SCORERS[scorer], lexicon=frozenset()
    )
    study = ModelStudy(Runner(model(NAME), task, Sampling(8), Ledger()), PAIRS, n_seeds=1)
    claim = Claim("c", says="s", cites="c", **asserted)  # type: ignore[arg-type]
    evidence, expected = study.judge(Cell.of(claim, "cell", Patch("kv", "12", "last(30)")))
    assert expected is None  # the truth is known of the lexicon alone
    assert evidence.verdict == ("refuted" if "shift" in asserted else "supported"), evidence.reason
    assert evidence.scorer["name"] == SCORERS[scorer].name
    counted = next(one for one in evidence.checks if one["name"] == "substring-markers")
    assert "says itself" in str(counted["detail"])
    texts = {(t.arm, t.pair): t.text for t in study.runner.ledger.trials()}
    own = SCORERS[scorer]
    patched = evidence.arms["patched"]
    mean = sum(own(text) for (arm, _), text in texts.items() if arm == patched) / PAIRS
    assert evidence.means["patched"] == pytest.approx(mean)
