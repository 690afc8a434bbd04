"""The published score and its three defects, each of which can be turned off alone.

`kv_claims.tasks.scorers.Published` is the score with all of them; the task's lexicon, that with
none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from kv_claims.published.defects import DEGENERATE, SUBSTRINGS, UNCALIBRATED
from kv_claims.tasks import scorers
from kv_claims.tasks.scorers import PUBLISHED_MARKERS, Lexicon, Published, Scorer, inside_words
from kv_claims.tasks.words import words_of


class Hit(NamedTuple):
    """A published marker that a text scores. words: those it stands in.

    rule: 'whole word', or 'substring' where it stands inside other words only.
    """

    marker: str
    words: tuple[str, ...]
    rule: str


@dataclass(frozen=True)
class Markers:
    """Published markers present, 0 to 17, each once."""

    substrings: bool
    name: str = "markers"
    unit: str = "markers present"

    def __call__(self, text: str) -> float:
        found = hits(text)
        return float(sum(self.substrings or hit.rule == "whole word" for hit in found))

    def hits(self, text: str) -> tuple[scorers.Hit, ...]:
        """The markers that count, where they stand."""
        found = Published().hits(text)
        inside = [] if self.substrings else inside_words(text, found)
        return tuple(hit for hit in found if hit not in inside)


@dataclass(frozen=True)
class WithBonus:
    """Another score, plus the published bonus for repetitive text."""

    plain: Scorer
    name: str = "with-bonus"

    @property
    def unit(self) -> str:
        return self.plain.unit

    def __call__(self, text: str) -> float:
        return self.plain(text) + bonus(text)

    def hits(self, text: str) -> tuple[scorers.Hit, ...]:
        """What the other score counts; the bonus is for no stretch of the text."""
        return self.plain.hits(text)


def scorer_under(defects: Collection[str], lexicon: frozenset[str]) -> Scorer:
    """The score with these defects; with none, lexicon words per 100 words."""
    plain: Scorer = Lexicon(lexicon)
    if UNCALIBRATED in defects:
        plain = Markers(substrings=SUBSTRINGS in defects)
    return WithBonus(plain) if DEGENERATE in defects else plain


def bonus(text: str) -> float:
    """The points that the published score gives for repetition alone."""
    return Published().bonus(text)


def hits(text: str) -> list[Hit]:
    """The published markers in a text, with the words that hold them."""
    lowered, words = text.lower(), list(dict.fromkeys(words_of(text)))
    found = []
    for marker in PUBLISHED_MARKERS:
        if marker in lowered:
            rule = "whole word" if marker in words else "substring"
            found.append(Hit(marker, tuple(word for word in words if marker in word), rule))
    return found
