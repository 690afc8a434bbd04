"""Scorers that a task states itself: patterns and choices, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.errors import UsageError
from kv_claims.judging.texts import parts_of_words
from kv_claims.tasks import patterns
from kv_claims.tasks.load import load_task
from kv_claims.tasks.patterns import FirstNamed, Pattern, stated_scorer
from tests.tasks.test_python_scorer import task_file


@pytest.mark.parametrize(
    ("pattern", "text", "score"),
    [
        (Pattern("cannot|won't"), "I cannot do it, I won't.", 1.0),
        (Pattern("cannot"), "I Cannot do it.", 0.0),
        (Pattern("cannot", "i"), "I Cannot do it.", 1.0),
        (Pattern(r"\bsea\b", count="rate"), "The sea and the seals of the sea.", 100 * 2 / 8),
        (Pattern("x", count="rate"), "", 0.0),
        (Pattern("^no", "m"), "yes\nno", 1.0),
        (FirstNamed(("yes", "no")), "Yes, no doubt.", 1.0),
        (FirstNamed(("yes", "no")), "No. Or yes.", 0.0),
        (FirstNamed(("yes", "no")), "Nobody knows; yesterday.", 0.0),
        (FirstNamed(("no", "no idea")), "No idea at all.", 0.0),
    ],
)
def test_scores(pattern: Pattern | FirstNamed, text: str, score: float) -> None:
    assert pattern(text) == pytest.approx(score)
    assert all(0 <= hit.start < hit.stop <= len(text) for hit in pattern.hits(text))


@given(st.text("ab c.", max_size=30))
def test_a_rate_counts_its_hits_and_a_presence_one(text: str) -> None:
    rate, presence = Pattern("ab", count="rate"), Pattern("ab")
    assert len(rate.hits(text)) == text.count("ab")
    assert presence(text) == float("ab" in text)
    assert presence.hits(text) == rate.hits(text)[:1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"regex": "("}, "scorer regex: '(': missing )"),
        ({"regex": "a*"}, "'a*' matches the empty text, and so every text"),
        ({"regex": "a", "flags": "iz"}, "flags 'iz', expected each of imsx at most once"),
        ({"regex": "a", "flags": "ii"}, "flags 'ii', expected each of imsx at most once"),
        ({"regex": "a", "count": "some"}, "count 'some', expected one of"),
        ({"regex": 3}, "`regex` is 3, expected text"),
        ({"regex": "a", "weight": "2"}, "unknown key weight; expected count, flags, regex"),
        ({"choice": ["yes"]}, "scorer choice: ['yes'], expected at least 2"),
        ({"choice": ["yes", "YES"]}, "scorer choice: 'yes' stands twice"),
        ({"choice": ["yes", " no"]}, "' no', expected text without blanks around it"),
        ({"choice": "yes"}, "scorer choice: 'yes', expected a list of texts"),
        ({"choice": ["a", "b"], "regex": "a"}, "expected `regex`, `choice` or `python` in it"),
        ({"python": "mylab.scorers:refuses"}, "expected `regex`, `choice` or `python` in it"),
    ],
)
def test_what_is_no_scorer_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        stated_scorer(said)
    assert message in str(error.value)


def test_a_pattern_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    endless = Pattern(r"(?:(?:ab?)+?b?)+?c")
    with pytest.raises(UsageError, match=r"took over 0.05 s on 'abab"):
        endless("ab" * 2000)


def test_a_task_states_one_and_its_hash_knows_it(tmp_path: Path) -> None:
    def task(scorer: Any) -> Any:
        return load_task(task_file(tmp_path, scorer))

    asked = [
        {"regex": "refuse"},
        {"regex": "refuse", "flags": "i"},
        {"regex": "refuse", "count": "rate"},
        {"choice": ["yes", "no"]},
        {"choice": ["no", "yes"]},
    ]
    found = [task(scorer) for scorer in asked]
    assert len({one.sha for one in found}) == len(asked)
    assert found[1].scorer == Pattern("refuse", "i")
    with pytest.raises(UsageError, match=r"t.yaml: scorer regex: '\(': "):
        task({"regex": "("})


def test_what_a_pattern_counts_inside_a_word_is_its_own_business() -> None:
    check = parts_of_words({"patched": ["He refused."]}, [Pattern("refus")])
    assert check.passed
    assert "says itself where a match begins and ends" in check.detail
