"""Differences and gaps: each word reached, their limits, and scores read downwards.

What transfer does is `test_verdict`'s; here stands what is not the same for the others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kv_claims.claims.claim import ESTIMANDS, SHARES, Estimand, Region
from kv_claims.errors import UsageError
from kv_claims.judging.estimand import NEEDED, NEGATIVE
from kv_claims.judging.verdict import Verdict, Word, judge
from tests.judging.frames import PASSED, Study, noise_for, t_quantile, table, wave

# scipy warns of precision loss where values do not vary: such values must not reach it.
pytestmark = pytest.mark.filterwarnings("error")

SAME = Region(-0.1, 0.1)
ORDER = Region(low=0.0)
JUST = 1e-3
QUIET = {"noise": 0.0, "unrelated-base": 0.0}


def names(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.passed is not None]


def negated(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(score=-frame["score"])


def level_of(verdict: Verdict, level: float) -> tuple[float, float]:
    """The interval at a level, whichever of the two it is."""
    found = verdict.interval if verdict.level == pytest.approx(level) else verdict.interval_other
    assert found is not None
    return found


# --- difference ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "region", "word"),
    [
        pytest.param(Study(0.8, versus=0.3), ORDER, "supported", id="order"),
        pytest.param(Study(0.8, versus=0.3), Region(low=0.3), "supported", id="by-a-minimum"),
        pytest.param(Study(0.3, versus=0.8), ORDER, "refuted", id="order-turned"),
        pytest.param(Study(0.8, versus=0.7), Region(low=0.3), "refuted", id="below-the-minimum"),
        pytest.param(Study(0.4, 2.0, versus=0.35), ORDER, "inconclusive", id="order-wide"),
        pytest.param(Study(0.8, versus=0.3, gap=0.01), ORDER, "invalid", id="order-no-gap"),
        pytest.param(Study(0.8, versus=0.3, n=9), ORDER, "invalid", id="order-nine-pairs"),
        pytest.param(Study(0.8, versus=0.78), SAME, "supported", id="same"),
        pytest.param(Study(0.8, versus=0.3), SAME, "refuted", id="same-but-above"),
        pytest.param(Study(0.3, versus=0.8), SAME, "refuted", id="same-but-below"),
        pytest.param(Study(0.8, 4.0, versus=0.8), SAME, "inconclusive", id="same-wide"),
        pytest.param(Study(0.8, versus=0.78, gap=0.01), SAME, "invalid", id="same-no-gap"),
        pytest.param(Study(0.8, 0.0, versus=0.7), SAME, "invalid", id="same-degenerate"),
    ],
)
def test_the_word_on_a_difference(study: Study, region: Region, word: Word) -> None:
    verdict = judge(study.frame(), region, estimand="difference")
    assert verdict.word == word
    assert set(verdict.means) == {"base", "source", "patched", "versus"}


@pytest.mark.parametrize("n", [10, 40], ids=["n10", "n40"])
def test_sameness_needs_both_one_sided_tests_and_a_lack_of_difference_does_not_do(n: int) -> None:
    """No difference at all, p = 1 against equality: a few pairs show nothing by that."""
    limit = t_quantile(0.95, n)
    for t, word in ((limit * (1 + JUST), "supported"), (limit * (1 - JUST), "inconclusive")):
        study = Study(0.5, noise_for(t, 0.1, n), n=n, versus=0.5)
        contrast = study.arms["patched"] - study.arms["versus"]
        assert stats.ttest_1samp(contrast, 0.0).pvalue > 0.99
        verdict = judge(study.frame(), SAME, estimand="difference")
        assert verdict.word == word
        assert verdict.p_supported == pytest.approx(stats.t.sf(t, n - 1), rel=1e-6)
        if word == "inconclusive":
            assert verdict.pairs_needed is not None
            assert verdict.pairs_needed > n


def test_two_patches_that_change_no_pair_are_the_same_and_it_is_said() -> None:
    study = Study(0.0, noise=0.0, versus=0.0)
    frame = table({**study.arms, "patched": study.base, "versus": study.base})
    verdict = judge(frame, SAME, estimand="difference")
    assert verdict.word == "supported"
    assert verdict.reason == (
        "difference lies inside [-0.1, 0.1] (no pair differs; at level 0.9 at most 7.2% of pairs "
        "do, each by at most source - base: assumed)"
    )


def test_two_patches_that_differ_by_rounding_alone_have_no_order() -> None:
    """0.1 + 0.2 against 0.3: a mean of rounding errors, which need not be 0."""
    study = Study(0.5, noise=1.0)
    versus = study.arms["patched"]
    frame = table({**study.arms, "patched": versus * (1 + 2e-16), "versus": versus})
    verdict = judge(frame, ORDER, estimand="difference")
    assert verdict.word == "invalid"
    assert verdict.reason == (
        "degenerate: patched - versus - edge * (source - base) does not vary at edge 0"
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("region", [Region(0.4, 0.9), ORDER, SAME], ids=str)
def test_the_difference_from_the_base_is_the_transfer(seed: int, region: Region) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 40))
    base, gap = rng.normal(5, 2, n), rng.normal(6, 2, n)
    effect = rng.uniform(-0.2, 1.2) * gap + rng.normal(0, rng.uniform(0.2, 3), n)
    arms = {"base": base, "source": base + gap, "patched": base + effect}
    arms["noise"] = base + rng.normal(0, 0.5, n)
    wanted = judge(table(arms), region, checks=PASSED)
    found = judge(table({**arms, "versus": base}), region, checks=PASSED, estimand="difference")
    assert found.means.pop("versus") == found.means["base"]
    # The spreads name the fourth arm, too.
    bare = {"reason": "", "spreads": (), "estimand": "transfer"}
    assert replace(found, **bare) == replace(wanted, **bare)
    assert found.reason == wanted.reason.replace("transfer lies", "difference lies")


def test_the_estimate_of_a_difference_is_a_share_of_the_gap() -> None:
    verdict = judge(Study(0.8, noise=0.9, versus=0.3).frame(), ORDER, estimand="difference")
    assert verdict.estimate == pytest.approx(0.5)
    assert verdict.reason == "difference lies inside >= 0"
    low, high = level_of(verdict, 0.95)
    assert low < 0.5 < high


def test_pairs_needed_for_a_difference_decide_it() -> None:
    now = judge(Study(0.4, 2.5, n=20, versus=0.3).frame(), ORDER, estimand="difference")
    assert now.word == "inconclusive"
    assert now.pairs_needed is not None
    then = Study(0.4, 2.5, n=now.pairs_needed, versus=0.3)
    assert judge(then.frame(), ORDER, estimand="difference").word == "supported"


# --- difference: controls ------------------------------------------------------------------


@pytest.mark.parametrize("control", [0.5, (0.08, 2.0)], ids=["outside", "undecided"])
def test_controls_do_not_gate_sameness(control: float | tuple[float, float]) -> None:
    frame = Study(0.8, versus=0.78, controls={"noise": control}).frame()
    verdict = judge(frame, SAME, estimand="difference", checks=PASSED)
    assert verdict.word == "supported"
    assert verdict.controls["noise"]["state"] != "inside"


@pytest.mark.parametrize(
    ("study", "word", "reason"),
    [
        pytest.param(Study(0.8, versus=0.3, controls=QUIET), "supported", "diff", id="quiet"),
        pytest.param(
            Study(0.8, versus=0.3, controls={**QUIET, "noise": 0.6}),
            "invalid",
            "not specific: noise moves the outcome by over 0.1",
            id="outside",
        ),
        pytest.param(
            Study(0.8, versus=0.3, controls={**QUIET, "noise": (0.08, 2.0)}),
            "inconclusive",
            "controls undecided: noise",
            id="undecided",
        ),
        # The second patch wrecks the behavior, the first does nothing: nor does noise.
        pytest.param(
            Study(0.0, versus=-0.8, controls=QUIET),
            "inconclusive",
            "controls undecided: unrelated-base, noise may move",
            id="the-second-disrupts",
        ),
        pytest.param(
            Study(-0.05, 0.1, versus=-0.8, controls={"noise": (0.05, 0.1)}),
            "invalid",
            "not specific: noise moves the outcome as far as the patch",
            id="noise-does-better",
        ),
    ],
)
@pytest.mark.parametrize("region", [ORDER, Region(low=0.3)], ids=str)
def test_controls_gate_an_order(study: Study, word: Word, reason: str, region: Region) -> None:
    verdict = judge(study.frame(), region, estimand="difference", checks=PASSED)
    assert verdict.word == word
    assert verdict.reason.startswith(reason)


# --- gap -----------------------------------------------------------------------------------


def gap_study(mean: float, spread: float = 0.3, n: int = 40) -> pd.DataFrame:
    """Source and base alone, whose gap has this mean and spread."""
    base = 1 + 0.2 * wave(3, n)
    return table({"base": base, "source": base + mean + spread * wave(1, n)})


LOWER = Region(high=0.0)


@pytest.mark.parametrize(
    ("frame", "region", "word"),
    [
        pytest.param(gap_study(-0.2), LOWER, "supported", id="lower"),
        pytest.param(gap_study(0.2), LOWER, "refuted", id="higher"),
        pytest.param(gap_study(-0.05), LOWER, "inconclusive", id="wide"),
        pytest.param(gap_study(-0.2, n=9), LOWER, "invalid", id="nine-pairs"),
        pytest.param(gap_study(-0.2, spread=0.0), LOWER, "invalid", id="degenerate"),
        pytest.param(gap_study(0.0, spread=0.1), SAME, "supported", id="same"),
        pytest.param(gap_study(0.5), SAME, "refuted", id="not-same"),
        pytest.param(gap_study(0.0, 1.0), SAME, "inconclusive", id="same-wide"),
        pytest.param(gap_study(40.0), Region(30, 50), "supported", id="in-its-own-unit"),
    ],
)
def test_the_word_on_a_gap(frame: pd.DataFrame, region: Region, word: Word) -> None:
    verdict = judge(frame, region, estimand="gap", checks=PASSED)
    assert verdict.word == word
    assert set(verdict.means) == {"base", "source"}


@pytest.mark.parametrize("n", [10, 40], ids=["n10", "n40"])
@pytest.mark.parametrize("mean", [-0.2, 0.2, 0.01])
def test_a_gap_has_students_interval_and_p(mean: float, n: int) -> None:
    frame = gap_study(mean, n=n)
    verdict = judge(frame, LOWER, estimand="gap")
    wide = frame.pivot_table(index="pair", columns="arm", values="score")
    gap = (wide["source"] - wide["base"]).to_numpy()
    for level in (0.90, 0.95):
        wanted = stats.ttest_1samp(gap, 0.0).confidence_interval(level)
        assert level_of(verdict, level) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    assert verdict.estimate == pytest.approx(mean)
    p = stats.ttest_1samp(gap, 0.0, alternative="less").pvalue
    assert verdict.p_supported == pytest.approx(p, rel=1e-9)


def test_a_gap_needs_no_ceiling_has_no_weak_ratio_and_no_controls() -> None:
    study = Study(0.5, gap=0.01, controls={"noise": 0.9})
    verdict = judge(study.frame(), Region(-1, 1), estimand="gap", checks=PASSED)
    assert verdict.word == "supported"
    assert verdict.controls == {}
    made = [*(check.name for check in PASSED), "enough-pairs", "same-is-not-p>0.05"]
    assert names(verdict) == made
    assert set(verdict.means) == {"base", "source", "patched", "noise"}


def test_a_margin_is_not_read_for_a_gap() -> None:
    assert judge(gap_study(0.06), Region(low=0.01), estimand="gap", margin=0.5).word != "invalid"


def test_a_gap_that_is_rounding_alone_is_degenerate() -> None:
    base = 300 + np.arange(40.0)
    verdict = judge(table({"base": base, "source": base * (1 + 2e-16)}), LOWER, estimand="gap")
    assert verdict.reason == "degenerate: source - base does not vary at edge 0"


def test_pairs_needed_for_a_gap_decide_it() -> None:
    now = judge(gap_study(-0.05), LOWER, estimand="gap")
    assert now.pairs_needed is not None
    assert judge(gap_study(-0.05, n=now.pairs_needed), LOWER, estimand="gap").word == "supported"
    fewer = gap_study(-0.05, n=now.pairs_needed - 1)
    assert judge(fewer, LOWER, estimand="gap").word == "inconclusive"


@pytest.mark.parametrize("mean", [-0.2, 0.2])
def test_the_direction_does_not_turn_a_gap(mean: float) -> None:
    """A gap has a sign of its own: it is what the claim is about."""
    up = judge(gap_study(mean), LOWER, estimand="gap")
    assert judge(gap_study(mean), LOWER, estimand="gap", direction="either") == up
    assert up.word == ("supported" if mean < 0 else "refuted")


# --- direction -----------------------------------------------------------------------------

CASES = [
    pytest.param(Study(0.8), Region(0.7, 0.9), id="supported"),
    pytest.param(Study(0.1), Region(0.7, 0.9), id="refuted"),
    pytest.param(Study(0.72, 2.0), Region(0.7, 0.9), id="inconclusive"),
    pytest.param(Study(0.8, n=9), Region(0.7, 0.9), id="nine-pairs"),
    pytest.param(Study(0.8, gap=0.3), Region(0.7, 0.9), id="no-ceiling"),
    pytest.param(Study(0.7, 0.0), Region(0.7, 0.9), id="degenerate"),
    pytest.param(Study(0.0), Region(high=0.12), id="one-sided"),
    pytest.param(Study(0.8, gap=1, gap_spread=1.2), Region(0.3, 1.3), id="weak-ratio"),
    pytest.param(Study(0.8, controls=QUIET), Region(0.7, 0.9), id="controls-quiet"),
    pytest.param(Study(0.8, controls={"noise": 0.5}), Region(0.7, 0.9), id="control-outside"),
    pytest.param(Study(0.05, controls={"noise": 0.05}), ORDER, id="control-at-edge-0"),
]


@pytest.mark.parametrize(("study", "region"), CASES)
@pytest.mark.parametrize("estimand", ["transfer", "difference"])
def test_scores_turned_upside_down_are_judged_the_same_in_either_direction(
    study: Study, region: Region, estimand: Estimand
) -> None:
    if estimand == "difference":
        study = replace(study, transfer=study.transfer + 0.1, versus=0.1)
    options = {"estimand": estimand, "checks": PASSED}
    wanted = judge(study.frame(), region, direction="either", **options)  # type: ignore[arg-type]
    found = judge(negated(study.frame()), region, direction="either", **options)  # type: ignore[arg-type]
    for field in ("word", "reason", "estimate", "interval", "level", "interval_other"):
        if not (field == "reason" and "no-ceiling" in found.reason):
            assert getattr(found, field) == getattr(wanted, field), field
    assert (found.p_supported, found.p_refuted) == (wanted.p_supported, wanted.p_refuted)
    assert found.pairs_needed == wanted.pairs_needed
    # Means stay as measured, whichever way they were read.
    assert found.means == {arm: -mean for arm, mean in wanted.means.items()}


@pytest.mark.parametrize(("study", "region"), CASES)
def test_a_source_that_lies_above_is_judged_as_with_up(study: Study, region: Region) -> None:
    up = judge(study.frame(), region)
    either = judge(study.frame(), region, direction="either")
    assert (either.word, either.interval, either.p_refuted) == (up.word, up.interval, up.p_refuted)


@pytest.mark.parametrize(("study", "region"), CASES)
@pytest.mark.parametrize("estimand", ["transfer", "difference"])
def test_down_is_up_of_scores_turned_upside_down(
    study: Study, region: Region, estimand: Estimand
) -> None:
    if estimand == "difference":
        study = replace(study, transfer=study.transfer + 0.1, versus=0.1)
    options = {"estimand": estimand, "checks": PASSED}
    up = judge(study.frame(), region, **options)  # type: ignore[arg-type]
    down = judge(negated(study.frame()), region, direction="down", **options)  # type: ignore[arg-type]
    fields = ("word", "estimate", "interval", "level", "interval_other", "p_supported", "p_refuted")
    for field in (*fields, "pairs_needed"):
        assert getattr(down, field) == getattr(up, field), field
    assert down.means == {arm: -mean for arm, mean in up.means.items()}
    # What lies above is nothing to be a share of, and it is said which way it was to lie.
    wrong = judge(study.frame(), region, direction="down", **options)  # type: ignore[arg-type]
    assert wrong.word == "invalid"
    if wrong.reason.startswith("no-ceiling: source - base 6"):
        assert ", which is to fall, one-sided p " in wrong.reason


def test_up_needs_the_source_above_and_either_only_apart() -> None:
    frame = negated(Study(0.8).frame())
    assert judge(frame, Region(0.7, 0.9)).reason.startswith("no-ceiling: source - base -6, one")
    verdict = judge(frame, Region(0.7, 0.9), direction="either")
    assert verdict.word == "supported"
    (ceiling,) = [check for check in verdict.checks if check.name == "no-ceiling"]
    assert ceiling.detail.startswith("source - base -6, two-sided p ")
    assert ceiling.detail.endswith("below 0.01 wanted")


@pytest.mark.parametrize("sign", [1, -1], ids=["above", "below"])
def test_either_is_a_two_sided_test_at_001(sign: int) -> None:
    limit = t_quantile(0.995)
    for t, passed in ((limit * (1 + JUST), True), (limit * (1 - JUST), False)):
        frame = Study(0.1, gap=1.0, gap_spread=40**0.5 / t).frame()
        scored = frame.assign(score=sign * frame["score"])
        verdict = judge(scored, Region(0.7, 0.9), direction="either")
        (ceiling,) = [check for check in verdict.checks if check.name == "no-ceiling"]
        assert ceiling.passed is passed


def test_a_constant_gap_below_passes_in_either_direction() -> None:
    base = 3 + wave(6, 40)
    arms = {"base": base, "source": base - 2, "patched": base - 1.6 + 0.1 * wave(2, 40)}
    assert judge(table(arms), Region(0.7, 0.9)).word == "invalid"
    assert judge(table(arms), Region(0.7, 0.9), direction="either").word == "supported"


def test_crossed_groupings_on_opposite_sides_are_no_gap() -> None:
    """One source with 20 bases lies far below, the other 20 above: no direction is common."""
    n = 40
    gap = np.where(np.arange(n) < 20, -6.0, 6.0) + 0.05 * wave(1, n)
    base = np.full(n, 10.0)
    frame = table(
        {"base": base, "source": base + gap, "patched": base + 0.8 * gap + 0.1 * wave(2, n)},
        source=["s0"] * 20 + [f"s{k}" for k in range(1, 21)],
        base=[f"b{k}" for k in range(1, 21)] + ["b0"] * 20,
    )
    verdict = judge(frame, Region(0.7, 0.9), direction="either")
    assert verdict.word == "invalid"
    assert verdict.reason.startswith("no-ceiling")


# --- carried -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("region", [Region(0.4, 0.9), ORDER, Region(high=0.5)], ids=str)
def test_what_is_carried_is_the_transfer_from_an_unrelated_base(seed: int, region: Region) -> None:
    """The same numbers, wherever the controls do not object."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 40))
    zero, gap = rng.normal(5, 2, n), rng.normal(6, 2, n)
    effect = rng.uniform(-0.2, 1.2) * gap + rng.normal(0, rng.uniform(0.2, 3), n)
    arms = {"source": zero + gap, "patched": zero + effect}
    wanted = judge(table({**arms, "base": zero}), region, checks=PASSED)
    base = zero - rng.normal(4, 1, n)
    found = judge(
        table({**arms, "base": base, "unrelated-base": zero}),
        region,
        checks=PASSED,
        estimand="carried",
    )
    for field in ("word", "estimate", "interval", "interval_other", "p_supported", "p_refuted"):
        assert getattr(found, field) == pytest.approx(getattr(wanted, field)), field


@pytest.mark.parametrize(
    ("controls", "word", "reason"),
    [
        pytest.param({"unrelated-base": 0.5}, "supported", "carried lies inside", id="carried"),
        # Noise that destroys more than another base's cache does carries nothing.
        pytest.param(
            {"unrelated-base": 0.5, "noise": 0.1}, "supported", "carried lies inside", id="destroys"
        ),
        pytest.param(
            {"unrelated-base": 0.5, "noise": 0.9}, "invalid", "not specific: noise", id="noise"
        ),
        pytest.param({"unrelated-base": 0.0}, "refuted", "carried lies outside", id="no-wiping"),
        pytest.param({"unrelated-base": 1.0}, "invalid", "no-ceiling", id="nothing-left"),
    ],
)
def test_the_word_on_what_is_carried(controls: dict[str, float], word: Word, reason: str) -> None:
    """A patched arm at 0.95 of the way, of which wiping alone may go half."""
    verdict = judge(
        Study(0.95, controls=controls).frame(), Region(0.85, 0.93), estimand="carried", margin=0.1
    )
    assert verdict.word == word
    assert verdict.reason.startswith(reason)


def test_a_gap_without_its_whole_is_named() -> None:
    verdict = judge(
        Study(0.9, controls={"unrelated-base": 1.0}).frame(), Region(low=0.5), estimand="carried"
    )
    (failed,) = [check for check in verdict.checks if check.name == "no-ceiling"]
    assert "source - base 6" in failed.detail
    assert "source - unrelated-base" in failed.detail


# --- arms and settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimand", "lacking"),
    [(estimand, arm) for estimand in ESTIMANDS for arm in NEEDED[estimand]],
)
def test_an_arm_that_the_estimand_needs_is_missed(estimand: Estimand, lacking: str) -> None:
    frame = Study(0.8, versus=0.3, controls={"unrelated-base": 0.0}).frame()
    verdict = judge(frame[frame["arm"] != lacking], Region(low=0.3), estimand=estimand)
    assert verdict.word == "invalid"
    assert f"no {lacking} arm was run" in verdict.reason
    ends = lacking in ("base", "source") and estimand in SHARES
    assert verdict.reason.startswith("no-ceiling" if ends else "silent-n")


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_arms_that_the_estimand_does_not_need_may_stand_there(estimand: Estimand) -> None:
    study = Study(0.8, versus=0.3, controls={"unrelated-base": 0.0})
    needed = [*NEEDED[estimand], *NEGATIVE[estimand]]
    frame = study.frame()
    found = judge(frame, Region(low=0.3), estimand=estimand)
    wanted = judge(frame[frame["arm"].isin(needed)], Region(low=0.3), estimand=estimand)
    assert set(found.means) == {"base", "source", "patched", "versus", "unrelated-base"}
    # Means and spreads are of all arms that were run.
    assert replace(found, means={}, spreads=()) == replace(wanted, means={}, spreads=())


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_a_trial_missing_of_any_arm_is_missed(estimand: Estimand) -> None:
    frame = Study(0.8, versus=0.3, controls={"unrelated-base": 0.0}).frame()
    gone = frame.query("arm == 'versus' and pair == 'pair-007'").index
    verdict = judge(frame.drop(gone), Region(low=0.3), estimand=estimand)
    assert verdict.reason.startswith("silent-n: trials are missing: versus: 1 of 40")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"estimand": "ratio"}, "estimand 'ratio', expected one of", id="estimand"),
        pytest.param({"direction": "left"}, "direction 'left', expected one of", id="direction"),
        pytest.param({"alpha": 0.0}, "alpha 0, expected above 0", id="alpha-0"),
        pytest.param({"alpha": 0.5}, "alpha 0.5, expected above 0", id="alpha-half"),
        pytest.param({"alpha_refuted": float("nan")}, "alpha nan", id="alpha-refuted"),
        pytest.param({"margin": 0.9}, "margin 0.9 for the region", id="margin"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        judge(Study(0.8).frame(), Region(0.7, 0.9), **options)  # type: ignore[arg-type]


# --- another error rate for refuting -------------------------------------------------------


@pytest.mark.parametrize("alpha_refuted", [0.05, 0.025, 0.01])
def test_alpha_refuted_sets_the_limit_of_refuting_and_its_level_alone(alpha_refuted: float) -> None:
    limit = t_quantile(1 - alpha_refuted / 2)
    for t, word in ((limit * (1 + JUST), "refuted"), (limit * (1 - JUST), "inconclusive")):
        study = Study(0.7, noise_for(t, 0.05))
        verdict = judge(study.frame(), Region(low=0.75), alpha_refuted=alpha_refuted)
        assert verdict.word == word
        assert verdict.level == pytest.approx(1 - alpha_refuted)
        assert verdict.interval is not None
        assert verdict.interval.disjoint(0.75, np.inf) is (word == "refuted")
    limit = t_quantile(0.95)
    for t, word in ((limit * (1 + JUST), "supported"), (limit * (1 - JUST), "inconclusive")):
        study = Study(0.8, noise_for(t, 0.05))
        verdict = judge(study.frame(), Region(low=0.75), alpha_refuted=alpha_refuted)
        assert verdict.word == word
        assert verdict.level == pytest.approx(0.90 if word == "supported" else 1 - alpha_refuted)


def test_pairs_needed_to_refute_follow_alpha_refuted() -> None:
    study = Study(0.65, noise=2.5, n=20)
    now = judge(study.frame(), Region(0.7, 0.9), alpha_refuted=0.01)
    assert now.pairs_needed is not None
    for n, word in ((now.pairs_needed, "refuted"), (now.pairs_needed - 1, "inconclusive")):
        then = replace(study, n=n).frame()
        assert judge(then, Region(0.7, 0.9), alpha_refuted=0.01).word == word
