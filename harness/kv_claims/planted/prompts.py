"""The task of a planted model: random words of the right class, drawn by hash.

Pair i is the same under any number of pairs, and no prompt is used twice, so pairs are
independent draws from the population that `truth` sums over.
"""

from __future__ import annotations

from kv_claims.planted.catalog import (
    LONGEST_PROMPT,
    N_PAIRS,
    N_STYLES,
    SHORTEST_PROMPT,
    Planted,
)
from kv_claims.planted.words import MARKERS, PLAIN, STYLED, TRIGGERS
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task, sha256


def planted_task(planted: Planted, n_pairs: int = N_PAIRS, *, first: int = 0) -> Task:
    """A task of `n_pairs` pairs, from the first-th of the population's endless list on.

    Its lexicon is the marker words.
    """
    numbers = range(first, first + n_pairs)
    lexicon = frozenset(MARKERS)
    return Task(
        name=f"planted:{planted.name}",
        about=planted.about,
        sources=tuple(_prompt(planted, "source", i) for i in numbers),
        bases=tuple(_prompt(planted, "base", i) for i in numbers),
        pairing="one-to-one",
        scorer=Lexicon(lexicon),
        lexicon=lexicon,
        where=f"planted:{planted.name}",
    )


def _prompt(planted: Planted, side: str, index: int) -> Prompt:
    stream = f"{planted.name}:{side}:{index}"
    length = SHORTEST_PROMPT + _draw(stream, "length", LONGEST_PROMPT - SHORTEST_PROMPT + 1)
    triggers, others = TRIGGERS, PLAIN
    if planted.styled:
        style = _draw(stream, "style", N_STYLES)
        triggers, others = TRIGGERS[style::N_STYLES], STYLED[style::N_STYLES]
    marked = planted.is_trigger(length) if side == "source" else [False] * length
    words = [
        _word(triggers if is_trigger else others, f"{stream}:{k}")
        for k, is_trigger in enumerate(marked)
    ]
    return Prompt(id=f"{side}-{index:03d}", family=f"{side}-{index:03d}", text=" ".join(words))


def _word(words: tuple[str, ...], stream: str) -> str:
    return words[_draw(stream, "word", len(words))]


def _draw(stream: str, what: str, n: int) -> int:
    """A whole number from 0 to n-1, uniform to within n / 2**64."""
    return int(sha256(f"{stream}:{what}")[:16], 16) % n
