"""Rare effects: a patch that changes few pairs, or leaves few as they are, by one source - base.

Of studies of n pairs of which a share p is unlike the others, (1 - p)^n see none that is. What the
rule says then rests on the count of zero (`kv_claims.judging.unseen`) and is held to its rates;
what it says where some were seen rests on Student's t, whose rates are shown beside and not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kv_claims.calibration.judged import EDGES, Scores, covers, judge_crossed, placed, rule_for
from kv_claims.calibration.rows import Row, Wanted
from kv_claims.judging.contrast import alike, interval_ends
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.decide import decide
from kv_claims.judging.estimand import contrast
from kv_claims.judging.fieller import Bools, Floats
from kv_claims.judging.result import Word

RARE_PAIRS, RARE_SHARES = (12, 20, 60, 200), (0.02, 0.05, 0.1, 0.2)
_WIDTH = 0.2
_NONE = "where none was seen"
_MISSED = f"missed, {_NONE}"
_ERRORS: dict[Word, float] = {"supported": 0.05, "refuted": 0.025}


class Rare(NamedTuple):
    """Pairs of which a share is unlike the others. usual: the transfer of those others, 0 or 1."""

    share: float
    usual: int = 0

    @property
    def truth(self) -> float:
        """The transfer of the population."""
        return self.share if self.usual == 0 else 1 - self.share

    def scores(self, rng: np.random.Generator, unlike: Bools) -> Scores:
        """Scores whose gap varies. unlike: `[study, pair]`."""
        base, gap = rng.gamma(2.0, 2.0, unlike.shape), rng.gamma(9.0, 1.0, unlike.shape)
        moved = unlike if self.usual == 0 else ~unlike
        return {"base": base, "source": base + gap, "patched": np.where(moved, base + gap, base)}


def rare_rows(rng: np.random.Generator, studies: int) -> list[Row]:
    """A row for each share and number of pairs, of both kinds."""
    return [
        _row(Rare(share, usual), rng, studies, pairs)
        for usual in (0, 1)
        for share in RARE_SHARES
        for pairs in RARE_PAIRS
    ]


def rare_crossed_rows(rng: np.random.Generator, studies: int) -> list[Row]:
    """Crossed pairs, 12 sources x 20 bases: what makes a pair unlike is its source, or its base."""
    sides = Sharing(np.arange(60) % 12, np.arange(60) % 20)
    rows = []
    for what, shares in (("source", (0.1, 0.0)), ("base", (0.0, 0.1)), ("both", (0.06, 0.06))):
        by_source, by_base = (
            (rng.random((studies, side.max() + 1)) < share)[:, side]
            for side, share in zip(sides, shares, strict=True)
        )
        unlike: Bools = by_source | by_base
        none: Bools = np.asarray(~unlike.any(-1))
        truth = 1 - (1 - shares[0]) * (1 - shares[1])
        scores = Rare(truth).scores(rng, unlike)
        counts: dict[str, int] = {}
        for place in EDGES:
            rule = rule_for(placed(truth, _WIDTH)[place])
            judged, low, high = judge_crossed(scores, sides, rule)
            counts |= _counted(place, {word: judged.has_word(word) for word in _ERRORS}, none)
        seen = _Seen(none, low, high)
        rows.append(_as_row(f"crossed, 12 x 20, by {what}", 60, truth, seen, counts))
    return rows


class _Seen(NamedTuple):
    """Studies in which none was seen, and the ends of the 95% interval, `[study]`."""

    none: Bools
    low: Floats
    high: Floats


def _row(law: Rare, rng: np.random.Generator, studies: int, pairs: int) -> Row:
    scores = law.scores(rng, rng.random((studies, pairs)) < law.share)
    found = contrast(scores, "transfer", np.ones(studies))
    none = alike(found) & (found.estimate == law.usual)
    counts: dict[str, int] = {}
    for place in EDGES:
        judged = decide(scores, rule_for(placed(law.truth, _WIDTH)[place]))
        counts |= _counted(place, {word: judged.has_word(word) for word in _ERRORS}, none)
    name = "few change" if law.usual == 0 else "few do not become their source"
    seen = _Seen(none, *interval_ends(found, 0.95))
    return _as_row(name, pairs, law.truth, seen, counts)


def _counted(place: str, words: Mapping[Word, Bools], none: Bools) -> dict[str, int]:
    """Studies by word: all of them, and those in which none was seen."""
    counts: dict[str, int] = {}
    for word, is_so in words.items():
        counts[f"{word} {place}, {_NONE}"] = int((is_so & none).sum())
        counts[f"{word} {place}"] = int(is_so.sum())
    return counts


def _as_row(cell: str, pairs: int, truth: float, seen: _Seen, counts: dict[str, int]) -> Row:
    none, low, high = seen
    missed = none & ~covers(low, high, truth)
    wanted = [
        Wanted(f"{word} {place}, {_NONE}", "at most", rate)
        for word, rate in _ERRORS.items()
        for place in EDGES
    ]
    return Row(
        "rare",
        cell,
        len(none),
        {"pairs": pairs, "truth": truth},
        {"none was seen": int(none.sum()), _MISSED: int(missed.sum()), **counts},
        (Wanted(_MISSED, "at most", 0.025), *wanted),
    )
