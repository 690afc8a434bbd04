"""Which texts are shown, and what is marked in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.report.view.texts import picked, pieces_of, repeated_words, scorer_from
from kv_claims.tasks.scorers import Lexicon, Published

SEA = Lexicon(frozenset({"sea", "boat"}))


def test_median_best_and_worst_pairs_are_picked() -> None:
    gains = {"a": 1.0, "b": 5.0, "c": -2.0, "d": 0.0, "e": 2.0}
    assert picked(gains) == [("median", "a"), ("best", "b"), ("worst", "c")]


def test_a_pair_that_is_two_of_them_stands_once() -> None:
    assert picked({"a": 0.0, "b": 0.0}) == [("median and best and worst", "a")]
    assert picked({}) == []


def test_markers_and_repetition_are_marked_apart() -> None:
    text = "on the old sea and on the old sea we sail"
    again = repeated_words(text)
    assert [text[start:stop] for start, stop in again] == ["on", "the", "old", "sea"]
    assert again[0][0] == text.rindex("on the")
    pieces = pieces_of(text, SEA.hits(text), again)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.marker] == ["sea", "sea"]
    assert "".join(piece.text for piece in pieces if piece.repeated) == "on the old sea"


def test_marks_of_neighbours_run_together() -> None:
    pieces = pieces_of("sea boat, sea", SEA.hits("sea boat, sea"), [])
    assert [piece.text for piece in pieces] == ["sea boat", ", ", "sea"]


@given(text=st.text(alphabet="sea bot\n.\u00df", max_size=60))
def test_no_letter_is_lost(text: str) -> None:
    pieces = pieces_of(text, SEA.hits(text), repeated_words(text))
    assert "".join(piece.text for piece in pieces) == text


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"scorers": {"m": {"name": "lexicon", "words": ["boat", "sea"]}}}, SEA),
        ({"scorers": {"m": {"name": "published", "words": None}}}, Published()),
        ({"scorers": {"other": {"name": "lexicon", "words": []}}}, None),
        ({"scorers": {"m": {"name": "of-tomorrow"}}}, None),
        ({"scorers": {"m": {"name": "lexicon", "words": None}}}, None),
        ({"scorers": {"m": {"name": "lexicon", "words": ["deep sea"]}}}, None),
        ({}, None),
    ],
)
def test_the_scorer_comes_from_the_facts_of_the_run(facts: dict, found: object) -> None:
    assert scorer_from(facts, "m") == found
