"""What a planted model makes of answers: their probabilities in closed form, pair by pair.

An answer is words of the two classes that the model speaks; each has the probability of its class
at its step over the words of that class, at temperature 1. A marker that was fed before it counts
as one that was spoken. Promises: as exact as `law`. Does not: know answers of other words, nor one
of several words behind a donor whose own luck is followed; both are refused with UnknownTruth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kv_claims.claims.outcome import Outcome
from kv_claims.errors import UsageError
from kv_claims.planted.circuit import Floats
from kv_claims.planted.law import Law
from kv_claims.planted.unknown import UnknownTruth
from kv_claims.planted.words import MARKERS
from kv_claims.tasks.answers import Options
from kv_claims.tasks.behind import options_behind
from kv_claims.tasks.task import Task

_TIE = 1e-9
"""Log-probabilities that lie nearer are the same but for rounding: nothing says which is larger."""


class Texts(NamedTuple):
    """The texts of a pair, as words."""

    options: Options
    words: tuple[tuple[str, ...], ...]


def texts_of(task: Task, outcome: Outcome) -> list[Texts]:
    """The texts behind the prompts of each pair of a task. Raises UsageError where one has none."""
    assert outcome.behind is not None
    found = []
    for pair in task.pairs:
        options = options_behind(pair, outcome.behind)
        found.append(Texts(options, tuple(tuple(text.split()) for text in options.texts)))
    return found


def longest(texts: Sequence[Texts]) -> int:
    """Words of the longest text."""
    return max(len(words) for one in texts for words in one.words)


def values(law: Law, texts: Sequence[Texts], outcome: Outcome, noise: Floats | None) -> Floats:
    """The outcome of each row of a law, `[row]`.

    law: at temperature 1, each pair's rows one beside the other. noise: what it adds to marker
    words, `[row, step]`; None for nothing.
    """
    rows = law.logits.shape[1]
    times = rows // len(texts)
    reading = _Reading(law, noise)
    found = [
        _value([reading.logp(row, words) for words in one.words], one, outcome, reading, row)
        for number, one in enumerate(texts)
        for row in range(number * times, (number + 1) * times)
    ]
    return np.array(found)


class _Reading:
    """The words of a law, with noise on its markers."""

    def __init__(self, law: Law, noise: Floats | None) -> None:
        self._law = law
        self._noise = np.zeros(law.logits.shape[1:]) if noise is None else noise
        self._class = {word: k for k, words in enumerate(law.classes) for word in words}
        self._sizes = np.array([len(words) for words in law.classes])
        self._given: dict[tuple[int, int], Floats] = {}

    def logp(self, row: int, words: Sequence[str]) -> float:
        """Log-probability of words, one after another."""
        total, markers = 0.0, 0
        if len(words) > 1 and self._law.of_donor.any():
            raise UnknownTruth("an answer of several words behind a donor that goes on by itself")
        for step, word in enumerate(words):
            if word not in self._class:
                raise UnknownTruth(
                    f"answer {' '.join(words)!r}: {word!r} is no word that is spoken"
                )
            k = self._class[word]
            share = self._shares(step, markers)[k, row]
            total += float(np.log(share / self._sizes[k]))
            markers += word in MARKERS
        return total

    def rank(self, row: int, word: str) -> float:
        """1 + the words that are likelier than one, right behind the prompt."""
        each = self._shares(0, 0)[:, row] / self._sizes
        likelier = each > each[self._class[word]] * (1 + _TIE)
        return 1.0 + float(self._sizes[likelier].sum())

    def _shares(self, step: int, markers: int) -> Floats:
        """Of each class, `[class, row]`, where so many markers stand before."""
        if (step, markers) not in self._given:
            shift = self._noise[:, step] + markers * self._law.own[:, step]
            self._given[step, markers] = self._law.given(shift, step)
        return self._given[step, markers]


def _value(
    logp: Sequence[float], one: Texts, outcome: Outcome, reading: _Reading, row: int
) -> float:
    if outcome.name == "logit_diff":
        if not one.options.has_foil:
            raise UsageError(f"outcome {outcome}: no foil")
        return logp[0] - logp[1]
    if outcome.name == "prob":
        return float(np.exp(logp[0]))
    if outcome.name == "rank":
        return reading.rank(row, one.words[0][0])
    if outcome.name in ("accuracy", "choice"):
        sizes = [len(text.strip().encode()) for text in one.options.texts]
        scaled = logp if outcome.name == "accuracy" else np.array(logp) / sizes
        ahead = scaled[0] - max(scaled[1:])
        if abs(ahead) < _TIE:
            raise UnknownTruth(f"outcome {outcome}: two answers are as likely as each other")
        return float(ahead > 0)
    loss = -logp[0] / len(one.words[0])
    return loss if outcome.name == "loss" else float(np.exp(loss))
