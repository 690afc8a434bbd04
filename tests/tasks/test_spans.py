"""Spans that a task marks: which are none, and that each says where it stands."""

from __future__ import annotations

import pytest

from kv_claims.errors import UsageError
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.messages import Message
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.spans import check_spans
from kv_claims.tasks.task import Prompt, Task

TEXT = "The tower of Paris, not that of Pisa, is tall."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("subject", "London", "does not stand in the prompt"),
        ("subject", "of P", "stands 2 times"),
        ("subject", " Paris", "without blanks around it"),
        ("subject", "", "without blanks around it"),
        ("the subject", "Paris", "expected a name of letters"),
        ("3", "Paris", "expected a name of letters"),
    ],
)
def test_a_span_stands_in_its_prompt_once(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"p1: span .*{message}"):
        check_spans([(name, text)], [TEXT], "p1")


def test_places_that_overlap_are_counted() -> None:
    with pytest.raises(UsageError, match="stands 2 times"):
        check_spans([("part", "aba")], ["ababa"], "p1")


def test_a_span_of_a_chat_stands_in_one_message() -> None:
    said = [Message("system", "Be brief."), Message("user", TEXT)]
    assert Prompt.of("p", "f", said, spans=(("subject", "Paris"),)).spans == (("subject", "Paris"),)
    check_spans([("subject", "Paris")], [one.content for one in said], "p1")
    with pytest.raises(UsageError, match="stands 2 times"):
        check_spans([("subject", "Paris")], ["Paris is tall.", TEXT], "p1")


def task(*spans: tuple[str, str]) -> Task:
    sources = (Prompt("s", "f", TEXT, spans=spans),)
    words = frozenset({"x"})
    base = (Prompt("b", "f", "Some other text."),)
    return Task("t", "?", sources, base, "one-to-one", Lexicon(words), words)


def test_what_is_marked_is_part_of_a_tasks_identity() -> None:
    """A patch that names a span is another one where the span is."""
    shas = {task(*spans).sha for spans in ((), (("a", "Paris"),), (("a", "Pisa"),))}
    assert len(shas) == 3
    with pytest.raises(UsageError, match="sources 's': span 'a'"):
        task(("a", "Rome"))


def test_what_is_marked_stays_marked_in_a_chat() -> None:
    (source,) = as_chat(task(("a", "Paris"))).sources
    assert source.messages is not None
    assert source.spans == (("a", "Paris"),)
