"""What is measured on one generated text, and that repetition stays beside the score."""

from __future__ import annotations

import pytest

from kv_claims.measure.behavior import behavior
from kv_claims.tasks.generation import Generation
from kv_claims.tasks.scorers import Lexicon, Published
from kv_claims.tasks.task import Prompt, Task

WORDS = frozenset({"mirror"})


def task_with(scorer: Lexicon | Published) -> Task:
    return Task(
        name="t",
        about="",
        sources=(Prompt("s", "f", "a source"),),
        bases=(Prompt("b", "f", "a base"),),
        pairing="one-to-one",
        scorer=scorer,
        lexicon=WORDS,
    )


LEXICON = task_with(Lexicon(WORDS))
PUBLISHED = task_with(Published())


def test_both_scores_are_measured_whichever_is_the_tasks_own() -> None:
    text = "The mirror is a process."
    for task, score in ((LEXICON, 20.0), (PUBLISHED, 2.0)):
        found = behavior(Generation(text), task)
        assert (found.score, found.score_lexicon, found.score_published) == (score, 20.0, 2.0)


def test_the_lexicon_is_the_tasks_even_where_the_scorer_is_published() -> None:
    assert behavior(Generation("mirror self"), PUBLISHED).score_lexicon == 50.0


@pytest.mark.parametrize("text", ["", "  \n", "12 34 !?"], ids=["empty", "blank", "no-letters"])
def test_a_text_of_no_word_scores_0_and_shows_that_it_has_none(text: str) -> None:
    found = behavior(Generation(text), LEXICON)
    assert found == (0.0, 0.0, 0.0, 0, 0.0, 0.0, False)


@pytest.mark.parametrize(
    ("text", "words", "distinct"),
    [
        pytest.param("one", 1, 1.0, id="one"),
        pytest.param("One one ONE two.", 4, 0.5, id="case"),
        pytest.param("a, b; c - d", 4, 1.0, id="punctuation"),
        pytest.param("self-made don't", 2, 1.0, id="compounds"),
    ],
)
def test_words_and_the_share_that_is_distinct(text: str, words: int, distinct: float) -> None:
    found = behavior(Generation(text), LEXICON)
    assert (found.words, found.distinct_share) == (words, distinct)


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        pytest.param("a b c", 0.0, id="no-4-gram"),
        pytest.param("a a a", 0.0, id="three-equal-words"),
        pytest.param("a b c d", 0.0, id="one-4-gram"),
        pytest.param("a a a a a", 1 / 2, id="second-repeats-first"),
        pytest.param("a b c d a b c d", 1 / 5, id="last-of-five"),
        pytest.param("a b c d a b c d a b c d", 5 / 9, id="five-of-nine"),
        pytest.param("a b c a b d a b e", 0.0, id="3-grams-do-not-count"),
        pytest.param("A b, c d. A b c d", 1 / 5, id="case-and-punctuation"),
    ],
)
def test_repeated_4grams_are_those_that_stood_before(text: str, repeated: float) -> None:
    assert behavior(Generation(text), LEXICON).repeated_4grams == pytest.approx(repeated)


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        pytest.param("a a a a a a b", False, id="exactly-half"),
        pytest.param("a a a a a", True, id="few-distinct-words"),
        pytest.param("a b a", False, id="too-short-to-say"),
        pytest.param("a a a a a a", True, id="two-thirds"),
        pytest.param("a b c d " * 3, True, id="a-cycle"),
        pytest.param("a b c d e f g h", False, id="none"),
    ],
)
def test_degenerate_is_more_than_half_repeated(text: str, degenerate: bool) -> None:
    assert behavior(Generation(text), LEXICON).degenerate is degenerate


def test_collapse_adds_nothing_to_the_lexicon_score() -> None:
    """The published score pays 5 for it; here it is a fact that stands beside the score."""
    collapsed = behavior(Generation("the " * 40), LEXICON)
    assert (collapsed.score, collapsed.score_published) == (0.0, 5.0)
    assert collapsed.degenerate is True
    assert collapsed.distinct_share == pytest.approx(1 / 40)
