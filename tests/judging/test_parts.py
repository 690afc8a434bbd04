"""The truth table of conjunctions and premises, and the error rates that they keep."""

from __future__ import annotations

from itertools import product

import pytest

from kv_claims.claims.claim import Part, Region
from kv_claims.judging.checks import Check
from kv_claims.judging.parts import Combined, Judged, combine, judge_part
from kv_claims.judging.result import Verdict, Word
from tests.judging.frames import PASSED, Study, noise_for, t_quantile

EIGHTY = Region(0.7, 0.9)
GEOMETRY = Part.transfer("pr@27/32", Region(low=0.9))
BEHAVIOR = Part.transfer("behavior", Region(high=0.12))
RV = Part.gap("rv", Region(high=0.0))
PREMISE = Part.transfer("loglik", Region(low=0.5))
SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTED = "supported", "refuted", "inconclusive", "invalid"
BROKEN = "broken"
"""Invalid, as the instrument failed."""
STATES = (SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTED, BROKEN)


def verdict(state: str) -> Verdict:
    """A verdict in a state, with the checks and p-values that go with it."""
    failed = {
        UNTESTED: Check("no-ceiling", False, "no gap"),
        BROKEN: Check("self-patch", False, "it broke"),
    }
    check = failed.get(state)
    word: Word = "invalid" if check else state  # type: ignore[assignment]
    p = {SUPPORTED: (0.01, 1.0), REFUTED: (1.0, 0.002), INCONCLUSIVE: (0.4, 0.6)}.get(state)
    return Verdict(
        word=word,
        reason=f"{check.name}: {check.detail}" if check else f"it is {state}",
        verified=True,
        estimate=None,
        interval=None,
        level=0.95,
        interval_other=None,
        means={},
        pairs=40,
        clusters=40,
        checks=(*PASSED, check) if check else PASSED,
        p_supported=p[0] if p else None,
        p_refuted=p[1] if p else None,
    )


def judged(part: Part, state: str) -> Judged:
    return part, verdict(state)


# --- the truth table -----------------------------------------------------------------------


def expected_of(states: tuple[str, ...]) -> Word:
    """Said another way than the code says it: by what one would have to believe."""
    if BROKEN in states:
        return "invalid"
    if REFUTED in states:
        return "refuted"
    if UNTESTED in states:
        return "invalid"
    return "supported" if set(states) == {SUPPORTED} else "inconclusive"


@pytest.mark.parametrize("states", [*product(STATES, repeat=2)], ids="-".join)
def test_two_parts(states: tuple[str, str]) -> None:
    found = combine([judged(GEOMETRY, states[0]), judged(BEHAVIOR, states[1])])
    assert found.word == expected_of(states)


@pytest.mark.parametrize("states", [*product(STATES, repeat=3)], ids="-".join)
def test_three_parts_in_any_order(states: tuple[str, str, str]) -> None:
    parts = (GEOMETRY, BEHAVIOR, RV)
    found = combine([judged(part, state) for part, state in zip(parts, states, strict=True)])
    assert found.word == expected_of(states)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("premise", STATES)
def test_a_premise_must_be_supported(state: str, premise: str) -> None:
    found = combine([judged(GEOMETRY, state)], [judged(PREMISE, premise)])
    if BROKEN in (state, premise):
        wanted, start = "invalid", "self-patch: it broke"
    elif premise in (REFUTED, UNTESTED):
        wanted, start = "invalid", "premise: loglik transfer >= 0.5: "
    elif premise == INCONCLUSIVE and state != UNTESTED:
        wanted, start = "inconclusive", "premise undecided: loglik transfer >= 0.5: it is inc"
    else:
        wanted, start = verdict(state).word, verdict(state).reason
    assert found.word == wanted
    assert found.reason.startswith(start)


@pytest.mark.parametrize("states", [*product(STATES[:4], repeat=2)], ids="-".join)
def test_every_premise_must_be_supported(states: tuple[str, str]) -> None:
    given = [judged(PREMISE, states[0]), judged(RV, states[1])]
    found = combine([judged(GEOMETRY, SUPPORTED)], given)
    if {REFUTED, UNTESTED} & set(states):
        assert found.word == "invalid"
    elif INCONCLUSIVE in states:
        assert found.word == "inconclusive"
    else:
        assert found.word == "supported"


# --- reasons -------------------------------------------------------------------------------


def test_a_single_part_keeps_its_word_and_reason() -> None:
    for state in STATES:
        one = verdict(state)
        found = combine([(GEOMETRY, one)])
        assert found == Combined(one.word, one.reason, one.p_supported, one.p_refuted)


def test_a_refuted_part_names_itself_and_what_was_not_tested() -> None:
    found = combine([judged(GEOMETRY, UNTESTED), judged(BEHAVIOR, REFUTED)])
    assert found.reason == (
        "behavior transfer <= 0.12: it is refuted "
        "(not tested: pr@27/32 transfer >= 0.9: no-ceiling: no gap)"
    )


def test_only_the_undecided_parts_are_named() -> None:
    found = combine([judged(GEOMETRY, SUPPORTED), judged(BEHAVIOR, INCONCLUSIVE)])
    assert found.reason == "behavior transfer <= 0.12: it is inconclusive"


def test_a_failure_of_the_instrument_is_named_once() -> None:
    """Parts share a run, and list its checks each."""
    found = combine([judged(GEOMETRY, BROKEN), judged(BEHAVIOR, BROKEN)])
    assert found.reason == "self-patch: it broke"


@pytest.mark.parametrize("name", ["control noise", "weak-ratio", "degenerate", "enough-pairs"])
def test_failed_checks_of_statistics_are_none_of_the_instrument(name: str) -> None:
    """A refuted part has them too, such as a control that moves the behavior."""
    check = Check(name, False, "so")
    other = Verdict(**{**verdict(UNTESTED).__dict__, "checks": (*PASSED, check)})
    assert combine([(GEOMETRY, other), judged(BEHAVIOR, REFUTED)]).word == "refuted"


# --- p-values ------------------------------------------------------------------------------


def test_p_values_of_a_conjunction() -> None:
    both = combine([judged(GEOMETRY, SUPPORTED), judged(BEHAVIOR, INCONCLUSIVE)])
    assert both.p_supported == 0.4
    assert both.p_refuted == 1.0
    refuted = combine([judged(GEOMETRY, SUPPORTED), judged(BEHAVIOR, REFUTED)])
    assert (refuted.p_supported, refuted.p_refuted) == (1.0, 0.004)


def test_a_part_that_was_not_tested_is_a_chance_to_err_all_the_same() -> None:
    found = combine([judged(GEOMETRY, UNTESTED), judged(BEHAVIOR, REFUTED)])
    assert (found.p_supported, found.p_refuted) == (None, 0.004)


def test_no_p_value_is_smaller_than_that_of_the_premise() -> None:
    supported = combine([judged(GEOMETRY, SUPPORTED)], [judged(PREMISE, SUPPORTED)])
    assert supported.p_supported == 0.01
    refuted = combine([judged(GEOMETRY, REFUTED)], [judged(PREMISE, SUPPORTED)])
    assert refuted.p_refuted == 0.01
    undecided = combine([judged(GEOMETRY, REFUTED)], [judged(PREMISE, INCONCLUSIVE)])
    assert undecided.p_refuted == 0.4
    untested = combine([judged(GEOMETRY, REFUTED)], [judged(PREMISE, UNTESTED)])
    assert (untested.p_supported, untested.p_refuted) == (None, None)


def test_no_part_is_no_claim() -> None:
    with pytest.raises(ValueError, match="no parts"):
        combine([], [judged(PREMISE, SUPPORTED)])


# --- judged parts --------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3])
def test_one_of_k_parts_is_refuted_at_alpha_over_k_and_supported_at_alpha(of: int) -> None:
    part = Part.transfer("behavior", Region(low=0.75))
    for t, word in (
        (t_quantile(1 - 0.025 / of) * 1.001, "refuted"),
        (t_quantile(1 - 0.025 / of) * 0.999, "inconclusive"),
    ):
        study = Study(0.7, noise_for(t, 0.05))
        assert judge_part(study.frame(), part, of=of).word == word
    for t, word in ((t_quantile(0.95) * 1.001, "supported"), (t_quantile(0.95) * 0.999, "inc")):
        study = Study(0.8, noise_for(t, 0.05))
        assert judge_part(study.frame(), part, of=of).word.startswith(word)


def test_a_part_refuted_without_the_correction_is_not_combined() -> None:
    part = Part.transfer("behavior", Region(low=0.75))
    frame = Study(0.7, noise_for(t_quantile(0.98), 0.05)).frame()
    alone = judge_part(frame, part)
    assert alone.word == "refuted"
    assert combine([(part, alone)]).word == "refuted"
    with pytest.raises(ValueError, match=r"expected at most 0\.025 for one of 2 parts"):
        combine([(part, alone), judged(GEOMETRY, SUPPORTED)])
    of_two = judge_part(frame, part, of=2)
    assert combine([(part, of_two), judged(GEOMETRY, SUPPORTED)]).word == "inconclusive"


def test_judge_part_hands_everything_on() -> None:
    frame = Study(0.8, versus=0.3, controls={"noise": 0.15}).frame()
    turned = frame.assign(score=-frame["score"])
    part = Part.difference("pr", Region(low=0.3))
    found = judge_part(turned, part, margin=0.2, checks=PASSED, direction="either", alpha=0.02)
    assert (found.word, found.verified) == ("supported", True)
    assert found.controls["noise"]["state"] == "inside"
    assert found.level == pytest.approx(0.96)


def dissociation(geometry: Study, behavior: Study) -> Combined:
    """'The geometry transfers and the behavior does not', on tables of both outcomes."""
    pairs = [(GEOMETRY, geometry, "either"), (BEHAVIOR, behavior, "up")]
    return combine(
        [
            (part, judge_part(study.frame(), part, of=2, checks=PASSED, direction=direction))  # type: ignore[arg-type]
            for part, study, direction in pairs
        ]
    )


@pytest.mark.parametrize(
    ("geometry", "behavior", "word"),
    [
        pytest.param(Study(1.0, gap=-4), Study(0.0), "supported", id="dissociate"),
        pytest.param(Study(1.0, gap=-4), Study(0.8), "refuted", id="both-transfer"),
        pytest.param(Study(0.1, gap=-4), Study(0.0), "refuted", id="neither-transfers"),
        pytest.param(Study(1.0, 2.0, gap=-4), Study(0.0), "inconclusive", id="geometry-wide"),
        pytest.param(Study(1.0, gap=-4), Study(0.0, gap=0.01), "invalid", id="no-behavior"),
        pytest.param(Study(0.1, gap=-4), Study(0.0, gap=0.01), "refuted", id="no-geometry-either"),
    ],
)
def test_a_dissociation(geometry: Study, behavior: Study, word: Word) -> None:
    assert dissociation(geometry, behavior).word == word
