"""The four words, each reached by a study whose truth is known, and the order they come in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.errors import UsageError
from kv_claims.judging.checks import CONTROLS, INSTRUMENT_CHECKS, Check
from kv_claims.judging.contrast import edge_tests
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.frame import groupings
from kv_claims.judging.verdict import Verdict, Word, judge
from tests.judging.frames import PASSED, Study, fieller, noise_for, t_quantile, table, wave

# scipy warns of precision loss where values do not vary: such values must not reach it.
pytestmark = pytest.mark.filterwarnings("error")

EIGHTY = Region(0.70, 0.90)
AT_MOST_12 = Region(high=0.12)
JUST = 1e-3
"""How far on either side of a limit a t statistic is put."""


def check_of(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


# --- the contrasts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "region", "word"),
    [
        pytest.param(Study(0.80), EIGHTY, "supported", id="inside"),
        pytest.param(Study(0.10), EIGHTY, "refuted", id="below"),
        pytest.param(Study(1.20), EIGHTY, "refuted", id="above"),
        pytest.param(Study(-0.5), EIGHTY, "refuted", id="negative"),
        pytest.param(Study(0.72, noise=2), EIGHTY, "inconclusive", id="inside-but-wide"),
        pytest.param(Study(0.68, noise=2), EIGHTY, "inconclusive", id="outside-but-wide"),
        pytest.param(Study(0.90), EIGHTY, "inconclusive", id="on-the-edge"),
        pytest.param(Study(0.0), AT_MOST_12, "supported", id="at-most-nothing"),
        pytest.param(Study(-0.4), AT_MOST_12, "supported", id="at-most-negative"),
        pytest.param(Study(0.3), AT_MOST_12, "refuted", id="at-most-above"),
        pytest.param(Study(0.11, noise=2), AT_MOST_12, "inconclusive", id="at-most-wide"),
        pytest.param(Study(2.0), Region(low=0.5), "supported", id="at-least-more-than-source"),
        pytest.param(Study(0.4), Region(low=0.5), "refuted", id="at-least-below"),
        pytest.param(Study(0.02), Region(-0.1, 0.1), "supported", id="no-transfer"),
        pytest.param(Study(0.8, gap=0.01), EIGHTY, "invalid", id="no-gap"),
        pytest.param(Study(0.8, n=9), EIGHTY, "invalid", id="nine-pairs"),
    ],
)
def test_the_word(study: Study, region: Region, word: Word) -> None:
    verdict = judge(study.frame(), region)
    assert verdict.word == word
    assert verdict.pairs == verdict.clusters == study.n


@pytest.mark.parametrize("n", [10, 40], ids=["n10", "n40"])
@pytest.mark.parametrize(
    ("transfer", "region"),
    [
        pytest.param(0.80, Region(0.75, 3.0), id="low-edge"),
        pytest.param(0.80, Region(-3.0, 0.85), id="high-edge"),
        pytest.param(0.80, Region(low=0.75), id="at-least"),
        pytest.param(0.80, Region(high=0.85), id="at-most"),
    ],
)
def test_supported_is_a_one_sided_t_test_at_005(transfer: float, region: Region, n: int) -> None:
    limit = t_quantile(0.95, n)
    for t, word in ((limit * (1 + JUST), "supported"), (limit * (1 - JUST), "inconclusive")):
        verdict = judge(Study(transfer, noise_for(t, 0.05, n), n=n).frame(), region)
        assert verdict.word == word
        assert verdict.p_supported == pytest.approx(stats.t.sf(t, n - 1), rel=1e-6)


@pytest.mark.parametrize("n", [10, 40], ids=["n10", "n40"])
@pytest.mark.parametrize(
    ("transfer", "region"),
    [
        pytest.param(0.65, Region(0.7, 3.0), id="below-low"),
        pytest.param(0.95, Region(-3.0, 0.9), id="above-high"),
        pytest.param(0.65, Region(low=0.7), id="below-at-least"),
        pytest.param(0.17, AT_MOST_12, id="above-at-most"),
    ],
)
def test_refuted_is_a_one_sided_t_test_at_0025(transfer: float, region: Region, n: int) -> None:
    limit = t_quantile(0.975, n)
    for t, word in ((limit * (1 + JUST), "refuted"), (limit * (1 - JUST), "inconclusive")):
        verdict = judge(Study(transfer, noise_for(t, 0.05, n), n=n).frame(), region)
        assert verdict.word == word
        assert verdict.p_refuted == pytest.approx(2 * stats.t.sf(t, n - 1), rel=1e-6)


def test_supported_needs_every_edge() -> None:
    """Near the upper edge, far from the lower one."""
    study = Study(0.88, noise=noise_for(t_quantile(0.95) * 0.9, 0.02))
    assert judge(study.frame(), Region(0.1, 0.9)).word == "inconclusive"
    assert judge(study.frame(), Region(low=0.1)).word == "supported"


@pytest.mark.parametrize("alpha", [0.05, 0.02, 0.01], ids=lambda a: f"alpha={a}")
def test_alpha_sets_both_limits_and_both_levels(alpha: float) -> None:
    limit = t_quantile(1 - alpha)
    for t, word in ((limit * (1 + JUST), "supported"), (limit * (1 - JUST), "inconclusive")):
        verdict = judge(Study(0.8, noise_for(t, 0.05)).frame(), Region(low=0.75), alpha=alpha)
        assert verdict.word == word
        assert verdict.level == pytest.approx(1 - (2 if word == "supported" else 1) * alpha)
    for t, word in (
        (t_quantile(1 - alpha / 2) * (1 + JUST), "refuted"),
        (t_quantile(1 - alpha / 2) * (1 - JUST), "inconclusive"),
    ):
        verdict = judge(Study(0.7, noise_for(t, 0.05)).frame(), Region(low=0.75), alpha=alpha)
        assert verdict.word == word


def test_the_numbers_that_stand_beside_the_word() -> None:
    study = Study(0.8, noise=0.9)
    verdict = judge(study.frame(), EIGHTY)
    assert verdict.word == "supported"
    assert verdict.reason == "transfer lies inside [0.7, 0.9]"
    assert verdict.estimate == pytest.approx(0.8)
    assert verdict.means == pytest.approx({"base": 10.0, "source": 16.0, "patched": 14.8})
    assert verdict.pairs_needed is None
    assert verdict.controls == {}
    assert judge(Study(0.1).frame(), EIGHTY).reason == "transfer lies outside [0.7, 0.9]"


def test_the_estimate_is_a_ratio_of_means_and_not_a_mean_of_ratios() -> None:
    gap = np.array([1.0, 11.0] * 10)
    effect = np.array([1.0, 5.0] * 10) + 0.01 * wave(3, 20)
    base = np.full(20, 2.0)
    arms = {"base": base, "source": base + gap, "patched": base + effect}
    assert judge(table(arms), Region(low=0.3)).estimate == pytest.approx(6 / 12)


# --- the picture and the word --------------------------------------------------------------


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(EIGHTY, id="two-edges"),
        pytest.param(Region(low=0.7), id="at-least"),
        pytest.param(Region(high=0.9), id="at-most"),
    ],
)
def test_word_and_interval_agree(region: Region) -> None:
    """Supported iff the 90% interval is inside; refuted iff the 95% interval is outside."""
    rng = np.random.default_rng(20260101)
    seen: set[str] = set()
    for _ in range(80):
        n = int(rng.integers(10, 40))
        base = rng.normal(5, 2, n)
        gap = rng.normal(6, 2, n)
        effect = rng.uniform(0.4, 1.2) * gap + rng.normal(0, rng.uniform(0.2, 3), n)
        frame = table({"base": base, "source": base + gap, "patched": base + effect})
        verdict = judge(frame, region)
        seen.add(verdict.word)
        at_90, at_95 = fieller(effect, gap, 0.90), fieller(effect, gap, 0.95)
        assert at_90 is not None
        assert at_95 is not None
        inside = region.low < at_90.low and at_90.high < region.high
        assert (verdict.word == "supported") is inside
        assert (verdict.word == "refuted") is at_95.disjoint(region.low, region.high)
        shown, other = (at_90, at_95) if inside else (at_95, at_90)
        assert verdict.level == pytest.approx(0.90 if inside else 0.95)
        assert verdict.interval == pytest.approx(shown)
        assert verdict.interval_other == pytest.approx(other)
        assert verdict.interval is not None
        assert verdict.estimate is not None
        assert verdict.interval.low <= verdict.estimate <= verdict.interval.high
    assert seen == {"supported", "refuted", "inconclusive"}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6], ids=["milli", "one", "mega"])
@pytest.mark.parametrize(
    ("transfer", "noise"),
    [
        pytest.param(0.8, 0.3, id="supported"),
        pytest.param(0.1, 0.3, id="refuted"),
        pytest.param(0.7, 2.0, id="inconclusive"),
        pytest.param(0.7, 0.0, id="degenerate"),
    ],
)
def test_the_unit_of_the_score_does_not_matter(transfer: float, noise: float, scale: float) -> None:
    frame = Study(transfer, noise).frame()
    wanted = judge(frame, EIGHTY)
    found = judge(frame.assign(score=scale * frame["score"]), EIGHTY)
    assert (found.word, found.pairs_needed) == (wanted.word, wanted.pairs_needed)
    assert found.interval == pytest.approx(wanted.interval, abs=1e-6)


def test_the_level_of_the_score_does_not_matter() -> None:
    frame = Study(0.8, noise=1.0).frame()
    wanted = judge(frame, EIGHTY)
    found = judge(frame.assign(score=frame["score"] - 1000), EIGHTY)
    assert found.word == wanted.word
    assert found.interval == pytest.approx(wanted.interval, rel=1e-9)


# --- the assay: enough pairs, a gap --------------------------------------------------------


@pytest.mark.parametrize(("n", "enough"), [(9, False), (10, True)], ids=["n9", "n10"])
def test_fewer_than_ten_pairs_are_invalid(n: int, enough: bool) -> None:
    verdict = judge(Study(0.8, n=n).frame(seeds=range(5), jitter=0.1), EIGHTY)
    assert verdict.word == ("supported" if enough else "invalid")
    assert check_of(verdict, "enough-pairs") == Check(
        "enough-pairs", enough, f"{n} pairs, at least 10 wanted"
    )
    if not enough:
        assert verdict.reason == f"enough-pairs: {n} pairs, at least 10 wanted"
        assert verdict.estimate is None
        assert verdict.interval is None
        assert verdict.means == pytest.approx({"base": 10, "source": 16, "patched": 14.8})


@pytest.mark.parametrize("n", [10, 40], ids=["n10", "n40"])
def test_the_ceiling_is_a_one_sided_t_test_at_0005(n: int) -> None:
    limit = t_quantile(0.995, n)
    for t, passed in ((limit * (1 + JUST), True), (limit * (1 - JUST), False)):
        study = Study(0.1, n=n, gap=1.0, gap_spread=n**0.5 / t)
        verdict = judge(study.frame(), EIGHTY)
        assert check_of(verdict, "no-ceiling").passed is passed
        assert (verdict.word == "invalid") is not passed


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(0.2 + 4 * wave(1, 40), id="noise-only"),
        pytest.param(-6 + wave(1, 40), id="source-below-base"),
        pytest.param(np.zeros(40), id="source-is-base"),
        pytest.param(np.full(40, -2.0), id="constant-below"),
    ],
)
def test_no_gap_is_invalid_and_shows_no_ratio(gap: np.ndarray) -> None:
    base = np.full(40, 3.0)
    arms = {"base": base, "source": base + gap, "patched": base + 0.8 * gap + wave(2, 40)}
    verdict = judge(table(arms), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason.startswith("no-ceiling: source - base ")
    assert verdict.estimate is None
    assert verdict.interval is None
    assert verdict.interval_other is None
    assert verdict.means["base"] == 3.0


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(np.full(40, 3.0), id="exactly"),
        # 3.1 + 5.2 - 3.1 and the like: 5.2 up to its last bits.
        pytest.param(3 + 0.1 * np.arange(40), id="but-rounding"),
    ],
)
def test_a_gap_that_is_the_same_in_every_pair_is_a_gap(base: np.ndarray) -> None:
    """By its sign alone, before scipy is asked, which would warn of precision loss."""
    arms = {"base": base, "source": base + 5.2, "patched": base + 0.8 * 5.2 + 0.1 * wave(2, 40)}
    assert judge(table(arms), EIGHTY).word == "supported"


# --- the weak ratio ------------------------------------------------------------------------


def weak_study(g: float, transfer: float, *, n: int = 40) -> Study:
    """A study whose Fieller's g at 95% is this, and whose effect follows the gap closely."""
    t_of_gap = t_quantile(0.975, n) / g**0.5
    return Study(transfer, noise=0.01, n=n, gap=1.0, gap_spread=n**0.5 / t_of_gap)


@pytest.mark.parametrize(
    ("g", "word"),
    [
        pytest.param(0.0999, "supported", id="just-below"),
        pytest.param(0.1001, "inconclusive", id="just-above"),
        pytest.param(0.3812, "inconclusive", id="far-above"),
    ],
)
def test_a_weak_ratio_makes_supported_inconclusive(g: float, word: Word) -> None:
    verdict = judge(weak_study(g, 0.8).frame(), Region(0.3, 1.3))
    assert verdict.word == word
    assert check_of(verdict, "weak-ratio").passed is (word == "supported")
    if word == "inconclusive":
        # g falls as 1/n: so many pairs bring it to 0.1.
        assert verdict.pairs_needed == math.ceil(40 * g / 0.1)
        assert verdict.reason.startswith("weak ratio: g = ")
        assert verdict.level == 0.95


@pytest.mark.parametrize("g", [0.2, 0.5], ids=lambda g: f"g={g}")
def test_a_weak_ratio_leaves_refuted(g: float) -> None:
    verdict = judge(weak_study(g, 0.1).frame(), EIGHTY)
    assert verdict.word == "refuted"
    assert check_of(verdict, "weak-ratio").passed is False


def test_refuted_does_not_stay_where_the_ratio_is_not_identified() -> None:
    """At a small alpha g can be 1 and above though the gap passes at 0.005 one-sided."""
    n, alpha = 12, 0.001
    t_of_gap = (t_quantile(0.995, n) + t_quantile(1 - alpha / 2, n)) / 2
    swing = n**0.5 / t_of_gap * wave(1, n)
    base, gap = 5 + 0.1 * wave(6, n), 1 + swing
    # The effect follows the swings of the gap, so that A - 0.7 D is about -2.2 in every pair.
    effect = -1.5 + 0.7 * swing + 0.05 * wave(2, n)
    assert edge_tests(Contrast(effect, gap, np.abs(effect)), EIGHTY).p_refuted <= alpha
    assert fieller(effect, gap, 1 - alpha) is None
    frame = table({"base": base, "source": base + gap, "patched": base + effect})
    verdict = judge(frame, EIGHTY, alpha=alpha)
    assert check_of(verdict, "no-ceiling").passed is True
    assert verdict.word == "inconclusive"


# --- pairs that would decide ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("transfer", "word"), [(0.75, "supported"), (0.65, "refuted")], ids=["inside", "outside"]
)
def test_inconclusive_says_how_many_pairs_would_decide(transfer: float, word: Word) -> None:
    now = judge(Study(transfer, noise=2.5, n=20).frame(), EIGHTY)
    assert now.word == "inconclusive"
    assert now.pairs_needed is not None
    assert f"about {now.pairs_needed} pairs would decide" in now.reason
    then = judge(Study(transfer, noise=2.5, n=now.pairs_needed).frame(), EIGHTY)
    assert then.word == word
    before = judge(Study(transfer, noise=2.5, n=now.pairs_needed - 1).frame(), EIGHTY)
    assert before.word == "inconclusive"


def test_at_the_edge_no_number_of_pairs_would_decide() -> None:
    base, gap = np.full(20, 1.0), np.array([4.0, 8.0] * 10)
    effect = 0.75 * gap + np.array([1.0, 1.0, -1.0, -1.0] * 5)
    frame = table({"base": base, "source": base + gap, "patched": base + effect})
    verdict = judge(frame, Region(low=0.75))
    assert verdict.word == "inconclusive"
    assert verdict.pairs_needed is None
    assert "no number of pairs would decide" in verdict.reason


# --- no spread -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transfer", "region", "edge"),
    [
        pytest.param(0.7, EIGHTY, "0.7", id="low-edge"),
        pytest.param(0.9, EIGHTY, "0.9", id="high-edge"),
        pytest.param(0.12, AT_MOST_12, "0.12", id="one-sided"),
        pytest.param(0.0, Region(low=0.0), "0", id="nothing-changed-and-edge-0"),
    ],
)
def test_no_spread_at_an_edge_is_degenerate(transfer: float, region: Region, edge: str) -> None:
    verdict = judge(Study(transfer, noise=0.0).frame(), region)
    assert verdict.word == "invalid"
    assert verdict.reason == (
        f"degenerate: patched - base - edge * (source - base) does not vary at edge {edge}"
    )
    # What does not vary would have an interval without width: certainty out of nothing.
    assert verdict.estimate is verdict.interval is verdict.interval_other is None
    assert verdict.means["patched"] == pytest.approx(10 + transfer * 6)
    assert verdict.p_supported is None


@pytest.mark.parametrize(
    ("region", "word"),
    [
        pytest.param(AT_MOST_12, "supported", id="at-most"),
        pytest.param(Region(-0.1, 0.1), "supported", id="around-0"),
        pytest.param(EIGHTY, "refuted", id="80"),
    ],
)
def test_a_patch_that_changed_no_pair_is_judged_and_said(region: Region, word: Word) -> None:
    study = Study(0.0, noise=0.0)
    frame = table({**study.arms, "patched": study.base})
    verdict = judge(frame, region)
    assert verdict.word == word
    # A share of which 40 draws show nothing, at one-sided 0.05 and 0.025.
    most, level = {"supported": ("7.2%", "0.9"), "refuted": ("8.8%", "0.95")}[word]
    assert verdict.reason.endswith(
        f"(no pair changed; at level {level} at most {most} of pairs do, each by at most "
        "source - base: assumed)"
    )
    assert verdict.estimate == 0.0
    exact = stats.binomtest(0, 40).proportion_ci(verdict.level, "exact").high
    assert verdict.interval == pytest.approx((-exact, exact))


def test_no_pair_changed_is_said_only_then() -> None:
    study = Study(0.0, noise=1.0)
    changed = study.base + np.where(np.arange(40) < 5, 0.1, 0.0)
    frame = table({**study.arms, "patched": changed})
    assert "no pair changed" not in judge(frame, AT_MOST_12).reason


# --- negative controls ---------------------------------------------------------------------

QUIET = dict.fromkeys(CONTROLS, 0.0)


def with_controls(transfer: float = 0.8, **changed: float | tuple[float, float]) -> pd.DataFrame:
    """All three controls at no transfer, but for those given (`_` for `-` in the names)."""
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    return Study(transfer, controls={**QUIET, **named}).frame()


WIDE = (0.08, 2.0)
"""A control whose interval meets the edge of the margin."""


def test_controls_inside_the_margin_leave_the_claim_supported() -> None:
    verdict = judge(with_controls(), EIGHTY, checks=PASSED)
    assert verdict.word == "supported"
    assert list(verdict.controls) == list(CONTROLS)
    for name, found in verdict.controls.items():
        assert found["state"] == "inside"
        assert found["transfer"] == pytest.approx(0.0, abs=1e-12)
        assert found["mean"] == pytest.approx(10.0)
        assert check_of(verdict, f"control {name}").passed is True


@pytest.mark.parametrize("transfer", [0.5, -0.5], ids=["up", "down"])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_outside_the_margin_is_invalid_not_specific(name: str, transfer: float) -> None:
    frame = Study(0.8, controls={**QUIET, name: transfer}).frame()
    verdict = judge(frame, EIGHTY, checks=PASSED)
    assert verdict.word == "invalid"
    assert verdict.reason == f"not specific: {name} moves the outcome by over 0.1"
    assert verdict.controls[name]["state"] == "outside"
    assert check_of(verdict, f"control {name}").passed is False
    # The finding itself stays in view: it is its meaning that is in doubt.
    assert verdict.estimate == pytest.approx(0.8)
    assert verdict.interval is not None
    assert verdict.level == 0.95


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_that_is_undecided_is_inconclusive(name: str) -> None:
    frame = Study(0.8, controls={**QUIET, name: WIDE}).frame()
    verdict = judge(frame, EIGHTY, checks=PASSED)
    assert verdict.word == "inconclusive"
    assert verdict.pairs_needed is not None
    assert verdict.reason == (
        f"controls undecided: {name}; a fresh study of about {verdict.pairs_needed} pairs would "
        "decide"
    )
    assert verdict.controls[name]["state"] == "undecided"
    assert check_of(verdict, f"control {name}").passed is False


@pytest.mark.parametrize("state", ["undecided", "as-far"])
def test_the_pairs_that_decide_a_control_are_those_at_which_it_is_decided(state: str) -> None:
    """The same moments with so many pairs give a word; with one pair less they do not."""
    region, controls = {
        "undecided": (EIGHTY, {"noise": (0.02, 3.0)}),
        # The patch is shown above 0 and the control near it, but not the one beyond the other.
        "as-far": (Region(low=0.0), {"noise": (0.05, 0.6)}),
    }[state]

    def at(n: int) -> Verdict:
        transfer, noise = (0.8, 0.3) if state == "undecided" else (0.09, 0.6)
        return judge(Study(transfer, noise, n=n, controls=controls).frame(), region)

    now = at(30)
    assert now.reason.startswith("controls undecided: noise")
    assert now.pairs_needed is not None
    assert at(now.pairs_needed).word == "supported"
    assert at(now.pairs_needed - 1).word == "inconclusive"


def test_controls_are_tested_at_5_percent_whatever_the_claims_own_level() -> None:
    """A claim that is one of many is not believed more easily for it."""
    n, edge = 40, 0.10
    for t, word in ((t_quantile(0.95) * 1.01, "supported"), (t_quantile(0.95) * 0.99, None)):
        study = Study(0.8, controls={"noise": (0.0, noise_for(t, edge, n))})
        assert (judge(study.frame(), EIGHTY, alpha=0.001).word == "supported") is bool(word)


def test_the_pairs_that_would_support_a_claim_are_enough_for_its_controls() -> None:
    """An interval that meets an edge, and a control that wants more pairs than the claim does."""
    alone = judge(Study(0.75, 1.5, n=20).frame(), EIGHTY)
    both = Study(0.75, 1.5, n=20, controls={"noise": (0.0, 4.0)})
    now = judge(both.frame(), EIGHTY)
    assert now.reason.startswith("the interval meets an edge")
    assert now.pairs_needed > alone.pairs_needed
    assert judge(replace(both, n=now.pairs_needed).frame(), EIGHTY).word == "supported"
    assert judge(replace(both, n=alone.pairs_needed).frame(), EIGHTY).word == "inconclusive"


def test_one_control_outside_weighs_more_than_one_undecided() -> None:
    verdict = judge(with_controls(noise=WIDE, wrong_layer=0.5), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason.startswith("not specific: wrong-layer moves")


def test_every_control_outside_is_named() -> None:
    verdict = judge(with_controls(unrelated_base=0.4, noise=-0.4), EIGHTY)
    assert verdict.reason.startswith("not specific: unrelated-base, noise moves")


@pytest.mark.parametrize("side", [1, -1], ids=["up", "down"])
def test_inside_is_shown_at_005_one_sided(side: int) -> None:
    limit = t_quantile(0.95)
    for t, state in ((limit * (1 + JUST), "inside"), (limit * (1 - JUST), "undecided")):
        noise = noise_for(t, 0.02)
        frame = Study(0.8, controls={"noise": (side * 0.08, noise)}).frame()
        assert judge(frame, EIGHTY).controls["noise"]["state"] == state


@pytest.mark.parametrize("side", [1, -1], ids=["up", "down"])
def test_outside_is_shown_by_the_95_interval(side: int) -> None:
    limit = t_quantile(0.975)
    for t, state in ((limit * (1 + JUST), "outside"), (limit * (1 - JUST), "undecided")):
        noise = noise_for(t, 0.02)
        frame = Study(0.8, controls={"noise": (side * 0.12, noise)}).frame()
        assert judge(frame, EIGHTY).controls["noise"]["state"] == state


@pytest.mark.parametrize(
    ("margin", "word"), [(0.1, "invalid"), (0.4, "supported")], ids=["narrow", "wide"]
)
def test_the_margin_of_the_claim_is_the_one_in_force(margin: float, word: Word) -> None:
    assert judge(with_controls(noise=0.25), EIGHTY, margin=margin).word == word


@pytest.mark.parametrize("control", [0.5, WIDE], ids=["outside", "undecided"])
@pytest.mark.parametrize(
    ("region", "transfer"),
    [
        pytest.param(AT_MOST_12, 0.0, id="at-most"),
        pytest.param(Region(-0.2, 0.2), 0.05, id="around-0"),
        pytest.param(Region(low=-0.1), 0.4, id="from-below-0"),
    ],
)
def test_controls_do_not_gate_a_region_that_contains_0(
    region: Region, transfer: float, control: float | tuple[float, float]
) -> None:
    frame = Study(transfer, controls={"noise": control}).frame()
    verdict = judge(frame, region, checks=PASSED)
    assert verdict.word == "supported"
    check = check_of(verdict, "control noise")
    assert check.passed is False
    assert "does not gate" in check.detail


@pytest.mark.parametrize(
    ("control", "word", "reason"),
    [
        pytest.param(0.0, "supported", "transfer lies inside", id="none"),
        pytest.param(0.03, "supported", "transfer lies inside", id="less"),
        pytest.param(
            0.05, "inconclusive", "controls undecided: noise may move the outcome as", id="as-far"
        ),
        pytest.param(0.08, "invalid", "not specific: noise moves the outcome as far", id="further"),
        pytest.param(0.5, "invalid", "not specific: noise moves the outcome by over", id="outside"),
        pytest.param((0.08, 2.0), "inconclusive", "controls undecided: noise", id="undecided"),
    ],
)
def test_at_an_edge_0_the_patch_must_be_shown_to_go_beyond_its_controls(
    control: float | tuple[float, float], word: Word, reason: str
) -> None:
    """No margin is narrower than a transfer that need only be above 0: the arms are compared."""
    given = control if isinstance(control, tuple) else (control, 0.05)
    frame = Study(0.05, noise=0.05, controls={"noise": given}).frame()
    verdict = judge(frame, Region(low=0.0), checks=PASSED)
    assert verdict.word == word
    assert verdict.reason.startswith(reason)


def test_at_an_edge_0_from_below_the_patch_must_go_below_its_controls() -> None:
    for control, word in ((-0.03, "supported"), (-0.08, "invalid"), (-0.5, "invalid")):
        frame = Study(-0.05, noise=0.05, controls={"noise": (control, 0.05)}).frame()
        assert judge(frame, Region(high=0.0)).word == word


@pytest.mark.parametrize(("control", "word"), [(0.04, "supported"), (0.05, "invalid")])
def test_a_control_that_never_varies_from_the_patch_is_compared_by_its_mean(
    control: float, word: Word
) -> None:
    base, gap = 10 + wave(6, 40), 6 + 1.5 * wave(1, 40)
    patched = base + 0.05 * 6 + 0.01 * wave(2, 40)
    arms = {"base": base, "source": base + gap, "patched": patched}
    arms["noise"] = patched - (0.05 - control) * 6
    assert judge(table(arms), Region(low=0.0)).word == word


def test_away_from_0_what_lies_inside_the_margin_lies_below_the_patch() -> None:
    """The second demand on controls changes no verdict where the first and the claim hold."""
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(150):
        n = int(rng.integers(10, 30))
        base, gap = rng.normal(5, 2, n), rng.normal(6, 2, n)
        arms = {"base": base, "source": base + gap}
        luck = rng.normal(0, 1, n)
        for arm, share in (("patched", 0.3), ("noise", 0.0)):
            spread = rng.uniform(0.1, 1.2)
            own = luck * rng.uniform(-1, 1) + rng.normal(0, 1, n)
            arms[arm] = base + share * gap + spread * own
        verdict = judge(table(arms), Region(low=0.1), margin=0.1)
        seen.add(verdict.word)
        assert "as far as" not in verdict.reason
    assert {"supported", "inconclusive"} <= seen


@pytest.mark.parametrize("control", [0.0, 0.5, WIDE], ids=["inside", "outside", "undecided"])
def test_controls_do_not_rescue_a_refuted_claim(control: float | tuple[float, float]) -> None:
    verdict = judge(with_controls(0.1, noise=control), EIGHTY, checks=PASSED)
    assert verdict.word == "refuted"
    assert verdict.reason == "transfer lies outside [0.7, 0.9]"


@pytest.mark.parametrize("control", [0.5, WIDE], ids=["outside", "undecided"])
def test_controls_add_nothing_to_an_inconclusive_claim(
    control: float | tuple[float, float],
) -> None:
    frame = Study(0.72, noise=2.0, controls={"noise": control}).frame()
    verdict = judge(frame, EIGHTY)
    assert verdict.word == "inconclusive"
    assert verdict.reason.startswith("the interval meets an edge")
    assert verdict.pairs_needed is not None


def test_a_control_with_missing_trials_is_a_missing_trial() -> None:
    frame = with_controls()
    gone = frame.query("arm == 'noise' and pair == 'pair-007'").index
    verdict = judge(frame.drop(gone), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason == (
        "silent-n: trials are missing: noise: 1 of 40 (pair, seed), such as ('pair-007', 0)"
    )


# --- the order of the checks ---------------------------------------------------------------


@pytest.mark.parametrize("name", INSTRUMENT_CHECKS)
@pytest.mark.parametrize("transfer", [0.8, 0.1, 0.7], ids=["inside", "outside", "edge"])
def test_a_failed_instrument_check_is_invalid_whatever_was_found(
    transfer: float, name: str
) -> None:
    checks = [Check(n, n != name, "it broke" if n == name else "fine") for n in INSTRUMENT_CHECKS]
    verdict = judge(Study(transfer, noise=1.0).frame(), EIGHTY, checks=checks)
    assert verdict.word == "invalid"
    assert verdict.reason == f"{name}: it broke"
    assert verdict.p_supported is None
    assert verdict.p_refuted is None
    # What was measured stays in view, without a word on it.
    assert verdict.estimate == pytest.approx(transfer)
    assert verdict.interval is not None
    assert verdict.interval_other is not None
    assert verdict.interval.low < verdict.interval_other.low < transfer
    assert verdict.level == 0.95


def test_every_failed_check_is_named_the_instrument_first() -> None:
    broken = [Check("self-patch", False, "a"), Check("silent-n", False, "b")]
    verdict = judge(Study(0.8, gap=0.01).frame(), EIGHTY, checks=broken)
    assert verdict.reason.startswith("self-patch: a; silent-n: b; no-ceiling: source - base 0.01")


def test_too_few_pairs_come_before_the_ceiling_and_the_contrasts() -> None:
    verdict = judge(Study(0.7, noise=0.0, n=8, gap=0.01).frame(), EIGHTY, checks=PASSED)
    assert verdict.reason == "enough-pairs: 8 pairs, at least 10 wanted"


def test_no_ceiling_comes_before_degenerate() -> None:
    verdict = judge(Study(0.7, noise=0.0, gap=0.01).frame(), EIGHTY, checks=PASSED)
    assert verdict.reason.startswith("no-ceiling")
    assert "degenerate" not in verdict.reason


def test_degenerate_comes_before_the_controls() -> None:
    frame = Study(0.7, noise=0.0, controls={"noise": 0.5}).frame()
    assert judge(frame, EIGHTY, checks=PASSED).reason.startswith("degenerate")


def test_the_checks_are_listed_in_the_order_they_were_made() -> None:
    verdict = judge(with_controls(), EIGHTY, checks=PASSED)
    assert [check.name for check in verdict.checks] == [
        *INSTRUMENT_CHECKS,
        "enough-pairs",
        "no-ceiling",
        "weak-ratio",
        "control unrelated-base",
        "control noise",
        "control wrong-layer",
        "control other-heads",
        "control random-direction",
        "same-is-not-p>0.05",
    ]


# --- verified ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(Study(0.8).frame(), id="supported"),
        pytest.param(Study(0.1).frame(), id="refuted"),
        pytest.param(Study(0.7, 2.0).frame(), id="inconclusive"),
        pytest.param(Study(0.8, gap=0.01).frame(), id="no-ceiling"),
        pytest.param(Study(0.8, n=5).frame().query("arm != 'patched'"), id="no-patched"),
        pytest.param(with_controls(), id="with-controls"),
    ],
)
def test_a_bare_table_is_never_verified(frame: pd.DataFrame) -> None:
    verdict = judge(frame, EIGHTY)
    assert verdict.verified is False
    unmade = [check for check in verdict.checks if check.passed is None]
    assert [check.name for check in unmade] == list(INSTRUMENT_CHECKS)
    assert all(check.detail.startswith("not run") for check in unmade)


def test_with_every_instrument_check_passed_it_is_verified() -> None:
    assert judge(with_controls(), EIGHTY, checks=PASSED).verified is True


def test_one_check_that_was_not_run_is_enough_to_be_unverified() -> None:
    checks = [*PASSED[:-1], Check("degenerate-text", None, "not run")]
    verdict = judge(with_controls(), EIGHTY, checks=checks)
    assert (verdict.word, verdict.verified) == ("supported", False)


# --- clusters and seeds --------------------------------------------------------------------


def spread_out(study: Study, sizes: list[int], column: str) -> pd.DataFrame:
    """Every unit of a study as several pairs, which differ but whose mean is the unit."""
    arms: dict[str, list[float]] = {arm: [] for arm in study.arms}
    units: list[str] = []
    for i in range(study.n):
        size = sizes[i % len(sizes)]
        own = np.arange(size) - (size - 1) / 2
        for arm, scores in study.arms.items():
            arms[arm].extend(scores[i] + own * (0.5 if arm == "patched" else 1.0))
        units.extend([f"unit-{i:02d}"] * size)
    return table({arm: np.array(scores) for arm, scores in arms.items()}, **{column: units})


def assert_same_numbers(found: Verdict, wanted: Verdict) -> None:
    assert found.word == wanted.word
    assert found.estimate == pytest.approx(wanted.estimate)
    assert found.interval == pytest.approx(wanted.interval)
    assert found.interval_other == pytest.approx(wanted.interval_other)
    assert found.p_supported == pytest.approx(wanted.p_supported)
    assert found.means == pytest.approx(wanted.means)


@pytest.mark.parametrize("sizes", [[3], [1, 2, 6]], ids=["equal", "unequal"])
@pytest.mark.parametrize("column", ["cluster", "source", "base"])
def test_pairs_that_share_something_count_once(column: str, sizes: list[int]) -> None:
    study = Study(0.8, noise=1.5, n=12)
    frame = spread_out(study, sizes, column)
    found = judge(frame, EIGHTY)
    assert_same_numbers(found, judge(study.frame(), EIGHTY))
    assert (found.clusters, found.pairs) == (12, frame["pair"].nunique())
    assert check_of(found, "enough-pairs").detail == (
        f"12 clusters of pairs by {column}, at least 10 wanted"
    )


def test_nine_clusters_are_too_few_however_many_the_pairs() -> None:
    verdict = judge(spread_out(Study(0.8, n=9), [10], "cluster"), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason == "enough-pairs: 9 clusters of pairs by cluster, at least 10 wanted"
    assert (verdict.pairs, verdict.clusters) == (90, 9)


def crossed(
    source_noise: float, base_noise: float, *, transfer: float = 0.8, n_sources: int = 12
) -> pd.DataFrame:
    """Every source with each of 12 bases; the effect varies by source and by base."""
    i, j = (index.ravel() for index in np.mgrid[:n_sources, :12])
    gap = np.full(12 * n_sources, 6.0) + 0.2 * wave(5, 12 * n_sources)
    by_source, by_base = wave(1, n_sources)[i], wave(2, 12)[j]
    effect = transfer * gap + source_noise * by_source + base_noise * by_base
    base = np.full(len(i), 10.0)
    return table(
        {"base": base, "source": base + gap, "patched": base + effect},
        source=[f"s{k}" for k in i],
        base=[f"b{k}" for k in j],
    )


def test_crossed_pairs_need_ten_sources_and_ten_bases() -> None:
    verdict = judge(crossed(0.1, 0.1, n_sources=9), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason == "enough-pairs: 9 clusters of pairs by source, at least 10 wanted"


@pytest.fixture
def torn() -> pd.DataFrame:
    """One source with 20 bases, where little is transferred; one base with 20 sources, where much.

    So the mean over sources is near 0.8 and that over bases near 0.1, with a wider interval.
    """
    n = 40
    gap = 6 + 0.05 * wave(1, n)
    few = np.arange(n) < 20
    share = np.where(few, 0.1, 0.8) + np.where(few, 0.1, 0.01) * wave(3, n)
    base = np.full(n, 10.0)
    return table(
        {"base": base, "source": base + gap, "patched": base + share * gap},
        source=["s0"] * 20 + [f"s{k}" for k in range(1, 21)],
        base=[f"b{k}" for k in range(1, 21)] + ["b0"] * 20,
    )


@pytest.mark.parametrize("region", [Region(0.6, 1.0), Region(0.8, 1.0), Region(0.4, 0.5)], ids=str)
def test_prompts_that_contradict_each_other_decide_nothing(
    torn: pd.DataFrame, region: Region
) -> None:
    verdict = judge(torn, region)
    assert verdict.word == "inconclusive"
    assert verdict.interval is not None
    low, high = verdict.interval
    assert verdict.level == 0.95
    assert not verdict.interval.disjoint(region.low, region.high)
    assert not (region.low < low and high < region.high)
    assert verdict.estimate is not None
    assert low <= verdict.estimate <= high


def test_seeds_of_a_pair_are_averaged_and_not_counted() -> None:
    study = Study(0.8, noise=1.5, n=12)
    found = judge(study.frame(seeds=range(8), jitter=0.5), EIGHTY)
    assert_same_numbers(found, judge(study.frame(), EIGHTY))
    assert found.pairs == 12


def test_pairs_may_have_unequal_numbers_of_seeds() -> None:
    study = Study(0.8, noise=1.5, n=12)
    frame = study.frame(seeds=(0, 1))
    fewer = frame.query("not (seed == 1 and pair >= 'pair-006')")
    assert_same_numbers(judge(fewer, EIGHTY), judge(study.frame(), EIGHTY))


def test_the_order_of_rows_does_not_matter() -> None:
    frame = Study(0.8, noise=1.5, controls=QUIET).frame(seeds=(0, 1), jitter=0.4)
    shuffled = frame.sample(frac=1, random_state=3)
    assert_same_numbers(judge(shuffled, EIGHTY), judge(frame, EIGHTY))


# --- tables that are not whole -------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        pytest.param("source", "no-ceiling: no source arm was run", id="no-source"),
        pytest.param("base", "no-ceiling: no base arm was run", id="no-base"),
        pytest.param("patched", "silent-n: no patched arm was run", id="no-patched"),
    ],
)
def test_an_arm_that_was_not_run_is_invalid(lacking: str, reason: str) -> None:
    frame = Study(0.8).frame()
    verdict = judge(frame[frame["arm"] != lacking], EIGHTY)
    assert (verdict.word, verdict.reason) == ("invalid", reason)
    assert verdict.estimate is None
    assert verdict.interval is None
    assert verdict.pairs == 40


def test_a_table_of_controls_only_names_every_missing_arm() -> None:
    frame = with_controls().query("arm == 'noise'")
    assert judge(frame, EIGHTY).reason.startswith("no-ceiling: no base and no source and no ")


@pytest.mark.parametrize("arm", ["base", "source", "patched"])
def test_missing_trials_are_invalid_and_named(arm: str) -> None:
    frame = Study(0.8).frame(seeds=(0, 1), jitter=0.1)
    gone = frame.query("arm == @arm and pair in ['pair-003', 'pair-030'] and seed == 1").index
    verdict = judge(frame.drop(gone), EIGHTY)
    assert verdict.word == "invalid"
    assert verdict.reason == (
        f"silent-n: trials are missing: {arm}: 2 of 80 (pair, seed), such as ('pair-003', 1)"
    )
    assert verdict.estimate is None


def test_a_table_that_cannot_be_read_raises() -> None:
    frame = Study(0.8).frame()
    frame.loc[3, "score"] = np.nan
    with pytest.raises(UsageError, match="not finite numbers in 1 rows: row 3"):
        judge(frame, EIGHTY)


def test_the_table_is_not_changed() -> None:
    frame = with_controls()
    before = frame.copy(deep=True)
    judge(frame, EIGHTY)
    pd.testing.assert_frame_equal(frame, before)


# --- another estimator ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy() -> pd.DataFrame:
    """40 pairs of 3 seeds with what a real study has: pair effects, seed noise, skew."""
    rng = np.random.default_rng(7)
    pair = rng.gamma(2.0, 1.0, 40)
    rows = []
    for arm, mean in (("base", 0.8), ("source", 6.0), ("patched", 4.2)):
        own = rng.normal(0, 1, 40)
        rows += [
            (f"p{i:02d}", arm, seed, mean + 0.7 * pair[i] + own[i] + rng.exponential(1))
            for i in range(40)
            for seed in range(3)
        ]
    return pd.DataFrame(rows, columns=["pair", "arm", "seed", "score"])


def contrast_by_trial(frame: pd.DataFrame, edge: float) -> pd.DataFrame:
    """patched - base - edge (source - base) of every (pair, seed)."""
    wide = frame.pivot_table(index=["pair", "seed"], columns="arm", values="score").reset_index()
    return wide.assign(
        contrast=wide["patched"] - wide["base"] - edge * (wide["source"] - wide["base"])
    )


def cluster_robust(frame: pd.DataFrame, edge: float) -> tuple[float, float]:
    """Mean and standard error of the contrast by OLS on trials, clustered by pair."""
    import statsmodels.formula.api as smf

    trials = contrast_by_trial(frame, edge)
    groups = pd.factorize(trials["pair"])[0]
    # N - 1 over N - k is a correction for regressors, of which a mean has one: G/(G-1) is left.
    fit = smf.ols("contrast ~ 1", trials).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}, use_t=True
    )
    clusters = trials["pair"].nunique()
    return float(fit.params.iloc[0]), float(fit.bse.iloc[0] * (clusters / (clusters - 1)) ** 0.5)


def hall(frame: pd.DataFrame, edge: float) -> float:
    """The robust t, with the skewness of the pairs' mean taken out, by his formula."""
    trials = contrast_by_trial(frame, judge(frame, EIGHTY).estimate or 0.0)
    c = float(stats.skew(trials.groupby("pair")["contrast"].mean())) / 40**0.5
    mean, error = cluster_robust(frame, edge)
    t = mean / error
    return t + c * t**2 / 3 + c**2 * t**3 / 27 + c / 6


def test_the_estimate_is_that_of_ols_on_trials(noisy: pd.DataFrame) -> None:
    import statsmodels.formula.api as smf

    fit = smf.ols("score ~ C(arm, Treatment('base'))", noisy).fit()
    effect = fit.params["C(arm, Treatment('base'))[T.patched]"]
    gap = fit.params["C(arm, Treatment('base'))[T.source]"]
    assert judge(noisy, EIGHTY).estimate == pytest.approx(effect / gap, rel=1e-9)


@pytest.mark.parametrize("edge", [0.5, 0.7, 0.9], ids=lambda e: f"edge={e}")
def test_p_values_are_those_of_cluster_robust_ols(noisy: pd.DataFrame, edge: float) -> None:
    p = float(stats.t.sf(hall(noisy, edge), 39))
    verdict = judge(noisy, Region(low=edge))
    assert verdict.p_supported == pytest.approx(p, rel=1e-4)
    assert verdict.p_refuted == pytest.approx(min(1, 2 * (1 - p)), rel=1e-4)


def test_the_interval_ends_are_those_of_cluster_robust_ols(noisy: pd.DataFrame) -> None:
    """At each end of the 95% interval Hall's T of the robust t is Student's 0.975 quantile."""
    verdict = judge(noisy, EIGHTY)
    at_95 = verdict.interval if verdict.level == 0.95 else verdict.interval_other
    assert at_95 is not None
    for end, sign in zip(at_95, (1, -1), strict=True):
        assert hall(noisy, end) == pytest.approx(sign * t_quantile(0.975), rel=1e-4)


def test_the_standard_error_is_the_delta_method_of_cluster_robust_ols(noisy: pd.DataFrame) -> None:
    """To first order, sd(A - T D) / (sqrt(n) D) is the robust error of the ratio of effects."""
    import statsmodels.formula.api as smf

    groups = pd.factorize(noisy["pair"])[0]
    fit = smf.ols("score ~ C(arm, Treatment('base'))", noisy).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    names = [f"C(arm, Treatment('base'))[T.{arm}]" for arm in ("patched", "source")]
    effect, gap = fit.params[names]
    gradient = np.array([1 / gap, -effect / gap**2])
    robust = fit.cov_params().loc[names, names].to_numpy() * 40 / 39
    wanted = float(np.sqrt(gradient @ robust @ gradient))

    (grouping,) = groupings(noisy)
    scores = grouping.scores
    gaps, effects = scores["source"] - scores["base"], scores["patched"] - scores["base"]
    estimate = judge(noisy, EIGHTY).estimate
    assert estimate is not None
    found = float(stats.sem(effects - estimate * gaps) / gaps.mean())
    assert found == pytest.approx(wanted, rel=1e-4)
    interval = fieller(effects, gaps, 0.95)
    assert interval is not None
    # Fieller's interval is the delta method's but for terms of order g.
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(t_quantile(0.975) * wanted, rel=0.05)


def test_an_arm_that_is_not_known_is_refused() -> None:
    """A misspelled control would otherwise be a control that is not looked at."""
    frame = Study(0.8, controls={"noise": 0.0}).frame().replace({"arm": {"noise": "Noise"}})
    with pytest.raises(UsageError, match=r"arms .'Noise'., expected"):
        judge(frame, EIGHTY)


def test_checks_that_were_not_made_are_named() -> None:
    verdict = judge(Study(0.8).frame(), EIGHTY, checks=[])
    assert not verdict.verified
    assert check_of(verdict, "self-patch").passed is None


def test_a_margin_wider_than_the_claim_is_refused() -> None:
    with pytest.raises(UsageError, match=r"margin 0\.1 for the region"):
        judge(Study(0.3).frame(), Region(0.05, 0.5))


def test_a_control_that_is_the_base_is_inside_though_nothing_varies() -> None:
    """From the number of clusters on at which a count of zero leaves less than the margin."""
    for n, word, state in ((28, "inconclusive", "undecided"), (29, "supported", "inside")):
        base = np.arange(float(n))
        noise = base + 0.8 * 6 + 0.01 * wave(2, n)
        arms = {"base": base, "source": base + 6, "patched": noise, "noise": base}
        verdict = judge(table(arms), EIGHTY)
        assert verdict.word == word
        assert verdict.controls["noise"]["state"] == state
    assert 0.9**29 < 0.05 < 0.9**28


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"region": (0.7, 0.9)}, r"region \(0\.7, 0\.9\), expected a Region"),
        ({"alpha": "x"}, "alpha 'x', expected a number"),
        ({"margin": None}, "margin None, expected a number"),
    ],
    ids=["region", "alpha", "margin"],
)
def test_a_setting_of_another_type_is_refused(setting: dict[str, object], message: str) -> None:
    given = {"region": EIGHTY, **setting}
    with pytest.raises(UsageError, match=message):
        judge(Study(0.8).frame(), **given)  # type: ignore[arg-type]
