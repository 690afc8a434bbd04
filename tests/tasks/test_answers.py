"""Answers of prompts: which is held against which, and what is refused by text alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kv_claims.errors import UsageError
from kv_claims.tasks.answers import Answers, Options, options_of
from kv_claims.tasks.behind import options_behind, texts_sha
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Lexicon, Unscored
from kv_claims.tasks.task import Pair, Prompt, Task

HARBOR, KITCHEN = Answers(" harbor"), Answers(" kitchen")


def task(
    source: Answers | None, base: Answers | None = None, text: str = "The captain saw the"
) -> Task:
    return Task(
        name="t",
        about="a",
        sources=(Prompt("s", "f", text, answers=source),),
        bases=(Prompt("b", "f", "The cook saw the", answers=base),),
        pairing="one-to-one",
        scorer=Unscored(),
        lexicon=frozenset(),
    )


@pytest.mark.parametrize(
    ("source", "base", "wanted"),
    [
        (HARBOR, None, Options((" harbor",), False, False)),
        (HARBOR, KITCHEN, Options((" harbor", " kitchen"), True, False)),
        (Answers(" harbor", " sea"), KITCHEN, Options((" harbor", " sea"), True, False)),
        (
            Answers(" B", choices=(" A", " B", " C")),
            Answers(" C"),
            Options((" B", " C", " A"), True, True),
        ),
        (Answers(" B", choices=(" A", " B", " C")), None, Options((" B", " A", " C"), False, True)),
        (Answers(" B", choices=(" A", " B")), None, Options((" B", " A"), True, True)),
    ],
    ids=["alone", "the base's", "its own", "among choices", "choices", "two choices"],
)
def test_the_foil_is_its_own_or_the_bases_or_the_other_of_two(
    source: Answers, base: Answers | None, wanted: Options
) -> None:
    assert options_of(source, base) == wanted


@pytest.mark.parametrize(
    ("source", "base", "message"),
    [
        (HARBOR, HARBOR, "pair of source 's' and base 'b': the answer ' harbor' and its foil"),
        (HARBOR, Answers(" har\u00adbor"), "are the same text"),
        (Answers(" harbor", "harbor "), None, "sources 's': the answer ' harbor' and its foil"),
        (Answers(" "), None, "sources 's': `answer` is ' ', expected text, not empty"),
        (Answers(" A", choices=(" A",)), None, "one choice, expected at least 2"),
        (Answers(" A", choices=(" B", " C")), None, "`answer` ' A' is not among the choices"),
        (Answers(" A", " D", (" A", " B")), None, "`foil` ' D' is not among the choices"),
        (Answers(" A", choices=(" A", " B", "B")), None, "choices ' B' and 'B' are the same text"),
        (Answers(" A", choices=(" A", " A")), None, "choices ' A' and ' A' are the same text"),
        (
            Answers(" A", choices=(" A", " B", " C")),
            Answers(" D"),
            "and base 'b': the foil ' D' is not among the source's choices",
        ),
        (
            Answers("harbor"),
            None,
            "'harbor' would go on the word 'the' of its prompt; the blank before it belongs to it, "
            "expected ' harbor'",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused_and_named(
    source: Answers, base: Answers | None, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        task(source, base)
    assert message in str(error.value)
    assert "<memory>: " in str(error.value)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("The war began in 1741 and ended in 17", "58"), ("1 + 1 =", "2"), ("法国的首都是", "巴黎")],
)
def test_what_goes_on_without_a_blank_by_right_does(text: str, answer: str) -> None:
    assert task(Answers(answer), text=text).sources[0].answers == Answers(answer)


def test_a_task_without_answers_keeps_its_hash() -> None:
    """The hash of a task identifies its trials: those of before stay known."""
    plain = replace(task(None), scorer=Lexicon(frozenset({"sea"})), lexicon=frozenset({"sea"}))
    assert plain.sha == "6c0069dfb4a91d8c2537d5d1bdb1660fcc38809ec196dc78f7645de0f7aaf17a"
    assert task(HARBOR).sha != task(None).sha != task(KITCHEN).sha != task(HARBOR).sha
    assert task(HARBOR).sha != task(Answers(" harbor", " sea")).sha
    one = task(None)
    said = replace(one, sources=(replace(one.sources[0], continuation=" harbor"),))
    assert said.sha not in (one.sha, task(HARBOR).sha)


def test_answers_do_not_identify_a_pair() -> None:
    assert task(HARBOR).pairs[0].id == task(None).pairs[0].id


def test_what_is_behind_a_prompt_stays_behind_its_chat() -> None:
    (pair,) = as_chat(task(HARBOR, KITCHEN)).pairs
    assert pair.source.messages is not None
    assert options_behind(pair, "answers").texts == (" harbor", " kitchen")


def test_which_continuation_is_fed() -> None:
    def pair(source: str | None, base: str | None) -> Pair:
        return Pair(
            0,
            Prompt("s", "f", "A", continuation=source),
            Prompt("b", "f", "B", continuation=base),
        )

    assert options_behind(pair(" one", " two"), "continuation").texts == (" one",)
    assert options_behind(pair(None, " two"), "continuation").texts == (" two",)
    with pytest.raises(UsageError, match=r"pair 0 .*: no continuation; expected `continuation`"):
        options_behind(pair(None, None), "continuation")
    with pytest.raises(UsageError, match=r"pair 0 .*: no answer; expected `answer`"):
        options_behind(pair(" one", None), "answers")


def test_texts_are_identified_in_their_order() -> None:
    one, other = (Options(texts, True, False) for texts in ((" A", " B"), (" B", " A")))
    assert texts_sha(one) != texts_sha(other)


FILE: dict[str, Any] = {
    "schema": 1,
    "name": "places",
    "about": "where they are",
    "pairing": "one-to-one",
    "sources": [{"id": "s", "family": "f", "text": "The captain saw the", "answer": " harbor"}],
    "bases": [{"id": "b", "family": "f", "text": "The cook saw the", "answer": " kitchen"}],
}


def loaded(folder: Path, **changes: Any) -> Task:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**FILE, **changes}))
    return load_task(path)


def source(**keys: Any) -> dict[str, Any]:
    return {"sources": [{**FILE["sources"][0], **keys}]}


def test_a_task_whose_sources_have_answers_needs_no_scorer(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert found.scorer == Unscored()
    assert found.sources[0].answers == HARBOR
    asked = loaded(
        tmp_path, **source(foil=" sea", choices=[" harbor", " sea", " dock"], continuation=" quay.")
    )
    assert asked.sources[0].answers == Answers(" harbor", " sea", (" harbor", " sea", " dock"))
    assert asked.sources[0].continuation == " quay."
    scored = loaded(tmp_path, scorer="lexicon", lexicon=["sea"])
    assert scored.scorer == Lexicon(frozenset({"sea"}))


def test_a_chat_has_answers_as_a_text_has(tmp_path: Path) -> None:
    entry = {k: v for k, v in FILE["sources"][0].items() if k != "text"}
    messages = [{"role": "user", "content": "Where is the captain?"}]
    found = loaded(tmp_path, sources=[{**entry, "messages": messages, "answer": "Harbor"}])
    assert found.sources[0].answers == Answers("Harbor")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (source(answer=""), "sources entry 1: `answer` is '', expected text, not empty"),
        (source(answer=3), "sources entry 1: `answer` is 3, expected text, not empty"),
        (source(choices=[]), "sources entry 1: `choices` is [], expected a list of texts"),
        (source(choices="a"), "sources entry 1: `choices` is 'a', expected a list of texts"),
        (source(choices=[" harbor", 2]), "entry 1: `choices` holds 2, expected text, not empty"),
        (source(continuation=" "), "entry 1: `continuation` is ' ', expected text, not empty"),
        ({"scorer": "lexicon"}, "missing key lexicon, whose words scorer 'lexicon' counts"),
        ({"lexicon": ["sea"]}, "missing key scorer, beside a lexicon"),
    ],
)
def test_a_file_that_says_something_else_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, **changes)
    assert message in str(error.value)
    assert "task.yaml" in str(error.value)


def test_a_foil_without_an_answer_is_named(tmp_path: Path) -> None:
    entry = {k: v for k, v in FILE["bases"][0].items() if k != "answer"}
    with pytest.raises(UsageError, match="bases entry 1: `foil` without `answer`, expected both"):
        loaded(tmp_path, bases=[{**entry, "foil": " sea"}])
