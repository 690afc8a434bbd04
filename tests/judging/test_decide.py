"""The rule on many studies at once: what `judge` says of each, and what an oracle says of both.

The oracle is written here from scipy's Student intervals of contrasts, one study at a time and in
the order of the design; it shares no code with the rule. Studies are turned about their means and
joined with themselves, so that nothing is skewed; what skewness does is in `test_unseen` and in the
properties of Fieller's interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kv_claims.claims.claim import SHARES, Estimand, Region
from kv_claims.judging.contrast import interval_ends
from kv_claims.judging.decide import FEWEST_CLUSTERS, Decision, Why, decide
from kv_claims.judging.estimand import NEEDED, Direction, orientation
from kv_claims.judging.fieller import Floats
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import Rule
from kv_claims.judging.verdict import judge
from tests.judging.frames import Study

pytestmark = pytest.mark.filterwarnings("error")

EIGHTY, AT_LEAST, AT_MOST, NONE = (
    Region(0.7, 0.9),
    Region(low=0.5),
    Region(high=0.12),
    Region(-0.1, 0.1),
)
POSITIVE = Region(low=0.0)
ALL_CONTROLS = ("unrelated-base", "noise", "wrong-layer")


@dataclass(frozen=True)
class Kind:
    """A rule, and the arms of the studies that it judges."""

    name: str
    rule: Rule
    controls: tuple[str, ...] = ()
    studies: int = 20

    @property
    def arms(self) -> tuple[str, ...]:
        return (*NEEDED[self.rule.estimand], *self.controls)


def _kind(
    name: str, region: Region, *controls: str, estimand: Estimand = "transfer", **rule: object
) -> Kind:
    return Kind(name, Rule(region, estimand, **rule), controls)  # type: ignore[arg-type]


KINDS = [
    _kind("two edges", EIGHTY),
    _kind("at least", AT_LEAST),
    _kind("at most", AT_MOST),
    _kind("nothing", NONE, "noise"),
    _kind("either direction", EIGHTY, "noise", direction="either"),
    _kind("small alpha", EIGHTY, alpha=0.05 / 8, alpha_refuted=0.05 / 16),
    _kind("very small alpha", Region(0.2, 1.6), alpha=1e-4, alpha_refuted=1e-4),
    *(_kind(f"control {arm}", EIGHTY, arm) for arm in ALL_CONTROLS),
    _kind("all controls", Region(0.5, 1.1), *ALL_CONTROLS),
    _kind("another margin", Region(0.5, 1.1), "noise", margin=0.3),
    _kind("from 0 up", POSITIVE, *ALL_CONTROLS),
    _kind("from 0 down", Region(high=0.0), "wrong-layer"),
    _kind("order", Region(low=0.1), *ALL_CONTROLS, estimand="difference"),
    _kind("order, either", Region(0.0, 0.9), "noise", estimand="difference", direction="either"),
    _kind("sameness", NONE, "noise", estimand="difference"),
    _kind("carried", Region(0.4, 1.0), "noise", estimand="carried"),
    _kind("carried, at least", Region(low=0.1), "noise", estimand="carried"),
    _kind("carried, none", NONE, "noise", "wrong-layer", estimand="carried"),
    _kind("carried, either", Region(0.4, 1.0), "noise", estimand="carried", direction="either"),
    _kind("shift", Region(2.0, 6.0), *ALL_CONTROLS, estimand="shift", margin=1.5),
    _kind("shift, none", Region(-1.0, 1.0), "noise", estimand="shift"),
    _kind("gap", Region(4.0, 8.0), estimand="gap"),
    _kind("gap, at least", Region(low=3.0), estimand="gap", alpha=0.01, alpha_refuted=0.01),
]
NAMES = [kind.name for kind in KINDS]


def _random(kind: Kind, rng: np.random.Generator, n: int) -> dict[str, Floats]:
    """Scores of one study near the limits of its rule, some of them without gap or spread."""
    region = kind.rule.region
    low = region.low if np.isfinite(region.low) else region.high - 0.6
    high = region.high if np.isfinite(region.high) else region.low + 0.6
    base = rng.normal(10, 2, n)
    gap = rng.normal(6, rng.choice([0.5, 1.5, 2.0, 4.0, 8.0]), n)
    if kind.rule.estimand == "gap":
        gap = rng.uniform(low - 1, high + 1) + rng.choice([0.3, 2.0]) * rng.standard_normal(n)
        low, high = 0.4, 0.8
    state = rng.choice([*7 * ["free"], "no gap", "flat", "edge", "down"])
    if state == "no gap":
        gap = gap - gap.mean() if rng.random() < 0.7 else np.zeros(n)
    if state == "flat":
        gap = np.full(n, 6.0)
    if state == "down":
        gap = -gap
    transfer = rng.choice(
        [low, high, (low + high) / 2, rng.uniform(low - 0.3, high + 0.3)], p=[0.1, 0.1, 0.4, 0.4]
    )
    noise = rng.choice([0.1, 0.5, 2.0]) * rng.standard_normal(n)
    usual = 6.0 if kind.rule.estimand == "shift" else 1.0
    transfer /= usual
    if state in ("edge", "flat"):
        transfer, noise = region.edges[0][0] / usual, np.zeros(n)
    versus = rng.uniform(0.0, 0.4)
    patched = (transfer + (versus if kind.rule.estimand == "difference" else 0)) * gap + noise
    arms = {
        "base": base,
        "source": base + gap,
        "patched": base + patched,
        "versus": base + versus * gap,
    }
    if kind.rule.estimand == "carried":
        # What wiping does alone, and now and then all of it, so that nothing is left to carry.
        zero = rng.choice([0.0, 0.5, 1.0], p=[0.45, 0.45, 0.1])
        wiped = (zero + (1 - zero) * rng.choice([0.0, 0.01]) * rng.standard_normal(n)) * gap
        if state in ("edge", "flat"):
            wiped = np.full(n, 3.0)
        gap = gap - wiped
        base = base + wiped
        arms |= {"unrelated-base": base, "patched": base + transfer * gap + noise}
    for arm in kind.controls:
        moved = rng.choice([0.0, 0.0, 0.1, 0.25, transfer], p=[0.4, 0.2, 0.1, 0.1, 0.2])
        spread = rng.choice([0.0, 0.1, 1.0], p=[0.2, 0.6, 0.2])
        arms[arm] = base + moved * gap + spread * rng.standard_normal(n)
    return {arm: arms[arm] for arm in kind.arms}


@cache
def studies(name: str) -> dict[str, Floats]:
    """Scores of all studies of a kind, `[study, cluster]`."""
    number = NAMES.index(name)
    rng = np.random.default_rng([2026, number])
    kind, n = KINDS[number], (5, 9, 20)[number % 3]
    each = [_random(kind, rng, n) for _ in range(kind.studies)]
    return {arm: np.array([_with_turned(one[arm]) for one in each]) for arm in kind.arms}


def _with_turned(values: Floats) -> Floats:
    """Every number, and as far on the other side of the mean."""
    return np.append(values, 2 * values.mean() - values)


def kind_of(name: str) -> Kind:
    return KINDS[NAMES.index(name)]


@cache
def at_once(name: str) -> Decision:
    return decide(studies(name), kind_of(name).rule)


@cache
def one_by_one(name: str) -> list[Verdict]:
    rule = kind_of(name).rule
    return [
        judge(
            frame_of(one),
            rule.region,
            margin=rule.margin,
            alpha=rule.alpha,
            estimand=rule.estimand,
            direction=rule.direction,
            alpha_refuted=rule.alpha_refuted,
        )
        for one in each_of(studies(name))
    ]


def each_of(scores: Mapping[str, Floats]) -> list[dict[str, Floats]]:
    return [dict(zip(scores, one, strict=True)) for one in zip(*scores.values(), strict=True)]


def frame_of(scores: Mapping[str, Floats]) -> pd.DataFrame:
    """The table of a study with a trial a pair."""
    return pd.concat(
        [
            pd.DataFrame({"pair": np.arange(len(one)), "arm": arm, "seed": 0, "score": one})
            for arm, one in scores.items()
        ],
        ignore_index=True,
    )


# --- an oracle -----------------------------------------------------------------------------


def limits(values: Floats, level: float) -> tuple[float, float]:
    """Student's interval of a mean; of what does not vary, its value."""
    if np.ptp(values) <= 1e-11 * np.abs(values).max():
        return float(values.mean()), float(values.mean())
    found = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    return float(found.low), float(found.high)


def flat(values: Floats, *parts: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-11 * max(np.abs(part).max() for part in parts))


def lies(values: Floats, side: str, alpha: float) -> bool:
    """Whether a mean is shown to lie on a side of 0, by an interval of the right level."""
    low, high = limits(values, 1 - 2 * alpha)
    return low >= 0 if side == "greater" else high <= 0


def leaves(effect: Floats, unit: Floats, edge: float, side: str, alpha: float) -> bool:
    """Whether what no cluster showed leaves a ratio on a side of an edge, by a count of zero."""
    ratio = effect.mean() / unit.mean()
    if np.ptp(effect - ratio * unit) > 1e-11 * 20 * max(1, abs(ratio)):
        return True
    unseen = stats.binomtest(0, len(effect)).proportion_ci(1 - 2 * alpha, "exact").high
    return ratio - unseen >= edge if side == "greater" else ratio + unseen <= edge


def identified(gap: Floats, level: float) -> bool:
    """Whether a ratio has a bounded interval: its denominator's does not hold 0."""
    low, high = limits(gap, level)
    return low > 0 or high < 0


def expected(arms: Mapping[str, Floats], rule: Rule) -> Why:
    """What decides, by the text of the design."""
    region, ratio = rule.region, rule.estimand in SHARES
    source = arms.get("source", arms["base"] + 1)
    sign = -1 if rule.direction == "either" and np.mean(source - arms["base"]) < 0 else 1
    gap = sign * (source - arms["base"])
    if ratio and not limits(gap, 1 - 2 * 0.005)[0] > 0:
        return Why.NO_CEILING
    carried = rule.estimand == "carried"
    zero = "unrelated-base" if carried else "base"
    gap = sign * (source - arms[zero])
    if carried and not limits(gap, 1 - 2 * 0.005)[0] > 0:
        return Why.NO_CEILING
    against = "versus" if rule.estimand == "difference" else zero
    of = "source" if rule.estimand == "gap" else "patched"
    effect = (sign if ratio else 1) * (arms[of] - arms[against])
    unit = gap if ratio else np.ones_like(gap)
    edges = [(effect - edge * unit, side, edge) for edge, side in region.edges]
    if any(flat(line, arms[of], arms[against], edge * unit) for line, _, edge in edges):
        return Why.DEGENERATE
    away = {"greater": "less", "less": "greater"}

    def shown(line: Floats, side: str, edge: float, alpha: float) -> bool:
        return lies(line, side, alpha) and leaves(effect, unit, edge, side, alpha)

    if not all(shown(*one, rule.alpha) for one in edges):
        outside = any(shown(line, away[s], e, rule.alpha_refuted / 2) for line, s, e in edges)
        return Why.OUTSIDE if outside and identified(unit, 1 - rule.alpha_refuted) else Why.BETWEEN
    if ratio:
        # g < 0.1 is a t of the mean gap above t(0.975) / sqrt(0.1).
        n = len(gap)
        t = np.inf if np.ptp(gap) < 1e-11 * 20 else stats.ttest_1samp(gap, 0.0).statistic
        if t**2 * 0.1 <= stats.t.ppf(0.975, n - 1) ** 2 or not identified(gap, 1 - 2 * rule.alpha):
            return Why.WEAK_RATIO
    present = [arm for arm in (["noise"] if carried else ALL_CONTROLS) if arm in arms]
    if rule.estimand == "gap" or not (region.low >= 0 or region.high <= 0):
        return Why.INSIDE
    states = {_against_controls(arms, arm, unit, sign, rule) for arm in present}
    return min(states, default=Why.INSIDE)


def _against_controls(
    arms: Mapping[str, Floats], arm: str, gap: Floats, sign: int, rule: Rule
) -> Why:
    carried = rule.estimand == "carried"
    moved = sign * (arms[arm] - arms["unrelated-base" if carried else "base"])
    above, below = moved - rule.margin * gap, moved + rule.margin * gap

    def shown(line: Floats, side: str, edge: float, alpha: float) -> bool:
        return lies(line, side, alpha) and leaves(moved / most, gap, edge / most, side, alpha)

    most = 1.0
    if rule.estimand == "shift":
        most = abs(np.mean(arms["patched"] - arms["base"]))
    margin = rule.margin
    ends = {
        "above": (above, "greater", "less", margin),
        "below": (below, "less", "greater", -margin),
    }
    if carried:
        # A control that does less than another base's cache is no objection.
        del ends["below" if rule.region.low >= 0 else "above"]
    if any(shown(line, out, edge, 0.025) for line, out, _, edge in ends.values()):
        return Why.CONTROL_MOVES
    if not all(shown(line, back, edge, 0.05) for line, _, back, edge in ends.values()):
        return Why.CONTROL_UNDECIDED
    ahead = sign * (arms["patched"] - arms[arm]) * (1 if rule.region.low >= 0 else -1)
    if flat(ahead, arms["patched"], arms[arm]):
        return Why.INSIDE if ahead.mean() > 0 else Why.CONTROL_AS_FAR
    if lies(ahead, "greater", 0.05):
        return Why.INSIDE
    return Why.CONTROL_AS_FAR if lies(ahead, "less", 0.025) else Why.CONTROL_MAYBE_AS_FAR


# --- many at once --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_many_at_once_give_the_words_that_each_gets_alone(name: str) -> None:
    found = at_once(name)
    words = [Why(int(code)).word for code in found.why]
    assert words == [verdict.word for verdict in one_by_one(name)]


@pytest.mark.parametrize("name", NAMES)
def test_what_decides_is_what_the_design_says(name: str) -> None:
    rule = kind_of(name).rule
    wanted = [expected(one, rule) for one in each_of(studies(name))]
    assert [Why(int(code)) for code in at_once(name).why] == wanted


@pytest.mark.parametrize("name", NAMES)
def test_many_at_once_give_the_numbers_that_each_gets_alone(name: str) -> None:
    """Estimates, p-values, both intervals and what each control does, to the last bits."""
    found, rule = at_once(name), kind_of(name).rule
    at = {
        level: np.array(interval_ends(found.found, level)).T
        for level in (rule.refuted_level, rule.supported_level)
    }
    compared = 0
    for number, verdict in enumerate(one_by_one(name)):
        if verdict.p_supported is None:
            assert Why(int(found.why[number])) in (Why.NO_CEILING, Why.DEGENERATE)
            continue
        compared += 1
        assert verdict.estimate == same(found.found.estimate[number])
        assert verdict.p_supported == same(found.tests.p_supported[number])
        assert verdict.p_refuted == same(found.tests.p_refuted[number])
        shown, other = rule.refuted_level, rule.supported_level
        if verdict.word == "supported":
            shown, other = other, shown
        assert verdict.level == shown
        for interval, level in ((verdict.interval, shown), (verdict.interval_other, other)):
            wanted = at[level][number]
            assert (interval is None) is bool(np.isnan(wanted).any())
            assert interval is None or interval == same(wanted)
        assert set(verdict.controls) == set(found.controls)
        for arm, control in verdict.controls.items():
            of = found.controls[arm]
            assert (control["state"] == "inside") == of.inside[number]
            assert (control["state"] == "outside") == of.outside[number]
            assert control["transfer"] == same(of.moved.estimate[number])
    assert compared >= 6, "too few studies with numbers, or nothing is compared"


def same(value: object) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["all controls", "order, either", "gap"])
def test_axes_before_the_clusters_are_kept(name: str) -> None:
    """`[2, studies / 2, cluster]` is judged as `[study, cluster]`."""
    rule, flat_ = kind_of(name).rule, at_once(name)
    scores = {arm: one.reshape(2, -1, one.shape[-1]) for arm, one in studies(name).items()}
    found = decide(scores, rule)
    np.testing.assert_array_equal(found.why, flat_.why.reshape(2, -1))
    np.testing.assert_allclose(
        found.tests.p_supported, flat_.tests.p_supported.reshape(2, -1), rtol=1e-12
    )
    single = decide({arm: one[0] for arm, one in studies(name).items()}, rule)
    assert single.why.shape == ()
    assert int(single.why) == int(flat_.why[0])


@pytest.mark.parametrize("name", ["all controls", "two edges"])
def test_a_neighbour_does_not_matter(name: str) -> None:
    """Studies in another order, and beside others without gap and spread."""
    rule, scores = kind_of(name).rule, studies(name)
    order = np.random.default_rng(0).permutation(len(scores["base"]))
    found = decide({arm: one[order] for arm, one in scores.items()}, rule)
    np.testing.assert_array_equal(found.why, at_once(name).why[order])
    constant = {arm: np.concatenate([one, np.ones_like(one)]) for arm, one in scores.items()}
    found = decide(constant, rule)
    np.testing.assert_array_equal(found.why[: len(order)], at_once(name).why)
    assert set(found.why[len(order) :].tolist()) == {Why.NO_CEILING}


# --- what is decided, and that all of it is ------------------------------------------------


SPECIAL: dict[Why, tuple[Study, Rule]] = {
    Why.CONTROL_AS_FAR: (
        Study(0.05, noise=0.05, controls={"noise": (0.08, 0.05)}),
        Rule(POSITIVE),
    ),
    Why.CONTROL_MAYBE_AS_FAR: (
        Study(0.05, noise=0.05, controls={"noise": (0.05, 0.05)}),
        Rule(POSITIVE),
    ),
}


@pytest.mark.parametrize("why", SPECIAL, ids=lambda why: why.name)
def test_a_control_that_does_as_much_as_the_patch(why: Why) -> None:
    study, rule = SPECIAL[why]
    assert Why(int(decide(study.arms, rule).why)) == why == expected(study.arms, rule)
    assert judge(frame_of(study.arms), rule.region).word == why.word


def test_every_reason_is_reached_and_has_its_word() -> None:
    seen: Counter[Why] = Counter()
    words: dict[Why, set[Word]] = {}
    for name in NAMES:
        for code, verdict in zip(at_once(name).why, one_by_one(name), strict=True):
            seen[Why(int(code))] += 1
            words.setdefault(Why(int(code)), set()).add(verdict.word)
    for why, (study, rule) in SPECIAL.items():
        words.setdefault(why, set()).add(judge(frame_of(study.arms), rule.region).word)
    reached = [why for why in Why if why != Why.FEW_CARRY]  # of no study here: none is skewed
    assert set(words) == set(reached)
    assert words == {why: {why.word} for why in reached}
    assert sum(seen.values()) == sum(kind.studies for kind in KINDS) >= 300
    assert min(seen[why] for why in reached if why not in SPECIAL) >= 3


@pytest.mark.parametrize(
    ("why", "word"),
    [
        (Why.NO_CEILING, "invalid"),
        (Why.DEGENERATE, "invalid"),
        (Why.FEW_CARRY, "inconclusive"),
        (Why.OUTSIDE, "refuted"),
        (Why.BETWEEN, "inconclusive"),
        (Why.WEAK_RATIO, "inconclusive"),
        (Why.CONTROL_MOVES, "invalid"),
        (Why.CONTROL_UNDECIDED, "inconclusive"),
        (Why.CONTROL_AS_FAR, "invalid"),
        (Why.CONTROL_MAYBE_AS_FAR, "inconclusive"),
        (Why.INSIDE, "supported"),
    ],
)
def test_the_words_of_the_reasons(why: Why, word: Word) -> None:
    assert why.word == word


def test_every_study_has_exactly_one_word() -> None:
    for name in NAMES:
        found = at_once(name)
        each = [
            found.has_word(word) for word in ("supported", "refuted", "inconclusive", "invalid")
        ]
        assert np.sum(each, axis=0).tolist() == [1] * len(found.why)


def test_fewer_than_ten_clusters_are_not_judged() -> None:
    scores = {arm: one[:, :10] for arm, one in studies("two edges").items()}
    assert decide(scores, Rule(EIGHTY)).why.shape == (20,)
    few = {arm: one[:, :9] for arm, one in scores.items()}
    with pytest.raises(ValueError, match=f"9 clusters, expected at least {FEWEST_CLUSTERS}"):
        decide(few, Rule(EIGHTY))


def test_a_gap_has_no_ceiling_no_weak_ratio_and_no_controls() -> None:
    study = Study(0.5, n=20, controls={"noise": 0.5})
    found = decide(study.arms, Rule(Region(low=5.0), "gap"))
    assert found.ceilings == ()
    assert found.controls == {}
    assert Why(int(found.why)) == Why.INSIDE


@pytest.mark.parametrize("direction", ["up", "either"])
def test_the_sign_may_be_settled_by_another_grouping(direction: Direction) -> None:
    """Read downwards, a study whose source lies above its base has no gap, whatever it says."""
    scores, rule = Study(0.8).arms, replace(Rule(EIGHTY), direction=direction)
    assert Why(int(decide(scores, rule).why)) == Why.INSIDE
    own = orientation(scores, direction)
    assert float(own) == 1
    assert Why(int(decide(scores, rule, own).why)) == Why.INSIDE
    assert Why(int(decide(scores, rule, -own).why)) == Why.NO_CEILING
    below = {arm: -one for arm, one in scores.items()}
    wanted = Why.INSIDE if direction == "either" else Why.NO_CEILING
    assert Why(int(decide(below, rule).why)) == wanted
