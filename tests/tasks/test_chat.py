"""A task of texts as one of chats, and what a model read of it."""

from __future__ import annotations

import pytest

from kv_claims.errors import UsageError
from kv_claims.tasks.chat import as_chat, read_prompts
from kv_claims.tasks.messages import Message
from tests.tasks.test_task import task_of

FORM = {"roles": ["user"], "pieces": ["<user>", 0, "</user>"]}


def test_each_text_becomes_what_a_user_says_and_the_rest_stays() -> None:
    plain = task_of(3, 4)
    chat = as_chat(plain)
    for one, other in zip(
        (*plain.sources, *plain.bases), (*chat.sources, *chat.bases), strict=True
    ):
        assert other.messages == (Message("user", one.text),)
        assert (other.id, other.family) == (one.id, one.family)
    kept = ("about", "pairing", "scorer", "lexicon", "max_degenerate_share")
    assert [getattr(chat, name) for name in kept] == [getattr(plain, name) for name in kept]
    assert not {pair.id for pair in plain.pairs} & {pair.id for pair in chat.pairs}
    assert [(p.source.id, p.base.id) for p in chat.pairs] == [
        (p.source.id, p.base.id) for p in plain.pairs
    ]


def test_a_chat_is_not_sent_as_what_a_user_says() -> None:
    with pytest.raises(UsageError, match="sources 'source0': has messages already"):
        as_chat(as_chat(task_of(2, 2)))


def test_what_was_read_is_the_forms_with_contents_put_in() -> None:
    plain = task_of(3, 4)
    first = plain.pairs[0]
    assert read_prompts(as_chat(plain), 1, [FORM]) == {
        "sources": {first.source.id: f"<user>{first.source.text}</user>"},
        "bases": {first.base.id: f"<user>{first.base.text}</user>"},
    }
