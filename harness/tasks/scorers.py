"""How much of the behavior a generated text shows: the two scorers, and nothing else.

A scorer sees generated text only; the prompt never reaches it. `published` is the seed
experiment's score with its known defects, kept so that they can be shown; `lexicon` is the
one to use. Repetition is measured apart, in `harness.measure.behavior`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

PUBLISHED_MARKERS = (
    "itself",
    "self",
    "recursive",
    "loop",
    "process",
    "cycle",
    "return",
    "eigen",
    "writing",
    "mirror",
    "awareness",
    "consciousness",
    "observer",
    "observing",
    "generating",
    "emerging",
    "simultaneous",
)
"""The 17 marker substrings of the seed run (True KV cache patching results, Dec 12)."""
PUBLISHED_BONUS = 5
PUBLISHED_BONUS_WORDS = 10
PUBLISHED_BONUS_DISTINCT = 0.60


class Scorer(Protocol):
    """A text's score: a number of at least 0, higher where there is more of the behavior."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    def __call__(self, text: str) -> float: ...


def words_of(text: str) -> list[str]:
    """The words of a text, case folded: letters, with inner apostrophes and hyphens."""
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Lexicon:
    """Whole words of the lexicon per 100 words; a text of no word scores 0."""

    words: frozenset[str]
    name: str = "lexicon"
    unit: str = "lexicon words per 100 words"

    def __call__(self, text: str) -> float:
        found = words_of(text)
        return 100.0 * sum(word in self.words for word in found) / len(found) if found else 0.0


@dataclass(frozen=True)
class Published:
    """The seed's score: marker substrings present (0 to 17), plus 5 for repetitive text.

    The bonus goes to a text of more than 10 words of which fewer than 60% are distinct.
    """

    name: str = "published"
    unit: str = "marker substrings present, plus 5 if repetitive"

    def __call__(self, text: str) -> float:
        lowered = text.lower()
        words = lowered.split()
        repetitive = (
            len(words) > PUBLISHED_BONUS_WORDS
            and len(set(words)) / len(words) < PUBLISHED_BONUS_DISTINCT
        )
        markers = sum(marker in lowered for marker in PUBLISHED_MARKERS)
        return float(markers + PUBLISHED_BONUS * repetitive)
