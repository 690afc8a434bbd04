"""How much of the behavior a generated text shows: the two scorers, and nothing else.

A scorer sees generated text only; the prompt never reaches it. `published` is the seed
experiment's score with its known defects, kept so that they can be shown; `lexicon` is the
one to use; what a word is says `kv_claims.tasks.words`. Repetition is measured apart, in
`kv_claims.measure.behavior`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, NamedTuple, Protocol

from kv_claims.errors import UsageError
from kv_claims.tasks.words import Word, placed_words, unknown_script, words_of

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
    """Whole words of the lexicon per 100 words; a text of no word scores 0.

    words: as they are spelled; each meets the other spellings that `words.folded` brings to its
        own. In scripts without spaces an entry may be several words, such as two Chinese
        characters: it counts once wherever these follow one another, a longer one before a shorter.
    Raises UsageError for an entry that is no word, and for two that are the same one.
    """

    words: frozenset[str]
    name: str = "lexicon"
    unit: str = "lexicon words per 100 words"

    def __post_init__(self) -> None:
        by_words: dict[tuple[str, ...], str] = {}
        for entry in sorted(self.words):
            if (other := by_words.setdefault(words_of_entry(entry), entry)) != entry:
                raise UsageError(f"lexicon entries {other!r} and {entry!r} are the same word")

    def __call__(self, text: str) -> float:
        found = words_of(text)
        if not found:
            return 0.0
        if self._sequences:
            return 100.0 * len(self.hits(text)) / len(found)
        return 100.0 * sum(word in self._single for word in found) / len(found)

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Every word of the lexicon, each time that it stands in the text."""
        words = placed_words(text)
        found, at = [], 0
        while at < len(words):
            n = self._counted(words, at)
            if n:
                found.append(Hit(words[at].start, words[at + n - 1].stop))
            at += max(1, n)
        return tuple(found)

    def _counted(self, words: Sequence[Word], at: int) -> int:
        """Of how many words the entry is that stands at a place; 0 where there is none."""
        first = words[at].word
        for sequence in self._sequences.get(first, ()):
            here = words[at : at + len(sequence)]
            if [word.word for word in here] == sequence and _is_unbroken(here):
                return len(sequence)
        return int(first in self._single)

    @cached_property
    def _single(self) -> frozenset[str]:
        return frozenset(words[0] for words in map(words_of_entry, self.words) if len(words) == 1)

    @cached_property
    def _sequences(self) -> dict[str, list[list[str]]]:
        """Entries of several words by their first one, the longest first."""
        several = [list(words) for words in map(words_of_entry, self.words) if len(words) > 1]
        by_first: dict[str, list[list[str]]] = {}
        for words in sorted(several, key=len, reverse=True):
            by_first.setdefault(words[0], []).append(words)
        return by_first


def words_of_entry(entry: str) -> tuple[str, ...]:
    """The words, folded, of an entry of a lexicon: one, or several of a script without spaces.

    Raises UsageError for what is no word, or a word of a script in which none can be told apart.
    """
    words = placed_words(entry)
    is_whole = bool(words) and (words[0].start, words[-1].stop) == (0, len(entry))
    if not is_whole or not _is_unbroken(words):
        which = f"; it has {len(words)} words" if len(words) > 1 else ""
        raise UsageError(f"lexicon entry {entry!r}, expected one whole word in lower case{which}")
    if letter := unknown_script(entry):
        raise UsageError(
            f"lexicon entry {entry!r}: {letter} is of a script without spaces for which there is "
            "no dictionary, so none of its words can be counted"
        )
    return tuple(word.word for word in words)


def _is_unbroken(words: Sequence[Word]) -> bool:
    return all(one.stop == two.start for one, two in pairwise(words))


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


@dataclass(frozen=True)
class Unscored:
    """Stands for the scorer of a task that has none: its prompts are asked for answers.

    Every text scores 0; an outcome that would read it is refused (`kv_claims.study.scored`).
    """

    name: str = "none"
    unit: str = "no scorer"

    def __call__(self, text: str) -> float:
        del text
        return 0.0

    def hits(self, text: str) -> tuple[Hit, ...]:
        del text
        return ()


def counted_by(scorer: Scorer) -> dict[str, Any]:
    """A scorer as plain JSON: its name, and the words that it counts where it has a list."""
    words = sorted(scorer.words) if isinstance(scorer, Lexicon) else None
    return {"name": scorer.name, "words": words}
