"""Chat messages as data: their plain form, what identifies them, which lists are none."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kv_claims.errors import UsageError
from kv_claims.tasks.messages import ROLES, Message, check_messages, filled, plain_form
from kv_claims.tasks.task import Pair, Prompt

ASKED = Message("user", "Who are you?")
some = st.text(alphabet='a \n[]user:"\\', min_size=1, max_size=12)
"""Contents that try to look like a role's line, or like JSON."""
lists = st.lists(st.builds(Message, st.sampled_from(ROLES), some), min_size=1, max_size=3)


@given(lists, lists)
@example([Message("user", "a\n[user]\n  b")], [Message("user", "a"), Message("user", "b")])
def test_two_lists_have_one_form_and_one_hash_only_if_they_are_one(
    one: list[Message], other: list[Message]
) -> None:
    left, right = Prompt.of("p", "f", one), Prompt.of("p", "f", other)
    assert (left.sha == right.sha) == (plain_form(one) == plain_form(other)) == (one == other)


@given(lists, lists)
def test_messages_are_never_taken_for_a_text(one: list[Message], other: list[Message]) -> None:
    """Not even for that of their own plain form, alone or in a pair."""
    chats = [Prompt.of("p", "f", some) for some in (one, other)]
    texts = [Prompt("p", "f", chat.text) for chat in chats]
    assert chats[0].sha != texts[0].sha
    ids = {
        Pair(0, source, base).id for source in (chats[0], texts[0]) for base in (chats[1], texts[1])
    }
    assert len(ids) == 4


@given(lists)
def test_a_form_with_contents_put_in_is_a_text(messages: list[Message]) -> None:
    form = tuple(part for number in range(len(messages)) for part in ("<", number, ">"))
    assert filled(form, messages) == "".join(f"<{one.content}>" for one in messages)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param([], "`messages` is empty, expected at least a user's", id="none"),
        pytest.param(
            [ASKED, Message("tool", "42")],
            "message 2: role 'tool', expected one of system, user, assistant",
            id="unknown-role",
        ),
        pytest.param([Message("user", " \n")], "message 1 (user): `content` is empty", id="empty"),
        pytest.param(
            [ASKED, Message("system", "Be brief.")],
            "message 2: role 'system', expected it first or not at all",
            id="late-system",
        ),
        pytest.param(
            [Message("system", "Be brief."), Message("assistant", "I")],
            "no message of role 'user', expected at least one",
            id="no-user",
        ),
    ],
)
def test_a_list_that_is_no_chat_is_refused(messages: list[Message], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        check_messages(messages, "here")
