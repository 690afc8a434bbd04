"""How much of the behavior a generated text shows: the two scorers, and nothing else.

A scorer sees generated text only; the prompt never reaches it. `published` is the seed
experiment's score with its known defects, kept so that they can be shown; `lexicon` is the
one to use. Repetition is measured apart, in `harness.measure.behavior`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol

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


class Hit(NamedTuple):
    """A stretch that a scorer counted: `text[start:stop]` of the text as it was given."""

    start: int
    stop: int


class Word(NamedTuple):
    """A word, case folded, and where it stands: `text[start:stop]` of the text as given."""

    word: str
    start: int
    stop: int


class Scorer(Protocol):
    """A text's score: a number of at least 0, higher where there is more of the behavior.

    hits: what was counted, each thing once; every hit adds the same to the score.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    def __call__(self, text: str) -> float: ...
    def hits(self, text: str) -> tuple[Hit, ...]: ...


def words_of(text: str) -> list[str]:
    """The words of a text, case folded: letters, with inner apostrophes and hyphens."""
    return _WORD.findall(text.casefold())


def placed_words(text: str) -> list[Word]:
    """The words of `words_of`, each with its place in the text."""
    place = _places(text, str.casefold)
    found = _WORD.finditer(text.casefold())
    return [Word(m[0], place[m.start()], place[m.end() - 1] + 1) for m in found]


def inside_words(text: str, hits: Iterable[Hit]) -> list[Hit]:
    """The hits that do not start and end where a word does (the failure *substring-markers*)."""
    words = placed_words(text)
    starts, stops = {word.start for word in words}, {word.stop for word in words}
    return [hit for hit in hits if hit.start not in starts or hit.stop not in stops]


def _places(text: str, fold: Callable[[str], str]) -> Sequence[int]:
    """For every character of `fold(text)`, the index in `text` of that it comes from.

    Folding can make one character several ('\u00df' becomes 'ss'), and none fewer.
    """
    if len(fold(text)) == len(text):
        return range(len(text))
    return [index for index, character in enumerate(text) for _ in fold(character)]


@dataclass(frozen=True)
class Lexicon:
    """Whole words of the lexicon per 100 words; a text of no word scores 0."""

    words: frozenset[str]
    name: str = "lexicon"
    unit: str = "lexicon words per 100 words"

    def __call__(self, text: str) -> float:
        found = words_of(text)
        return 100.0 * sum(word in self.words for word in found) / len(found) if found else 0.0

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Every word of the lexicon, each time that it stands in the text."""
        return tuple(
            Hit(start, stop) for word, start, stop in placed_words(text) if word in self.words
        )


@dataclass(frozen=True)
class Published:
    """The seed's score: marker substrings present (0 to 17), plus 5 for repetitive text.

    The bonus goes to a text of more than 10 words of which fewer than 60% are distinct.
    """

    name: str = "published"
    unit: str = "marker substrings present, plus 5 if repetitive"

    def __call__(self, text: str) -> float:
        lowered = text.lower()
        return sum(marker in lowered for marker in PUBLISHED_MARKERS) + self.bonus(text)

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Every marker present, once: where it is a word if it is one, else where it is first."""
        lowered, place = text.lower(), _places(text, str.lower)
        spots = [
            [Hit(place[m.start()], place[m.end() - 1] + 1) for m in re.finditer(marker, lowered)]
            for marker in PUBLISHED_MARKERS
        ]
        inside = set(inside_words(text, chain.from_iterable(spots)))
        return tuple(
            next((hit for hit in found if hit not in inside), found[0]) for found in spots if found
        )

    def bonus(self, text: str) -> float:
        """The points that a text gets for repetition alone: 0 or 5."""
        words = text.lower().split()
        repetitive = (
            len(words) > PUBLISHED_BONUS_WORDS
            and len(set(words)) / len(words) < PUBLISHED_BONUS_DISTINCT
        )
        return float(PUBLISHED_BONUS * repetitive)


def counted_by(scorer: Scorer) -> dict[str, Any]:
    """A scorer as plain JSON: its name, and the words that it counts where it has a list."""
    words = sorted(scorer.words) if isinstance(scorer, Lexicon) else None
    return {"name": scorer.name, "words": words}
