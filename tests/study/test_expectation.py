"""What a verdict should be on a planted model, and how a verdict stands as a test result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.judging.verdict import judge
from kv_claims.models.load import load_model
from kv_claims.pins.passes import outcome
from kv_claims.planted.catalog import CATALOG, N_HEADS, N_KV_HEADS, N_LAYERS
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import expected_means, true_transfer
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.plan import plan_of
from kv_claims.study.planted_truth import expectation
from kv_claims.study.stated import KnownModel
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.scorers import Published
from kv_claims.tasks.task import Task
from tests.judging.frames import PASSED, Study

SAMPLING = Sampling(max_new_tokens=30)
SIZE = KnownModel("planted", N_LAYERS, N_KV_HEADS, N_HEADS)
EIGHTY = Region(0.70, 0.90)
AT_MOST_12 = Region(high=0.12)


def claim_with(region: Region, *, about_layer: bool = False, margin: float = 0.10) -> Claim:
    return Claim(
        "c",
        says="It transfers.",
        cites="here",
        transfer=region,
        about="layer" if about_layer else None,
        margin=margin,
    )


def task_of(model: str) -> Task:
    return planted_task(CATALOG[model], n_pairs=4)


def expected(
    model: str,
    patch: Patch,
    claim: Claim,
    *,
    task: Task | None = None,
    sampling: Sampling = SAMPLING,
) -> Expectation | None:
    """The expectation of a cell, with the controls that a study would run."""
    of = task or task_of(model)
    plan = plan_of(Cell.of(claim, "cell", patch), SIZE, len(of.pairs))
    return expectation(CATALOG[model], plan.reaching(lengths_of(of)), of, sampling)


def lengths_of(task: Task) -> list[tuple[int, int]]:
    return [(len(p.source.text.split()), len(p.base.text.split())) for p in task.pairs]


# --- expectation ---------------------------------------------------------------------------

CELLS = [
    pytest.param("stored-at-layer", "12", "last(32)", EIGHTY, "supported", id="stored-w32"),
    pytest.param("stored-at-layer", "12", "last(32)", AT_MOST_12, "refuted", id="stored-at-most"),
    pytest.param("stored-at-layer", "12+13", "last(32)", EIGHTY, "supported", id="stored-and-next"),
    pytest.param("stored-at-layer", "12", "last(4)", EIGHTY, "refuted", id="stored-w4"),
    pytest.param("stored-at-layer", "13", "last(32)", EIGHTY, "refuted", id="next-layer"),
    pytest.param("stored-at-layer", "13", "last(32)", AT_MOST_12, "supported", id="next-at-most"),
    pytest.param("stored-at-layer", "9", "all", Region(-0.1, 0.1), "supported", id="none-at-9"),
    pytest.param("early-tokens", "9", "first(25%)", Region(low=0.8), "supported", id="early-first"),
    pytest.param("early-tokens", "9", "last(16)", AT_MOST_12, "supported", id="early-last"),
    pytest.param("early-tokens", "12", "first(25%)", Region(low=0.8), "refuted", id="early-at-12"),
    pytest.param("distributed", "9", "all", AT_MOST_12, "supported", id="distributed-one"),
    pytest.param("distributed", "9", "all", EIGHTY, "refuted", id="distributed-one-80"),
    pytest.param("distributed", "0:15", "all", Region(low=0.8), "supported", id="most-layers"),
]


@pytest.mark.parametrize(("model", "layers", "positions", "region", "word"), CELLS)
def test_the_word_follows_from_where_the_model_keeps_its_behavior(
    model: str, layers: str, positions: str, region: Region, word: str
) -> None:
    patch = Patch("kv", layers, positions)
    found = expected(model, patch, claim_with(region))
    assert found is not None
    assert found.word == word
    truth = true_transfer(CATALOG[model], patch, task_of(model), max_new_tokens=30)
    assert found.transfer == truth
    assert (truth in region) is (word == "supported")


@pytest.mark.parametrize(("model", "layers", "positions", "region", "word"), CELLS)
def test_a_study_without_noise_gets_the_expected_word(
    model: str, layers: str, positions: str, region: Region, word: str
) -> None:
    """The rule that judges and the rule that expects are two: they must say the same."""
    # Most of all layers leave no wrong ones to hold them against.
    claim = claim_with(region, about_layer=layers != "0:15")
    found = expected(model, Patch("kv", layers, positions), claim)
    assert found is not None
    assert found.word == word
    assert found.transfer is not None
    almost = {name: (transfer, 0.02) for name, transfer in found.controls.items()}
    study = Study(found.transfer, noise=0.02, controls=almost)
    verdict = judge(study.frame(), region, margin=claim.margin, checks=PASSED)
    assert verdict.word == word
    assert outcome(verdict.word, verdict.reason, found, strict=True)[0] == "pass"


@pytest.mark.parametrize("site", ["k", "v"])
def test_keys_carry_nothing_and_values_everything(site: str) -> None:
    found = expected("stored-at-layer", Patch(site, "12", "all"), claim_with(Region(low=0.8)))
    assert found is not None
    assert found.word == ("supported" if site == "v" else "refuted")


@pytest.mark.parametrize("region", [EIGHTY, AT_MOST_12], ids=["80", "at-most"])
def test_an_inert_model_has_nothing_to_transfer(region: Region) -> None:
    found = expected("inert", Patch("kv", "12", "all"), claim_with(region))
    assert found is not None
    assert (found.word, found.because, found.transfer) == ("invalid", "no-ceiling", None)
    study = Study(0.5, gap=0.0)
    verdict = judge(study.frame(), region, checks=PASSED)
    assert outcome(verdict.word, verdict.reason, found, strict=False)[0] == "pass"


@pytest.mark.parametrize("model", CATALOG)
def test_a_full_swap_is_never_a_finding(model: str) -> None:
    found = expected(model, Patch("kv", "all", "all"), claim_with(Region(low=0.5)))
    assert found == Expectation("invalid", "full-swap-is-the-donor", None, {})


SHARED = Region(0.2, 0.6)
"""Half of the layers of `distributed`: the other half would do the same."""


def test_layers_that_others_could_replace_are_not_specific() -> None:
    claim = claim_with(SHARED, about_layer=True)
    found = expected("distributed", Patch("kv", "0:8", "all"), claim)
    assert found is not None
    assert (found.word, found.because) == ("invalid", "not specific")
    assert found.transfer in SHARED
    assert found.controls["wrong-layer"] == pytest.approx(found.transfer)
    study = Study(found.transfer or 0.0, noise=0.02, controls=found.controls)
    verdict = judge(study.frame(), SHARED, checks=PASSED)
    assert outcome(verdict.word, verdict.reason, found, strict=False)[0] == "pass"


def test_the_same_layers_are_supported_where_the_claim_is_not_about_them() -> None:
    found = expected("distributed", Patch("kv", "0:8", "all"), claim_with(SHARED))
    assert found is not None
    assert found.word == "supported"
    assert set(found.controls) == {"unrelated-base", "noise"}


def test_a_margin_that_would_let_the_control_do_what_is_claimed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"margin 0\.3 for the region"):
        claim_with(SHARED, about_layer=True, margin=0.3)


def test_controls_do_not_gate_a_region_that_contains_0() -> None:
    claim = claim_with(Region(high=0.6), about_layer=True)
    found = expected("distributed", Patch("kv", "0:8", "all"), claim)
    assert found is not None
    assert found.word == "supported"
    assert found.controls["wrong-layer"] > claim.margin


def test_controls_do_not_rescue_a_refuted_claim() -> None:
    claim = claim_with(Region(low=0.7), about_layer=True)
    found = expected("distributed", Patch("kv", "0:8", "all"), claim)
    assert found is not None
    assert found.word == "refuted"


def test_an_unrelated_base_moves_nothing_and_noise_almost_nothing() -> None:
    found = expected("stored-at-layer", Patch("kv", "12", "all"), claim_with(EIGHTY))
    assert found is not None
    assert found.controls["unrelated-base"] == pytest.approx(0.0, abs=1e-9)
    # Convexity of the logistic; the design wants it below half the margin.
    assert 0 < found.controls["noise"] < 0.05


@pytest.mark.parametrize(
    "sampling", [Sampling(10, 0.7), Sampling(30, 1.5)], ids=["shorter", "hotter"]
)
def test_the_truth_is_that_of_the_runs_own_settings(sampling: Sampling) -> None:
    patch = Patch("kv", "12", "last(32)")
    usual = expected("stored-at-layer", patch, claim_with(EIGHTY))
    other = expected("stored-at-layer", patch, claim_with(EIGHTY), sampling=sampling)
    assert usual is not None
    assert other is not None
    assert other.transfer != pytest.approx(usual.transfer, abs=1e-4)


def test_the_truth_is_that_of_the_population_and_not_of_the_pairs_at_hand() -> None:
    patch, claim = Patch("kv", "12", "last(32)"), claim_with(EIGHTY)
    few, many = (planted_task(CATALOG["stored-at-layer"], n_pairs=n) for n in (2, 40))
    found = [expected("stored-at-layer", patch, claim, task=task) for task in (few, many)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("task", "sampling"),
    [
        pytest.param(
            replace(task_of("stored-at-layer"), scorer=Published()), SAMPLING, id="other-scorer"
        ),
        pytest.param(task_of("stored-at-layer"), Sampling(30, 0.0), id="greedy"),
        pytest.param(task_of("distributed"), SAMPLING, id="another-models-task"),
    ],
)
def test_there_is_no_expectation_where_the_truth_is_not_known(
    task: Task, sampling: Sampling
) -> None:
    patch = Patch("kv", "12", "all")
    found = expected("stored-at-layer", patch, claim_with(EIGHTY), task=task, sampling=sampling)
    assert found is None


def test_an_expectation_as_evidence_says_what_it_rests_on() -> None:
    found = expected("stored-at-layer", Patch("kv", "13", "last(32)"), claim_with(EIGHTY))
    assert found is not None
    assert found.to_dict() == {
        "transfer": 0.0,
        "controls": found.controls,
        "because": "0.0000 is outside [0.7, 0.9]",
        "unless": None,
        "source": "computed from the planted weights, over the population of pairs",
    }


# --- other estimands, conjunctions, premises -------------------------------------------------

LATE = Patch("kv", "13", "last(16)")
READ = Patch("kv", "12", "last(32)")


def word_of(
    claim: Claim, model: str, patches: object = None, versus: object = None
) -> tuple[str, str]:
    """Word of a claim's cell, and how its reason starts."""
    task = task_of(model)
    cell = Cell.of(claim, "cell", patches, versus)  # type: ignore[arg-type]
    plan = plan_of(cell, SIZE, len(task.pairs)).reaching(lengths_of(task))
    found = expectation(CATALOG[model], plan, task, SAMPLING)
    assert found is not None
    return found.word, found.because


def claims(**what: object) -> Claim:
    return Claim("c", says="It is so.", cites="here", **what)  # type: ignore[arg-type]


def test_an_order_is_expected_by_both_arms() -> None:
    more = claims(difference=Region(low=0.10))
    assert word_of(more, "stored-at-layer", READ, LATE)[0] == "supported"
    assert word_of(more, "stored-at-layer", LATE, READ)[0] == "refuted"
    same = claims(difference=Region(-0.10, 0.10))
    assert word_of(same, "stored-at-layer", LATE, Patch("kv", "9", "last(16)"))[0] == "supported"


def test_a_gap_in_geometry_is_expected_from_the_values() -> None:
    lower = claims(gap=Region(high=0.0), outcome="rv")
    assert word_of(lower, "geometry-only")[0] == "supported"
    # Every layer of this one has the same values: R_V is 1 for sources and bases.
    assert word_of(lower, "stored-at-layer") == ("invalid", "degenerate")


def test_a_gap_of_nothing_is_expected_without_spread() -> None:
    """On the same luck sources and bases of this model write the same: no pair has a gap."""
    assert word_of(claims(gap=Region(low=1.0)), "inert") == ("invalid", "degenerate")
    model = load_model("planted:inert", device="cpu")
    runner = Runner(model, planted_task(CATALOG["inert"], 12), Sampling(6), Ledger())
    asked = Cell.of(claims(gap=Region(low=1.0)), "cell")
    evidence, expects = ModelStudy(runner, 12, n_seeds=1).judge(asked)
    assert expects is not None
    assert evidence.reason.startswith(expects.because)
    assert evidence.verdict == expects.word


def test_what_reads_the_pasted_rows_is_expected_invalid() -> None:
    own = claims(transfer=Region(0.9, 1.1), outcome="pr@27/32")
    found = word_of(own, "stored-at-layer", Patch("v_proj", "27/32", "last(16)"))
    assert found[0] == "invalid"
    assert found[1].startswith("measured-where-patched")


def test_a_conjunction_and_a_premise_are_expected_by_their_parts() -> None:
    moves, stays = Part.transfer("rv", Region(low=0.5)), Part.transfer("behavior", AT_MOST_12)
    patch = Patch("residual", "9", "last(16)")
    assert word_of(claims(all_of=(moves, stays)), "geometry-only", patch)[0] == "supported"
    word, because = word_of(claims(all_of=(stays, moves)), "distributed", patch)
    assert word == "invalid"
    assert because == "rv transfer >= 0.5: no-ceiling"
    premise = claims(transfer=AT_MOST_12, given=(Part.transfer("behavior", Region(low=0.5)),))
    assert word_of(premise, "geometry-only", LATE) == ("invalid", "premise: ")


def test_collapse_is_expected_where_a_patch_makes_the_text_repeat() -> None:
    assert word_of(claims(transfer=EIGHTY), "collapse", READ) == ("invalid", "degenerate-text")
    assert word_of(claims(transfer=EIGHTY), "collapse", LATE)[0] == "refuted"


def test_a_foreign_cache_that_does_it_too_is_expected_not_specific() -> None:
    assert word_of(claims(transfer=EIGHTY), "disrupted", READ) == ("invalid", "not specific")


def test_a_shift_is_expected_in_the_outcomes_own_unit() -> None:
    """And where there is nothing to be a share of, too: a model without a gap has a shift of 0."""
    own = expected_means(
        CATALOG["stored-at-layer"], READ, task_of("stored-at-layer"), max_new_tokens=30
    )
    moved = own.patched - own.base
    assert moved > 10
    beside = Region(moved - 5, moved + 5)
    assert word_of(claims(shift=beside, margin=2.0), "stored-at-layer", READ)[0] == "supported"
    assert word_of(claims(shift=Region(high=5.0)), "stored-at-layer", READ)[0] == "refuted"
    nothing = word_of(claims(shift=Region(-1.0, 1.0)), "inert", READ)
    assert nothing == ("invalid", "degenerate")


def test_what_is_carried_is_what_an_unrelated_base_does_not_do() -> None:
    """Of 0.79 of the way any cache goes 0.59: what is left is 0.48 of what was left to go."""
    task = task_of("disrupted")
    truths = [
        expected_means(CATALOG["disrupted"], READ, task, donor=donor, max_new_tokens=30)
        for donor in ("source", "unrelated-base")
    ]
    own, wiped = truths[0].patched, truths[1].patched
    carried = (own - wiped) / (truths[0].source - wiped)
    assert carried == pytest.approx(0.48, abs=0.02)
    beside, at_most = Region(carried - 0.1, carried + 0.1), Region(high=carried + 0.1)
    assert word_of(claims(carried=at_most), "disrupted", READ)[0] == "supported"
    # Noise disrupts more than another base does.
    assert word_of(claims(carried=beside), "disrupted", READ) == ("invalid", "not specific")
    assert word_of(claims(carried=EIGHTY), "disrupted", READ)[0] == "refuted"
    # Where nothing is wiped, all that is transferred is carried.
    assert word_of(claims(carried=EIGHTY), "stored-at-layer", READ)[0] == "supported"
    assert word_of(claims(carried=EIGHTY), "inert", READ) == ("invalid", "no-ceiling")


def test_a_projection_that_follows_from_a_residual_is_expected_idle() -> None:
    """One layer above it always follows; further up it is written, and judged by its effect."""
    for below, word in (("12", "invalid"), ("9", "refuted")):
        both = [Patch("residual", below, "last(16)"), Patch("v_proj", "13", "last(16)")]
        found = word_of(claims(transfer=EIGHTY), "relay", both)
        assert found[0] == word
        assert (found[1] == "hook-never-fired") == (below == "12")


def test_what_follows_within_a_block_is_expected_idle() -> None:
    """Heads give what attention adds; the stream before a block does not give that behind it."""
    claim = claims(transfer=EIGHTY)
    given = [Patch("z", "9", "last(16)"), Patch("attn_out", "9", "last(16)")]
    assert word_of(claim, "through-blocks", given) == ("invalid", "hook-never-fired")
    for other in (
        [Patch("z", "9", "last(16)", heads="0"), Patch("attn_out", "9", "last(16)")],
        [Patch("z", "9", "last(8)"), Patch("attn_out", "9", "last(16)")],
        [Patch("z", "9", "last(16)"), Patch("attn_out", "9", "last(16)", active="every_step")],
        [Patch("resid_pre", "9", "last(16)"), Patch("residual", "9", "last(16)")],
    ):
        assert word_of(claim, "through-blocks", other)[1] != "hook-never-fired"


def test_where_a_controls_truth_is_not_known_it_may_still_speak() -> None:
    claim = claims(transfer=Region(low=0.02), margin=0.02)
    task = task_of("relay")
    cell = Cell.of(claim, "cell", Patch("residual", "9", "last(16)"))
    plan = plan_of(cell, SIZE, len(task.pairs)).reaching(lengths_of(task))
    found = expectation(CATALOG["relay"], plan, task, SAMPLING)
    assert found is not None
    assert (found.word, found.unless) == ("supported", "not specific")
    assert outcome("invalid", "not specific: noise", found, strict=False)[0] == "pass"
    assert outcome("invalid", "self-patch: x; not specific", found, strict=False)[0] == "fail"
    assert outcome("refuted", "transfer lies outside", found, strict=False)[0] == "fail"


# --- outcome -------------------------------------------------------------------------------

NOT_SPECIFIC = Expectation("invalid", "not specific", 0.4, {})
SUPPORTED = Expectation("supported", "0.8 is inside the region", 0.8, {})
REFUTED = Expectation("refuted", "0.1 is outside the region", 0.1, {})
NO_CEILING = Expectation("invalid", "no-ceiling", None, {})
WHY = {
    "supported": "transfer lies inside",
    "refuted": "transfer lies outside",
    "inconclusive": "the interval meets an edge",
    "invalid": "no-ceiling: source - base 0.01",
}


@pytest.mark.parametrize(
    ("word", "expected", "lax", "strict"),
    [
        pytest.param("supported", None, "pass", "pass", id="supported-unexpected"),
        pytest.param("refuted", None, "fail", "fail", id="refuted-unexpected"),
        pytest.param("inconclusive", None, "skip", "fail", id="inconclusive-unexpected"),
        pytest.param("invalid", None, "fail", "fail", id="invalid-unexpected"),
        pytest.param("supported", SUPPORTED, "pass", "pass", id="supported-as-expected"),
        pytest.param("refuted", SUPPORTED, "fail", "fail", id="refuted-not-supported"),
        pytest.param("inconclusive", SUPPORTED, "skip", "fail", id="inconclusive-not-supported"),
        pytest.param("invalid", SUPPORTED, "fail", "fail", id="invalid-not-supported"),
        pytest.param("supported", REFUTED, "fail", "fail", id="supported-not-refuted"),
        pytest.param("refuted", REFUTED, "pass", "pass", id="refuted-as-expected"),
        pytest.param("inconclusive", REFUTED, "skip", "fail", id="inconclusive-not-refuted"),
        pytest.param("invalid", REFUTED, "fail", "fail", id="invalid-not-refuted"),
        pytest.param("supported", NO_CEILING, "fail", "fail", id="supported-not-invalid"),
        pytest.param("refuted", NO_CEILING, "fail", "fail", id="refuted-not-invalid"),
        pytest.param("inconclusive", NO_CEILING, "skip", "fail", id="inconclusive-not-invalid"),
        pytest.param("invalid", NO_CEILING, "pass", "fail", id="invalid-as-expected"),
        pytest.param("invalid", NOT_SPECIFIC, "fail", "fail", id="invalid-for-another-reason"),
    ],
)
def test_how_a_verdict_stands_as_a_test(
    word: str, expected: Expectation | None, lax: str, strict: str
) -> None:
    reason = WHY[word]
    for how, is_strict in ((lax, False), (strict, True)):
        result, why = outcome(word, reason, expected, strict=is_strict)
        assert result == how
        # The word is never left out, and never replaced by another.
        assert why.startswith(word)
        assert reason in why


def test_the_expected_reason_must_come_first() -> None:
    """An instrument that fails beside a missing gap is not the expected invalid."""
    reason = "self-patch: 3 numbers changed; no-ceiling: source - base 0.01"
    assert outcome("invalid", reason, NO_CEILING, strict=False)[0] == "fail"


def test_a_verdict_that_equals_its_expectation_says_so() -> None:
    _, why = outcome("refuted", "transfer lies outside", REFUTED, strict=False)
    assert why == "refuted, as expected: transfer lies outside"


def test_a_verdict_that_does_not_says_what_the_truth_is() -> None:
    _, why = outcome("supported", "transfer lies inside", REFUTED, strict=False)
    assert why == (
        "supported (transfer lies inside), but the truth of the planted model makes it "
        "refuted (0.1 is outside the region)"
    )
