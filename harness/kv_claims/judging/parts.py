"""One word for a claim of several parts, and for a claim that holds only given something.

A conjunction is true where every part is. So it is *supported* where every part is, each at alpha:
an intersection-union test, whose error is at most alpha without a correction (Berger and Hsu,
Bioequivalence trials, intersection-union tests and equivalence confidence sets, Statistical
Science 11 (1996) 283). It is *refuted* where one part is, and there k parts are k chances to err:
each is refuted at alpha / k (Bonferroni), which `judge_part` sees to and `combine` insists on.

What makes a part invalid is of two kinds. Where the instrument failed, the run says nothing on any
part. Where the statistics of one outcome failed (no gap, no spread, a control that moves it too),
that part alone is untested; another part that is refuted still makes the conjunction false.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from kv_claims.claims.claim import MARGIN, Part
from kv_claims.judging.checks import Check, instrument_failures
from kv_claims.judging.estimand import Direction
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import ALPHA
from kv_claims.judging.verdict import judge

Judged = tuple[Part, Verdict]


class Combined(NamedTuple):
    """The word of a claim, and p-values to be read as a verdict's.

    p_supported: the largest of all parts, given ones included; None where one was not tested.
    p_refuted: k times the smallest of the k parts, but no smaller than that of supporting what is
        given; None where no part, or something given, was not tested.
    """

    word: Word
    reason: str
    p_supported: float | None = None
    p_refuted: float | None = None


def judge_part(
    frame: pd.DataFrame,
    part: Part,
    *,
    of: int = 1,
    margin: float = MARGIN,
    checks: Sequence[Check] = (),
    direction: Direction = "up",
    alpha: float = ALPHA,
) -> Verdict:
    """Judge one part on the trials of its own outcome; see `judge`.

    frame: as in `judge`, its `score` the part's outcome. of: how many parts the conjunction has
    (1 for a simple claim, and for what is given, which is never refuted but only not supported).
    """
    return judge(
        frame,
        part.region,
        margin=margin,
        checks=checks,
        alpha=alpha,
        estimand=part.estimand,
        direction=direction,
        alpha_refuted=alpha / of,
    )


def combine(
    parts: Sequence[Judged], given: Sequence[Judged] = (), *, alpha: float = ALPHA
) -> Combined:
    """One word from those of the parts and of what is given.

    In this order: an instrument failure anywhere is *invalid*; something given that is refuted or
    invalid is *invalid: premise*; an invalid part, unless another is refuted, is *invalid*;
    something given that is inconclusive is *inconclusive: premise undecided*; then one refuted
    part refutes, parts that are all supported support, and all else is inconclusive.
    Raises ValueError for no part at all, or a part refuted at more than alpha / k.
    """
    if not parts:
        raise ValueError("combine: no parts, expected at least one")
    _check_levels(parts, alpha)
    word, reason = _word_of_all(parts, given)
    return Combined(word, reason, _p_supported([*parts, *given]), _p_refuted(parts, given))


def _word_of_all(parts: Sequence[Judged], given: Sequence[Judged]) -> tuple[Word, str]:
    if broken := _instrument(*parts, *given):
        return "invalid", broken
    if failed := _with_word(given, "refuted", "invalid"):
        return "invalid", f"premise: {_listed(failed)}"
    word, reason = _word_of_parts(parts)
    undecided = _with_word(given, "inconclusive")
    if undecided and word != "invalid":
        return "inconclusive", f"premise undecided: {_listed(undecided)}"
    return word, reason


def _word_of_parts(parts: Sequence[Judged]) -> tuple[Word, str]:
    if len(parts) == 1:
        return parts[0][1].word, parts[0][1].reason
    untested = _with_word(parts, "invalid")
    if refuted := _with_word(parts, "refuted"):
        beside = f" (not tested: {_listed(untested)})" if untested else ""
        return "refuted", f"{_listed(refuted)}{beside}"
    if untested:
        return "invalid", _listed(untested)
    if undecided := _with_word(parts, "inconclusive"):
        return "inconclusive", _listed(undecided)
    return "supported", _listed(parts)


def _instrument(*judged: Judged) -> str:
    """Every failed instrument check once, though each part that shares the run lists it."""
    failed = {
        f"{check.name}: {check.detail}": None
        for _, verdict in judged
        for check in instrument_failures(verdict.checks)
    }
    return "; ".join(failed)


def _with_word(judged: Sequence[Judged], *words: Word) -> list[Judged]:
    return [(part, verdict) for part, verdict in judged if verdict.word in words]


def _listed(judged: Sequence[Judged]) -> str:
    return "; ".join(f"{part}: {verdict.reason}" for part, verdict in judged)


def _check_levels(parts: Sequence[Judged], alpha: float) -> None:
    for part, verdict in _with_word(parts, "refuted"):
        p = verdict.p_refuted
        if p is None or p > alpha / len(parts):
            raise ValueError(
                f"combine: {part} is refuted at p {p}, expected at most {alpha / len(parts):g} "
                f"for one of {len(parts)} parts: judge it with judge_part(of={len(parts)})"
            )


def _p_supported(judged: Sequence[Judged]) -> float | None:
    found = [verdict.p_supported for _, verdict in judged]
    tested = [p for p in found if p is not None]
    return max(tested) if len(tested) == len(found) else None


def _p_refuted(parts: Sequence[Judged], given: Sequence[Judged]) -> float | None:
    tested = [verdict.p_refuted for _, verdict in parts if verdict.p_refuted is not None]
    premise = _p_supported(given) if given else 0.0
    if not tested or premise is None:
        return None
    return max(premise, min(1.0, len(parts) * min(tested)))
