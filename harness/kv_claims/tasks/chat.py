"""A task of texts as one of chats, and what a model read of a task with chats.

A text becomes what a user says. That is another task than the one that it was: it has another
name, other hashes, other pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.tasks.messages import Message, filled
from kv_claims.tasks.task import Prompt, Task

SUFFIX = "+chat"
"""Behind the name of a task whose texts are sent as a user's."""


def as_chat(task: Task) -> Task:
    """The task with each prompt's text as the one message of a chat, the user's.

    What a model reads of it is up to its chat template. Raises UsageError for a task with messages.
    """
    return replace(
        task,
        name=task.name + SUFFIX,
        sources=_said(task.sources, f"{task.where}: sources"),
        bases=_said(task.bases, f"{task.where}: bases"),
    )


def _said(prompts: tuple[Prompt, ...], where: str) -> tuple[Prompt, ...]:
    for one in prompts:
        if one.messages is not None:
            raise UsageError(
                f"{where} {one.id!r}: has messages already, expected a task of texts, which are "
                "to be sent as a user's"
            )
    return tuple(
        Prompt.of(
            one.id,
            one.family,
            [Message("user", one.text)],
            answers=one.answers,
            continuation=one.continuation,
            spans=one.spans,
        )
        for one in prompts
    )


def read_prompts(
    task: Task, n_pairs: int, forms: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """The prompts of a task's first pairs as a model read them: `sources` and `bases`, by id.

    forms: what the model's chat template makes of messages, as provenance has it
    (`kv_claims.models.chat.Chat.describe`).
    """
    by_roles = {tuple(form["roles"]): tuple(form["pieces"]) for form in forms}

    def read(prompts: Iterable[Prompt]) -> dict[str, str]:
        return {
            one.id: one.text
            if one.messages is None
            else filled(by_roles[tuple(m.role for m in one.messages)], one.messages)
            for one in prompts
        }

    pairs = task.first_pairs(n_pairs)
    return {
        "sources": read(pair.source for pair in pairs),
        "bases": read(pair.base for pair in pairs),
    }
