"""Laws of the AUC and of the share that comes from repetition."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.measure.behavior import NGRAM
from kv_claims.measure.separation import _repeated_grams, auc, repetition_share
from kv_claims.tasks.scorers import Lexicon, Published, Scorer
from kv_claims.tasks.words import words_of

LEXICON = Lexicon(frozenset({"self", "loop"}))
# Few numbers, so that many are equal.
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)
texts = st.lists(st.sampled_from(["self", "loop", "a", "b", "selfish"]), max_size=25).map(" ".join)


@given(source=scores, base=scores)
def test_auc_is_a_count_over_all_pairs_of_texts(source: list[float], base: list[float]) -> None:
    won = sum(s > b for s in source for b in base)
    tied = sum(s == b for s in source for b in base)
    assert auc(source, base) == pytest.approx((won + tied / 2) / (len(source) * len(base)))


@given(source=scores, base=scores)
def test_arms_that_change_places_have_the_other_auc(source: list[float], base: list[float]) -> None:
    assert auc(base, source) == pytest.approx(1 - auc(source, base))


@given(source=scores, base=scores)
@pytest.mark.parametrize(
    "rising",
    [math.exp, math.atan, lambda x: 7 * x - 2, lambda x: x**3],
    ids=["exp", "atan", "linear", "cube"],
)
def test_only_the_order_of_scores_counts(
    rising: Callable[[float], float], source: list[float], base: list[float]
) -> None:
    moved = auc([rising(x) for x in source], [rising(x) for x in base])
    assert moved == auc(source, base)


@given(same=scores)
def test_an_arm_against_itself_has_one_half(same: list[float]) -> None:
    assert auc(same, same) == pytest.approx(0.5)


def repeated_by_hand(text: str) -> set[int]:
    """The words that lie in a 4-gram that stood in the text before, by comparing each with each."""
    words = words_of(text)
    return {
        k + offset
        for k in range(len(words) - NGRAM + 1)
        if any(words[k : k + NGRAM] == words[j : j + NGRAM] for j in range(k))
        for offset in range(NGRAM)
    }


@given(text=texts)
def test_the_share_of_a_lexicon_is_that_of_its_words_in_repeated_4grams(text: str) -> None:
    hits = [k for k, word in enumerate(words_of(text)) if word in LEXICON.words]
    found = repetition_share([text], LEXICON)
    if not hits:
        assert found is None
    else:
        inside = len(repeated_by_hand(text) & set(hits))
        assert found == pytest.approx(inside / len(hits))


@given(text=texts)
def test_repeated_4grams_are_as_many_as_behavior_counts(text: str) -> None:
    words = words_of(text)
    grams = [tuple(words[k : k + NGRAM]) for k in range(len(words) - NGRAM + 1)]
    assert len(_repeated_grams(text)) == len(grams) - len(set(grams))


@given(some=st.lists(texts, max_size=4))
@pytest.mark.parametrize("scorer", [LEXICON, Published()], ids=["lexicon", "published"])
def test_a_share_lies_between_0_and_1(scorer: Scorer, some: list[str]) -> None:
    found = repetition_share(some, scorer)
    assert (found is None) == (sum(map(scorer, some)) == 0)
    assert found is None or 0 <= found <= 1 + 1e-12
