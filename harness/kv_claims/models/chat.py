"""Chat messages to the text that a model reads, by the model's own chat template.

Promises
- The whole of every message arrives, as it is and nothing of it elsewhere: what a template makes of
  some messages is its own text with their contents put in (a `Form`, one for each list of roles),
  and where it is anything else (a prompt of the system's dropped, blanks trimmed, a thought cut
  out) the messages are refused. What it adds of its own, a system prompt too, is in the form.
- The text is open: it ends where the template has the assistant's answer begin, or where the begin
  that the messages give it ends.
- A template that reads the clock reads `DATE`: today's prompts are tomorrow's.

Does not: make tokens of it (`kv_claims.models.tokens`, which sees to it that BOS stands once).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.tasks.messages import Form, Message, filled
from kv_claims.tasks.task import Prompt

DATE = datetime(2024, 7, 26)
"""What a template is told that reads the clock; it is Llama's own, where nobody tells it a date."""
_CODES = (*"aAbBcdDFHIjmMpRSTUwWxXyY", *(f"-{code}" for code in "dHIjmM"))
"""Of `strftime`."""
_HOLD = "\ue000kv-claims:{}\ue001"
"""Stands for the content of a message; of characters that nobody has a use for."""
_HOLDS = re.compile(r"\ue000kv-claims:(\d+)\ue001")


@dataclass(frozen=True)
class Chat:
    """The chat template beside a tokenizer. name: the model's, for errors."""

    name: str
    tokenizer: Any

    @cached_property
    def template(self) -> str:
        """The template, as it came with the model. Raises UsageError where there is none."""
        try:
            return str(self.tokenizer.get_chat_template())
        except (ValueError, AttributeError):
            several = getattr(self.tokenizer, "chat_template", None)
            what = (
                "several chat templates, none of them 'default'" if several else "no chat template"
            )
            raise UsageError(
                f"model {self.name!r}: its tokenizer has {what}, and messages take one; expected "
                "an instruct model, or prompts of plain text"
            ) from None

    @property
    def sha(self) -> str:
        """SHA-256 of the template, hex."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def render(self, messages: Sequence[Message], where: str) -> str:
        """The text of some messages, up to where the model goes on. where: for errors.

        Raises UsageError for a template that refuses them, or does not keep what they say.
        """
        found = self._apply(messages, where)
        form = self.form(messages, where)
        if filled(form, messages) == found:
            return found
        lost = next((one for one in messages if one.content not in found), None)
        if lost is None:
            raise self._refused(
                where, "writes other words around these contents than around others"
            )
        why = f"does not keep the {lost.role}'s {lost.content!r:.60} as it is"
        if lost.content.strip() in found:
            why += ", but without the blanks around it: expected a content without them"
        raise self._refused(where, why)

    def form(self, messages: Sequence[Message], where: str) -> Form:
        """What the template makes of messages of these roles, whatever they say."""
        held = [Message(one.role, _HOLD.format(k)) for k, one in enumerate(messages)]
        pieces = _HOLDS.split(self._apply(held, where))
        form = tuple(int(piece) if k % 2 else piece for k, piece in enumerate(pieces))
        for number, one in enumerate(messages):
            if (n := form.count(number)) != 1:
                times = "drops" if not n else f"writes {n} times"
                raise self._refused(where, f"{times} message {number + 1} ({one.role})")
        return tuple(piece for piece in form if piece != "")

    def describe(self, prompts: Iterable[Prompt]) -> dict[str, Any]:
        """The template and its forms of some prompts, as plain JSON; `date`: what it was told.

        A form is a list: the template's own texts, and numbers of messages, which stand there.
        """
        forms = {
            tuple(one.role for one in prompt.messages): self.form(prompt.messages, prompt.id)
            for prompt in prompts
            if prompt.messages is not None
        }
        return {
            "template_sha": self.sha,
            "date": DATE.date().isoformat() if self._reads_clock else None,
            "forms": [
                {"roles": list(roles), "pieces": list(form)} for roles, form in forms.items()
            ],
        }

    @property
    def _reads_clock(self) -> bool:
        return "strftime_now" in self.template

    def _apply(self, messages: Sequence[Message], where: str) -> str:
        goes_on = messages[-1].role == "assistant"
        template = (_STOPPED if self._reads_clock else "") + self.template
        try:
            found = self.tokenizer.apply_chat_template(
                [{"role": one.role, "content": one.content} for one in messages],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
            )
        except Exception as error:  # a template is a program of somebody else's
            told = " ".join(str(error).split()) or "no reason given"
            raise self._refused(
                where, f"refuses them: {type(error).__name__}: {told:.200}"
            ) from error
        return str(found)

    def _refused(self, where: str, why: str) -> UsageError:
        return UsageError(
            f"model {self.name!r}: its chat template and the messages of {where}: it {why}"
        )


def _stopped() -> str:
    """The begin of a template in which the clock stands still.

    transformers gives templates `strftime_now`, and lets nobody give them another function.
    """
    put = "".join(f"|replace('%{code}', '{DATE.strftime('%' + code)}')" for code in _CODES)
    # As a block of its own: blanks inside are cut, and the template's own first line break is not.
    return f"{{% macro strftime_now(format) -%}}{{{{ format{put} }}}}{{%- endmacro +%}}"


_STOPPED = _stopped()
