"""Laws of what a scorer counts, over texts of any letters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.published.scoring import Markers, WithBonus
from harness.tasks.scorers import (
    PUBLISHED_MARKERS,
    Lexicon,
    Published,
    Scorer,
    inside_words,
    placed_words,
    words_of,
)

LEXICON = Lexicon(frozenset({"self", "itself", "strasse", "loop"}))
# Markers, whole and in parts, beside letters that become longer, or other letters, when folded.
PIECES = (*PUBLISHED_MARKERS, "self", "SELF", "stra\u00dfe", "\u0130", "\u1e9e", "\ufb03", "\u01f0")
texts = st.lists(
    st.sampled_from([*PIECES, " ", " ", ", ", "-", "'", "x"]) | st.text(max_size=3), max_size=30
).map("".join)


def per_hit(scorer: Scorer, text: str) -> float:
    """What a hit adds to the score of a text."""
    return 100.0 / max(1, len(words_of(text))) if scorer is LEXICON else 1.0


@given(text=st.text() | texts)
def test_placed_words_are_the_words_in_their_order_and_place(text: str) -> None:
    placed = placed_words(text)
    assert [word.word for word in placed] == words_of(text)
    for word in placed:
        assert word.word in text[word.start : word.stop].casefold()
    starts = [word.start for word in placed]
    assert starts == sorted(starts)


@given(text=texts)
@pytest.mark.parametrize(
    ("scorer", "bonus"),
    [
        (LEXICON, lambda _: 0.0),
        (Published(), Published().bonus),
        (Markers(substrings=True), lambda _: 0.0),
        (WithBonus(LEXICON), Published().bonus),
    ],
    ids=["lexicon", "published", "markers", "with-bonus"],
)
def test_the_hits_are_the_score_but_for_the_bonus(
    scorer: Scorer, bonus: Callable[[str], float], text: str
) -> None:
    plain = scorer.plain if isinstance(scorer, WithBonus) else scorer
    wanted = len(scorer.hits(text)) * per_hit(plain, text) + bonus(text)
    assert abs(scorer(text) - wanted) < 1e-9


@given(text=texts)
def test_a_lexicon_counts_no_part_of_a_word(text: str) -> None:
    assert not inside_words(text, LEXICON.hits(text))


@given(text=texts)
def test_each_published_hit_is_its_marker(text: str) -> None:
    there = [text[hit.start : hit.stop].lower() for hit in Published().hits(text)]
    assert there == [marker for marker in PUBLISHED_MARKERS if marker in text.lower()]


@given(text=st.text(alphabet="abcdefghijklmnopqrstuvwxyz '-,.", max_size=60) | texts)
def test_markers_as_words_have_no_hit_inside_a_word(text: str) -> None:
    assert not inside_words(text, Markers(substrings=False).hits(text))
