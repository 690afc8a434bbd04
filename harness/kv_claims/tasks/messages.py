"""Chat messages as a task gives them: what they are, which lists are none, their plain form.

Promises: two lists never have one plain form or one identity, and none has that of a text.
Does not: know any model's chat template (`kv_claims.models.chat`), which may refuse more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kv_claims.errors import UsageError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)
Form = tuple[str | int, ...]
"""What a chat template makes of a list of roles: its own text, and where which content goes, by the
message's number from 0."""


@dataclass(frozen=True)
class Message:
    """One message of a chat. A last one of the assistant is the begin of its answer."""

    role: str
    content: str


def plain_form(messages: Sequence[Message]) -> str:
    """Messages as a reader is shown them: a line of each role, its content below, set in.

    Every line of a content is set in, so no content looks like a role's line.
    """
    shown = (f"[{one.role}]\n  " + one.content.replace("\n", "\n  ") for one in messages)
    return "\n".join(shown)


def identity_of(messages: Sequence[Message]) -> bytes:
    """What the hash of messages is made of. It begins with a byte that no text in UTF-8 has."""
    return b"\xff" + json.dumps([[one.role, one.content] for one in messages]).encode()


def check_messages(messages: Sequence[Message], where: str) -> None:
    """Raise UsageError for messages that no model should be given, naming the message."""
    if not messages:
        raise UsageError(f"{where}: `messages` is empty, expected at least a user's")
    for number, one in enumerate(messages, start=1):
        here = f"{where} message {number}"
        if one.role not in ROLES:
            raise UsageError(f"{here}: role {one.role!r:.60}, expected one of {', '.join(ROLES)}")
        if not one.content.strip():
            raise UsageError(f"{here} ({one.role}): `content` is empty, expected text")
        if one.role == "system" and number > 1:
            raise UsageError(f"{here}: role 'system', expected it first or not at all")
    if all(one.role != "user" for one in messages):
        raise UsageError(f"{where}: no message of role 'user', expected at least one")


def filled(form: Form, messages: Sequence[Message]) -> str:
    """The text that a template's form makes of messages of its roles."""
    return "".join(part if isinstance(part, str) else messages[part].content for part in form)
