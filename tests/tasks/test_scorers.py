"""Both scorers: the one to use, and the published one with its defects, which are shown here."""

from __future__ import annotations

import pytest

from kv_claims.tasks.scorers import PUBLISHED_MARKERS, Hit, Lexicon, Published, Scorer, inside_words
from kv_claims.tasks.words import Word, placed_words, words_of

# As the seed experiment lists them.
MARKERS = [
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
]

published = Published()


# --- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" \n\t", [], id="blank"),
        pytest.param("12 + 3.5 = 15,5 ... !?", [], id="no-letters"),
        pytest.param("One, two; THREE.", ["one", "two", "three"], id="punctuation-and-case"),
        pytest.param("don't o\u2019clock", ["don't", "o'clock"], id="apostrophes"),
        pytest.param("'quoted' rock-'n'-roll", ["quoted", "rock", "n", "roll"], id="quotes"),
        pytest.param("self-aware well- -known", ["self-aware", "well", "known"], id="hyphens"),
        pytest.param("a--b a_b a1b", ["a", "b", "a", "b", "a", "b"], id="not-inside-a-word"),
        pytest.param("Grüße naïve ΣΊΣΥΦΟΣ 雨", ["grüsse", "naïve", "σίσυφοσ", "雨"], id="unicode"),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


# --- lexicon -------------------------------------------------------------------------------

lexicon = Lexicon(frozenset({"self", "mirror", "self-aware", "don't"}))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        pytest.param("self", 100.0, id="one-of-one"),
        pytest.param("The SELF, the Mirror.", 50.0, id="case-and-punctuation"),
        pytest.param("a self b self", 50.0, id="each-time-it-stands"),
        pytest.param("a b c d e f g mirror", 12.5, id="per-100-words"),
        pytest.param("itself himself mirrors mirrored", 0.0, id="whole-words-only"),
        pytest.param("selfish self-made un-self", 0.0, id="not-a-part-of-a-compound"),
        pytest.param("self-aware", 100.0, id="a-compound-is-one-word"),
        pytest.param("don't", 100.0, id="apostrophe"),
        pytest.param("self 1 2 3 4", 100.0, id="numbers-are-no-words"),
        pytest.param("", 0.0, id="empty"),
        pytest.param("42 !!! \n", 0.0, id="no-words"),
    ],
)
def test_lexicon_counts_whole_words_per_100(text: str, score: float) -> None:
    assert lexicon(text) == pytest.approx(score)


def test_lexicon_is_a_rate_a_text_said_twice_scores_the_same() -> None:
    text = "the self looks into the mirror and sees no other "
    assert lexicon(text * 2) == lexicon(text) == pytest.approx(20.0)


def test_an_empty_lexicon_scores_nothing() -> None:
    assert Lexicon(frozenset())("self mirror") == 0.0


# --- published -----------------------------------------------------------------------------


def test_the_published_markers_are_the_17_of_the_seed() -> None:
    assert list(PUBLISHED_MARKERS) == MARKERS
    assert len(set(MARKERS)) == 17


@pytest.mark.parametrize("marker", MARKERS)
def test_each_published_marker_scores_once_wherever_it_stands(marker: str) -> None:
    # 'itself' holds 'self': the defect *substring-markers* within the list itself.
    once = 2 if marker == "itself" else 1
    assert published(f"the {marker} here") == once
    assert published(f"xx{marker.upper()}yy") == once
    assert published(f"{marker} and {marker} again") == once


@pytest.mark.parametrize(
    ("text", "score"),
    [
        pytest.param("Photosynthesis is a complex process in plants.", 1, id="process"),
        pytest.param("He processed the returns himself.", 3, id="process-return-self"),
        pytest.param("A bicycle dealer sold selfies.", 2, id="cycle-self"),
        pytest.param("The cat sat on the mat.", 0, id="none"),
        pytest.param("", 0, id="empty"),
        pytest.param(" ".join(MARKERS), 17, id="all"),
    ],
)
def test_published_counts_substrings_of_plain_prose_too(text: str, score: float) -> None:
    assert published(text) == score


def text_of(words: int, distinct: int) -> str:
    """So many words, so many of them distinct, and none a marker."""
    return " ".join(f"w{min(i, distinct - 1)}" for i in range(words))


@pytest.mark.parametrize(
    ("words", "distinct", "score"),
    [
        pytest.param(10, 1, 0, id="10-words-are-too-few"),
        pytest.param(11, 1, 5, id="11-words-are-enough"),
        pytest.param(11, 6, 5, id="54%-distinct"),
        pytest.param(11, 7, 0, id="64%-distinct"),
        pytest.param(15, 9, 0, id="60%-is-not-below-60%"),
        pytest.param(15, 8, 5, id="just-below-60%"),
        pytest.param(100, 60, 0, id="60-of-100"),
        pytest.param(100, 59, 5, id="59-of-100"),
    ],
)
def test_published_adds_5_for_repetitive_text(words: int, distinct: int, score: float) -> None:
    assert published(text_of(words, distinct)) == score


def test_published_bonus_is_for_repetition_of_anything() -> None:
    """The defect: collapsed text scores more than most of what it should measure."""
    assert published("the " * 50) == 5
    assert published("the mirror observing itself, the mirror") == 4


def test_published_words_are_split_at_spaces_and_compared_without_case() -> None:
    # 'Word' and 'word' are one, 'word,' another: 6 of 11 distinct, and 7 of 11.
    assert published("Word word word word word word a b c d e") == 5
    assert published("Word word word, word word word a b c d e") == 0


def test_published_never_exceeds_22() -> None:
    assert published((" ".join(MARKERS) + " ") * 3) == 22


@pytest.mark.parametrize("scorer", [published, lexicon], ids=["published", "lexicon"])
def test_scores_are_floats_with_a_name_and_a_unit(scorer: Published | Lexicon) -> None:
    assert isinstance(scorer("some text"), float)
    assert isinstance(scorer(""), float)
    assert scorer.name
    assert scorer.unit


# --- hits: what was counted, and where -------------------------------------------------------


def texts_of(scorer: Scorer, text: str) -> list[str]:
    """The stretches that a scorer counted."""
    return [text[hit.start : hit.stop] for hit in scorer.hits(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("One, two", [("one", "One"), ("two", "two")], id="case"),
        pytest.param("a Gro\u00dfe", [("a", "a"), ("grosse", "Gro\u00dfe")], id="longer"),
        pytest.param("\u1e9e a", [("ss", "\u1e9e"), ("a", "a")], id="one-letter-of-two"),
        pytest.param("\ufb03 self", [("ffi", "\ufb03"), ("self", "self")], id="ligature"),
        # Folded, the Turkish letter is an i and a dot, which an i has already.
        pytest.param("a\u0130b self", [("aib", "a\u0130b"), ("self", "self")], id="dot"),
    ],
)
def test_a_word_has_its_place_in_the_text_as_given(text: str, words: list[tuple[str, str]]) -> None:
    found = placed_words(text)
    assert [(word.word, text[word.start : word.stop]) for word in found] == words
    assert [word.word for word in found] == words_of(text)


def test_places_count_characters() -> None:
    assert placed_words("\u00df, self-made") == [Word("ss", 0, 1), Word("self-made", 3, 12)]


def test_the_lexicons_hits_are_its_words_each_time() -> None:
    text = "Itself, SELF: the \u00df mirror; self selfish self-aware don't"
    assert texts_of(lexicon, text) == ["SELF", "mirror", "self", "self-aware", "don't"]
    assert lexicon.hits(text)[0] == Hit(8, 12)
    assert not inside_words(text, lexicon.hits(text))


@pytest.mark.parametrize(
    ("text", "hits", "inside"),
    [
        pytest.param("by itself", ["itself", "self"], ["self"], id="inside-another-marker"),
        pytest.param("itself, the SELF", ["itself", "SELF"], [], id="a-word-if-it-is-one"),
        pytest.param("a complex process", ["process"], [], id="a-word-of-plain-prose"),
        pytest.param("processed, reprocess", ["process"], ["process"], id="once-a-marker"),
        pytest.param("self-aware", ["self"], ["self"], id="a-part-of-a-compound"),
        pytest.param("\u0130 by itself", ["itself", "self"], ["self"], id="longer-in-lower-case"),
        pytest.param("nothing here", [], [], id="none"),
    ],
)
def test_published_hits_are_its_markers_once_each(
    text: str, hits: list[str], inside: list[str]
) -> None:
    assert texts_of(published, text) == hits
    found = inside_words(text, published.hits(text))
    assert [text[hit.start : hit.stop] for hit in found] == inside


@pytest.mark.parametrize("hit", [Hit(0, 4), Hit(4, 8), Hit(1, 3), Hit(0, 9)])
def test_a_hit_that_ends_inside_a_word_is_inside(hit: Hit) -> None:
    text = "abcdefgh ij"
    assert inside_words(text, [hit, Hit(0, 8), Hit(9, 11), Hit(0, 11)]) == [hit]


def test_the_bonus_is_no_hit() -> None:
    assert published.hits("the " * 50) == ()
    assert published.bonus("the " * 50) == published("the " * 50) == 5
