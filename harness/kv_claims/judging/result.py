"""What a judgment says: its word and every number that stands beside it. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Literal, get_args

from kv_claims.claims.claim import Estimand, Region
from kv_claims.judging.checks import Check
from kv_claims.judging.fieller import Interval
from kv_claims.judging.frame import ARMS, Spread
from kv_claims.plain import number

Word = Literal["supported", "refuted", "inconclusive", "invalid"]
WORDS: tuple[Word, ...] = get_args(Word)
_NAME = 10
"""Width of the names in what is printed."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """What was found. Printed, it is about ten lines; its repr is one.

    verified: every check was run (passed or not); False for a bare table of scores.
    estimate, interval: transfer or difference as a share of source - base (1 is the source), or a
        gap in the outcome's unit; the interval is at `level`; None where the data do not
        identify it.
    interval_other: the interval at the other of the two levels (0.90, 0.95; closer to 1 where
        the claim is one of many).
    means: mean score of each arm over clusters, in the outcome's unit.
    pairs_needed: with inconclusive, the pairs that would decide at the observed means and
        spreads; None if none would.
    weighings: the estimate by what weighs the same, pairs or clusters: that which was judged first,
        then any other where clusters are not all of one size (`kv_claims.judging.weighing`).
    spreads: how scores vary over clusters, for each way in which pairs are grouped.
    region, estimand: what was claimed of what; None of a cell that was not run.
    """

    word: Word
    reason: str
    verified: bool
    estimate: float | None
    interval: Interval | None
    level: float
    interval_other: Interval | None
    means: dict[str, float]
    pairs: int
    clusters: int
    checks: tuple[Check, ...]
    p_supported: float | None = None
    p_refuted: float | None = None
    pairs_needed: int | None = None
    controls: dict[str, dict[str, object]] = field(default_factory=dict)
    weighings: dict[str, float] = field(default_factory=dict)
    spreads: tuple[Spread, ...] = ()
    region: Region | None = None
    estimand: Estimand = "transfer"

    def __repr__(self) -> str:
        said = dict(self._said())
        parts = [f"{self.estimand} {said[self.estimand]}", said.get("interval", "")]
        parts += [f"claimed {said['claimed']}" if "claimed" in said else "", f"{self.pairs} pairs"]
        flag = "" if self.verified else " (not verified)"
        return f"<Verdict {self.word}{flag}: {', '.join(filter(None, parts))}>"

    def __str__(self) -> str:
        not_run = sum(check.passed is None for check in self.checks)
        lines = [self.word.upper() + (f" (not verified: {not_run} checks not run)" * (not_run > 0))]
        for name, text in self._said():
            head, below = f"  {name:<{_NAME}} ", " " * (_NAME + 3)
            lines += wrap(
                text, 96, initial_indent=head, subsequent_indent=below, break_on_hyphens=False
            )
        return "\n".join(lines)

    def _said(self) -> Iterator[tuple[str, str]]:
        """What is printed below the word, by name; what there is nothing of is left out."""
        if self.region is not None:
            yield "claimed", str(self.region)
        yield self.estimand, "no estimate" if self.estimate is None else number(self.estimate, 3)
        if self.interval is not None:
            low, high = (number(end, 3) for end in self.interval)
            yield "interval", f"[{low}, {high}] at {100 * self.level:.3g}%"
        if len(self.weighings) > 1:
            each = (f"{what} {number(value, 3)}" for what, value in self.weighings.items())
            yield "weighing", ", ".join(each)
        yield "pairs", str(self.pairs) + (f" in {self.clusters} clusters" * (self.clusters > 0))
        if self.means:
            arms = sorted(self.means, key=lambda arm: ARMS.index(arm) if arm in ARMS else len(ARMS))
            yield "means", ", ".join(f"{arm} {self.means[arm]:.4g}" for arm in arms)
        if self.controls:
            yield "controls", ", ".join(map(_of_control, self.controls, self.controls.values()))
        if failed := [check.name for check in self.checks if check.passed is False]:
            yield "failed", ", ".join(failed)
        yield "reason", self.reason


def _of_control(arm: str, found: Mapping[str, object]) -> str:
    moved = found["transfer"]
    return f"{arm} {number(moved if isinstance(moved, float) else None, 3)} ({found['state']})"
