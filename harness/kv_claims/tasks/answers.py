"""What a prompt is to be answered with: the answer, a foil, choices. Plain data, no model.

A pair is asked for its source's answer. The foil is the wrong answer that it is held against: the
one that the source names, else the base's answer, else the other one of two choices.

Promises: every answer that could not be told from its foil by its text is an error that names the
place. Does not: know tokens; what can only be told from these is found by `kv_claims.run.answers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import regex

from kv_claims.errors import UsageError

_GOES_ON = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}]")
"""Letters of scripts that part words by blanks: an answer does not begin in the middle of one."""
Looks = Callable[[str], str]
"""What a reader sees of a text."""


@dataclass(frozen=True)
class Answers:
    """What a prompt is answered with, each as it follows the prompt, a blank before it included.

    foil: a wrong answer. choices: two or more, the answer and the foil (where there is one) among
    them. Errors as in `check_answers`.
    """

    answer: str
    foil: str | None = None
    choices: tuple[str, ...] = ()


class Options(NamedTuple):
    """What a pair may be answered with: the right answer first, then the foil, then other choices.

    has_foil: whether the second is the foil; where not, no choice is more wrong than another.
    are_choices: whether the task names them as choices.
    """

    texts: tuple[str, ...]
    has_foil: bool
    are_choices: bool


def options_of(source: Answers, base: Answers | None) -> Options:
    """What a pair may be answered with. base: of its base, if that has any.

    Raises UsageError, without a place, for a foil that is not among the choices.
    """
    foil = source.foil
    if foil is None and base is not None:
        foil = base.answer
    if foil is None and len(source.choices) == 2:
        foil = next(choice for choice in source.choices if choice != source.answer)
    if foil is not None and source.choices and foil not in source.choices:
        raise UsageError(
            f"the foil {foil!r} is not among the source's choices {list(source.choices)}"
        )
    first = [source.answer] if foil is None else [source.answer, foil]
    rest = [choice for choice in source.choices if choice not in first]
    return Options((*first, *rest), foil is not None, bool(source.choices))


def check_answers(answers: Answers, where: str, looks: Looks) -> None:
    """Raise UsageError for answers of one prompt that cannot be told apart, or are none."""
    named = {"answer": answers.answer, "foil": answers.foil}
    given = {name: text for name, text in named.items() if text is not None}
    choices = {f"choice {k}": text for k, text in enumerate(answers.choices, start=1)}
    for name, text in {**given, **choices}.items():
        if not looks(text):
            raise UsageError(f"{where}: `{name}` is {text!r}, expected text, not empty")
    if answers.foil is not None:
        check_apart(answers.answer, answers.foil, where, looks)
    if not answers.choices:
        return
    if len(answers.choices) < 2:
        raise UsageError(f"{where}: one choice, expected at least 2")
    for name, text in given.items():
        if text not in answers.choices:
            raise UsageError(
                f"{where}: `{name}` {text!r} is not among the choices {list(answers.choices)}"
            )
    seen: dict[str, str] = {}
    for choice in answers.choices:
        if (other := seen.setdefault(looks(choice), choice)) != choice or (
            answers.choices.count(choice) > 1
        ):
            raise UsageError(f"{where}: choices {other!r} and {choice!r} are the same text")


def check_apart(answer: str, foil: str, where: str, looks: Looks) -> None:
    """Raise UsageError for an answer and a foil that a reader cannot tell apart."""
    if looks(answer) == looks(foil):
        raise UsageError(
            f"{where}: the answer {answer!r} and its foil {foil!r} are the same text, expected a "
            "wrong answer to hold it against"
        )


def check_follows(text: str, prompt: str, where: str) -> None:
    """Raise UsageError for a text that would go on the last word of its prompt."""
    if _GOES_ON.match(text) and _GOES_ON.match(prompt[-1:]):
        raise UsageError(
            f"{where}: {text!r} would go on the word {prompt.split()[-1]!r} of its prompt; the "
            f"blank before it belongs to it, expected {' ' + text!r}"
        )
