"""How well a scorer tells generations of sources from those of bases, and what it counts there.

Promises: numbers of base and source texts alone, whatever is patched; the same numbers for the
same scores, as the bootstrap's luck is made from them; nothing is drawn from a global generator.
Does not: judge. A claim is judged by the gap between source and base (*no-ceiling*), not by this.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from kv_claims.errors import UsageError
from kv_claims.measure.behavior import NGRAM
from kv_claims.tasks.scorers import Hit, Published, Scorer
from kv_claims.tasks.words import placed_words, words_of

LEVEL = 0.95
RESAMPLES = 2000

Floats = npt.NDArray[np.float64]
Clusters = Mapping[str, Mapping[str, str]]
"""By what pairs are clustered ('source', 'base', 'pair'), pair id to cluster."""


class Scored(NamedTuple):
    """The score of one generated text. pair: the id of its pair."""

    pair: str
    seed: int
    score: float


@dataclass(frozen=True)
class Separation:
    """How far scores of source texts lie above those of base texts.

    auc: probability that a source text scores higher than a base text, ties half: 1 where all
        do, 1/2 where scores tell nothing. interval: [low, high] at `LEVEL`, by bootstrap over the
        clusters of pairs; None where resampling shows no spread (all scores are equal, or all
        source texts score above all base texts) or there are fewer than two clusters, and `why`
        says so.
    by, clusters: what was drawn, and how many of it there are; of two ways the wider interval.
    false_positives: base texts that score above 0. rate_interval: Wilson's, of their share, at
        `LEVEL`, each text counted as independent of the others.
    """

    auc: float
    interval: tuple[float, float] | None
    why: str | None
    by: str
    clusters: int
    source_texts: int
    base_texts: int
    false_positives: int
    rate_interval: tuple[float, float]

    @property
    def rate(self) -> float:
        """Share of base texts that score above 0."""
        return self.false_positives / self.base_texts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the evidence."""
        return {
            "auc": self.auc,
            "interval": None if self.interval is None else list(self.interval),
            "level": LEVEL,
            "why": self.why,
            "by": self.by,
            "clusters": self.clusters,
            "texts": {"source": self.source_texts, "base": self.base_texts},
            "false_positives": self.false_positives,
            "false_positive_rate": self.rate,
            "false_positive_interval": list(self.rate_interval),
        }


def separation(source: Sequence[Scored], base: Sequence[Scored], clusters: Clusters) -> Separation:
    """Measure how scores of source texts lie to those of base texts.

    clusters: how the pairs are clustered, each way in which they are (`tasks.task.clusters_of`).
    Raises UsageError where an arm has no text, or a pair no cluster.
    """
    if not source or not base:
        raise UsageError("separation: an arm without a text, expected at least one in each")
    positive = sum(one.score > 0 for one in base)
    rate = stats.binomtest(positive, len(base)).proportion_ci(LEVEL, method="wilson")
    # Of two ways of clustering the wider interval is shown, and one without an interval last.
    by, drawn = max(
        ((by, _bootstrap(source, base, cluster)) for by, cluster in clusters.items()),
        key=lambda found: found[1].width,
    )
    return Separation(
        auc=auc([one.score for one in source], [one.score for one in base]),
        interval=drawn.interval,
        why=drawn.why,
        by=by,
        clusters=drawn.clusters,
        source_texts=len(source),
        base_texts=len(base),
        false_positives=positive,
        rate_interval=(float(rate.low), float(rate.high)),
    )


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Probability that one of the first scores is above one of the second, ties half."""
    return float(_wins(np.asarray(higher, float), np.asarray(lower, float)).mean())


def repetition_share(texts: Iterable[str], scorer: Scorer) -> float | None:
    """The share of these texts' scores that comes from repetition; None where all score 0.

    From repetition come the hits that lie inside a word 4-gram that stood in the text before (a
    text's hits share its score equally), and the published scorer's bonus.
    """
    points = repeated = 0.0
    for text in texts:
        score = scorer(text)
        bonus = scorer.bonus(text) if isinstance(scorer, Published) else 0.0
        points += score
        repeated += bonus
        if score > bonus and (again := _repeated_grams(text)):
            hits = scorer.hits(text)
            inside = sum(_inside(hit, again) for hit in hits)
            repeated += (score - bonus) * inside / len(hits)
    return repeated / points if points else None


class _Drawn(NamedTuple):
    """A bootstrap over some clusters."""

    clusters: int
    interval: tuple[float, float] | None
    why: str | None

    @property
    def width(self) -> float:
        return -1.0 if self.interval is None else self.interval[1] - self.interval[0]


def _bootstrap(
    source: Sequence[Scored], base: Sequence[Scored], cluster: Mapping[str, str]
) -> _Drawn:
    """A percentile interval of the AUC; a cluster is drawn with all texts of its pairs."""
    if missing := {one.pair for one in (*source, *base)} - set(cluster):
        raise UsageError(f"separation: {len(missing)} pairs without a cluster")
    names = sorted({cluster[one.pair] for one in (*source, *base)})
    if len(names) < 2:
        return _Drawn(len(names), None, "one cluster: there is nothing to resample")
    wins, compared = _by_cluster(source, base, {name: k for k, name in enumerate(names)}, cluster)

    def statistic(drawn: npt.NDArray[Any], axis: int = -1) -> Floats:
        """AUC of drawn clusters, `... cluster` to `...`."""
        counts = _counts(np.moveaxis(drawn, axis, -1), len(names))
        won, pairs = (((counts @ one) * counts).sum(-1) for one in (wins, compared))
        # Where trials are missing a resample may compare nothing, which tells nothing.
        found: Floats = np.divide(won, pairs, out=np.full_like(won, 0.5), where=pairs > 0)
        return found

    found = stats.bootstrap(
        (np.arange(len(names)),),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(_seed_of(source, base)),
    )
    if not np.ptp(found.bootstrap_distribution):
        return _Drawn(len(names), None, _why_no_spread(source, base))
    low, high = found.confidence_interval
    return _Drawn(len(names), (float(low), float(high)), None)


def _why_no_spread(source: Sequence[Scored], base: Sequence[Scored]) -> str:
    above, below = ({one.score for one in some} for some in (source, base))
    if len(above | below) == 1:
        why = "all scores are equal: "
    elif min(above) > max(below) or max(above) < min(below):
        why = "source and base scores do not overlap: "
    else:
        why = ""
    return f"{why}no resample has another AUC"


def _by_cluster(
    source: Sequence[Scored],
    base: Sequence[Scored],
    number: Mapping[str, int],
    cluster: Mapping[str, str],
) -> tuple[Floats, Floats]:
    """Wins of source over base texts, and how many were compared, `cluster cluster`."""
    wins = _wins(*(np.array([one.score for one in some], float) for some in (source, base)))
    to_source, to_base = (
        np.eye(len(number))[[number[cluster[one.pair]] for one in some]] for some in (source, base)
    )
    return to_source.T @ wins @ to_base, np.outer(to_source.sum(0), to_base.sum(0))


def _wins(higher: Floats, lower: Floats) -> Floats:
    """1 where a number of the first is above one of the second, 1/2 where equal; `first second`."""
    apart = higher[:, None] - lower
    return np.asarray((1.0 + np.sign(apart)) / 2)


def _counts(drawn: npt.NDArray[Any], n: int) -> Floats:
    """How often each of n things was drawn, `... draw` to `... thing`."""
    rows = drawn.reshape(-1, drawn.shape[-1]).astype(np.int64)
    flat = (rows + n * np.arange(len(rows))[:, None]).ravel()
    counts = np.bincount(flat, minlength=n * len(rows)).astype(float)
    return counts.reshape(*drawn.shape[:-1], n)


def _seed_of(source: Sequence[Scored], base: Sequence[Scored]) -> int:
    """A number from the scores alone, whatever order they come in."""
    table = sorted(
        (arm, *one) for arm, some in (("base", base), ("source", source)) for one in some
    )
    return int(hashlib.sha256(json.dumps(table).encode()).hexdigest(), 16)


def _repeated_grams(text: str) -> list[Hit]:
    """Where word 4-grams stand that stood in the text before, in order."""
    folded = words_of(text)
    grams = list(zip(*(folded[k:] for k in range(NGRAM)), strict=False))
    if len(set(grams)) == len(grams):
        return []
    words, again = placed_words(text), []
    seen: set[tuple[str, ...]] = set()
    for k, gram in enumerate(grams):
        if gram in seen:
            again.append(Hit(words[k].start, words[k + NGRAM - 1].stop))
        seen.add(gram)
    return again


def _inside(hit: Hit, spans: Sequence[Hit]) -> bool:
    """Whether a hit lies inside one of some spans, which have starts and stops in order."""
    # Of the spans that start in time, the last one reaches furthest.
    started = bisect_right(spans, hit.start, key=lambda span: span.start)
    return started > 0 and hit.stop <= spans[started - 1].stop
