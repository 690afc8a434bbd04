"""What is seen in a generated text: both scores, its length in words, and its repetition.

Repetition is kept beside the score and never inside it: behavior gained through collapse is
not transfer (docs/failures.md names it *degenerate-text*).
"""

from __future__ import annotations

from typing import NamedTuple

from kv_claims.tasks.generation import Generation
from kv_claims.tasks.python_scorer import score_of
from kv_claims.tasks.scorers import Published, Scorer
from kv_claims.tasks.task import Task
from kv_claims.tasks.words import words_of

NGRAM = 4
DEGENERATE_ABOVE = 0.5
DISTINCT_BELOW = 0.25


class Repetition(NamedTuple):
    """How much of one generated text repeats itself.

    words: number of words, by which rates were divided.
    distinct_share: distinct words / words (0 for a text of no word).
    repeated_4grams: share of the word 4-grams that stood in the text before (0 below 4 words).
    degenerate: more than half of the 4-grams are repeats, or, in a text of at least 4 words, fewer
        than a quarter of the words are distinct.
    """

    words: int
    distinct_share: float
    repeated_4grams: float
    degenerate: bool


class Behavior(NamedTuple):
    """Outcomes of one generated text: the task's own score, two others, and its repetition."""

    score: float
    score_lexicon: float
    score_published: float
    words: int
    distinct_share: float
    repeated_4grams: float
    degenerate: bool


def behavior(said: Generation, task: Task) -> Behavior:
    """Measure one generated text (never its prompt) for a task."""
    return Behavior(
        score_of(said, task.scorer),
        task.by_lexicon(said.text),
        Published()(said.text),
        *repetition(said.text),
    )


def repetition(text: str) -> Repetition:
    """Measure how much of one generated text repeats itself, whatever it is scored by."""
    words = words_of(text)
    ngrams = list(zip(*(words[i:] for i in range(NGRAM)), strict=False))
    repeated = 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
    distinct = len(set(words)) / len(words) if words else 0.0
    few_words = len(words) >= NGRAM and distinct < DISTINCT_BELOW
    return Repetition(
        words=len(words),
        distinct_share=distinct,
        repeated_4grams=repeated,
        degenerate=repeated > DEGENERATE_ABOVE or few_words,
    )


def scorer_of(outcome: str, task: Task) -> Scorer | None:
    """What counts an outcome's hits in a text; None for an outcome that counts none."""
    scorers: dict[str, Scorer] = {
        "behavior": task.scorer,
        "score_lexicon": task.by_lexicon,
        "score_published": Published(),
    }
    return scorers.get(outcome)
