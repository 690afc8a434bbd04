"""What a judgment says: its word and every number that stands beside it. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from kv_claims.judging.checks import Check
from kv_claims.judging.fieller import Interval
from kv_claims.judging.frame import Spread

Word = Literal["supported", "refuted", "inconclusive", "invalid"]
WORDS: tuple[Word, ...] = get_args(Word)


@dataclass(frozen=True)
class Verdict:
    """What was found.

    verified: every check was run (passed or not); False for a bare table of scores.
    estimate, interval: transfer or difference as a share of source - base (1 is the source), or a
        gap in the outcome's unit; the interval is at `level`; None where the data do not
        identify it.
    interval_other: the interval at the other of the two levels (0.90, 0.95; closer to 1 where
        the claim is one of many).
    means: mean score of each arm over clusters, in the outcome's unit.
    pairs_needed: with inconclusive, the pairs that would decide at the observed means and
        spreads; None if none would.
    spreads: how scores vary over clusters, for each way in which pairs are grouped.
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
    spreads: tuple[Spread, ...] = ()
