"""Laws of what a scorer counts, over texts of any letters."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.published.scoring import Markers, WithBonus
from kv_claims.tasks.scorers import PUBLISHED_MARKERS, Lexicon, Published, Scorer, inside_words
from kv_claims.tasks.words import folded, placed_words, words_of

LEXICON = Lexicon(frozenset({"self", "itself", "strasse", "loop"}))
# Markers, whole and in parts, beside letters that become longer, or other letters, when folded.
PIECES = (*PUBLISHED_MARKERS, "self", "SELF", "stra\u00dfe", "\u0130", "\u1e9e", "\ufb03", "\u01f0")
texts = st.lists(
    st.sampled_from([*PIECES, " ", " ", ", ", "-", "'", "x"]) | st.text(max_size=3), max_size=30
).map("".join)

OLD_RULE = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
"""What a word was before scripts other than Latin were thought of."""
# English as it is typed, and as word processors make it.
PRINTED = string.printable + "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00e9\u00cf\u00fc\u00df"


def per_hit(scorer: Scorer, text: str) -> float:
    """What a hit adds to the score of a text."""
    return 100.0 / max(1, len(words_of(text))) if scorer is LEXICON else 1.0


@given(text=st.text() | texts | st.text(alphabet=PRINTED))
def test_placed_words_are_the_words_in_their_order_and_place(text: str) -> None:
    placed = placed_words(text)
    assert [word.word for word in placed] == words_of(text)
    for word in placed:
        assert word.word == folded(text[word.start : word.stop])
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


@given(text=st.text(alphabet=string.printable) | st.text(alphabet=st.characters(max_codepoint=127)))
def test_words_of_ascii_text_are_those_of_the_old_rule(text: str) -> None:
    assert words_of(text) == OLD_RULE.findall(text.casefold())


@given(text=st.text(alphabet=PRINTED) | st.lists(st.sampled_from(PRINTED)).map("".join))
def test_in_printed_english_only_the_apostrophe_is_another(text: str) -> None:
    old = OLD_RULE.findall(text.casefold())
    assert words_of(text) == [word.replace("\u2019", "'") for word in old]


@given(text=st.text())
def test_equivalent_texts_have_the_same_words(text: str) -> None:
    wanted = words_of(text)
    assert all(words_of(unicodedata.normalize(form, text)) == wanted for form in ("NFC", "NFD"))


@given(text=st.text())
def test_what_is_folded_stays(text: str) -> None:
    for word in words_of(text):
        assert folded(word) == word


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
