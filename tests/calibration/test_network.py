"""Calibration by the network: whole studies, with every check of the instrument."""

from __future__ import annotations

import numpy as np
import pytest

from kv_claims.calibration import network
from kv_claims.calibration.network import PAIRS, PATCH, TOKENS, WIDTH, network_row, one_study
from kv_claims.claims.claim import Claim, Region
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging.checks import INSTRUMENT_CHECKS
from kv_claims.models.load import LoadedModel
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import true_transfer

STUDIES = 3


@pytest.fixture(scope="module")
def seen() -> tuple[network.Row, list[Evidence]]:
    """A row of three studies, and the evidence of each."""
    kept: list[Evidence] = []
    whole = network.one_study

    def watched(*arguments: object) -> Evidence:
        kept.append(whole(*arguments))  # type: ignore[arg-type]
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "one_study", watched)
        row = network_row(np.random.default_rng(1), STUDIES)
    return row, kept


def test_no_check_of_the_instrument_fails(seen: tuple[network.Row, list[Evidence]]) -> None:
    row, evidence = seen
    assert row.studies == len(evidence) == STUDIES
    assert row.counts["instrument failed"] == 0
    assert row.shortfalls == []
    for one in evidence:
        made = {check["name"]: check["passed"] for check in one.checks}
        assert {name: made[name] for name in INSTRUMENT_CHECKS} == dict.fromkeys(
            INSTRUMENT_CHECKS, True
        )
        assert one.pairs == PAIRS


def test_a_row_counts_its_studies(seen: tuple[network.Row, list[Evidence]]) -> None:
    row, evidence = seen
    truth = float(row.facts["truth"])
    covered = 0
    for one in evidence:
        at_95 = one.interval if one.level == 0.95 else one.interval_other
        covered += at_95 is None or at_95[0] <= truth <= at_95[1]
    assert row.counts["covered"] == covered
    for word in ("supported", "refuted", "invalid"):
        assert row.counts[f"{word} at low edge"] == sum(one.verdict == word for one in evidence)


def test_studies_are_of_pairs_of_their_own(seen: tuple[network.Row, list[Evidence]]) -> None:
    _, evidence = seen
    assert len({one.means["patched"] for one in evidence}) == STUDIES


def test_the_same_pairs_give_the_same_scores(stored: LoadedModel) -> None:
    """And those of other pairs differ, on the model of the calibration."""
    assert stored.planted is not None
    task = planted_task(stored.planted, 1)
    truth = true_transfer(stored.planted, PATCH, task, max_new_tokens=TOKENS)
    claim = Claim("c", says="It is.", cites="here", transfer=Region(truth, truth + WIDTH))
    first, again, other = (one_study(stored, claim, start) for start in (10_000, 10_000, 10_016))
    assert first.means == again.means
    assert first.interval == again.interval
    assert first.verdict == again.verdict
    assert first.means != other.means


@pytest.mark.parametrize(
    ("reason", "by_instrument"),
    [
        ("no-ceiling: source - base 0.1", False),
        ("not specific: noise moves the outcome by over 0.1", False),
        ("degenerate: patched - base does not vary", False),
        ("degenerate-text: base: 3 of 16", True),
        ("self-patch: 1 of 16 rows differ", True),
        ("enough-pairs: 9 pairs, at least 10 wanted", True),
    ],
)
def test_what_counts_as_a_failed_instrument(reason: str, by_instrument: bool) -> None:
    class Told:
        def __init__(self) -> None:
            self.reason = reason

    assert network._by_instrument(Told()) is by_instrument  # type: ignore[arg-type]
