"""Scorers that a task file states itself: a pattern, or which of some choices a text names first.

Promises: what is stated decides the task's hash, as the name of the scorer tells all of it; a
pattern that cannot be read, that matches nothing at all, or that takes too long is one error.
Does not: run code of anybody's; where a match begins and ends in a word is the pattern's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import regex

from kv_claims.errors import UsageError
from kv_claims.tasks.scorers import Hit
from kv_claims.tasks.words import words_of

SECONDS = 2.0
"""After which a pattern is given up on one text."""
Count = Literal["presence", "rate"]
_FLAGS = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL, "x": regex.VERBOSE}


@dataclass(frozen=True)
class Pattern:
    """A regular expression (of the package `regex`): whether it matches, or how often.

    flags: of `imsx`. count: 'presence', 1 where it matches somewhere, else 0; 'rate', matches per
        100 words, 0 for a text of no word.
    Raises UsageError for a pattern or flags that are none.
    """

    pattern: str
    flags: str = ""
    count: Count = "presence"

    def __post_init__(self) -> None:
        if not set(self.flags) <= set(_FLAGS) or len(set(self.flags)) < len(self.flags):
            raise UsageError(
                f"scorer regex: flags {self.flags!r}, expected each of {''.join(_FLAGS)} at most "
                "once"
            )
        if self.count not in get_args(Count):
            raise UsageError(
                f"scorer regex: count {self.count!r}, expected one of {get_args(Count)}"
            )
        try:
            found = self._compiled.search("")
        except regex.error as error:
            raise UsageError(f"scorer regex: {self.pattern!r}: {error}") from None
        if found is not None:
            raise UsageError(
                f"scorer regex: {self.pattern!r} matches the empty text, and so every text"
            )

    @property
    def name(self) -> str:
        return f"regex {json.dumps([self.pattern, self.flags, self.count])}"

    @property
    def unit(self) -> str:
        return "1 where it matches, else 0" if self.count == "presence" else "matches per 100 words"

    def __call__(self, text: str) -> float:
        hits = self.hits(text)
        if self.count == "presence":
            return float(bool(hits))
        words = len(words_of(text))
        return 100.0 * len(hits) / words if words else 0.0

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Every match, none empty; of a presence the first alone."""
        try:
            found = [
                Hit(*match.span())
                for match in self._compiled.finditer(text, timeout=SECONDS)
                if match.end() > match.start()
            ]
        except TimeoutError:
            raise UsageError(
                f"scorer regex: {self.pattern!r} took over {SECONDS:g} s on {text!r:.80}; expected "
                "one that does not go back and forth"
            ) from None
        return tuple(found[:1] if self.count == "presence" else found)

    @cached_property
    def _compiled(self) -> regex.Pattern[str]:
        return regex.compile(self.pattern, sum(_FLAGS[flag] for flag in self.flags))


@dataclass(frozen=True)
class FirstNamed:
    """Which of some choices a text names first, as whole words in any case: 1 where it is the
    first of the list, which is looked for; 0 where it is another, or none is named.

    Raises UsageError for less than two choices, and for two that are the same.
    """

    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.choices) < 2:
            raise UsageError(f"scorer choice: {list(self.choices)}, expected at least 2")
        folded = [choice.casefold() for choice in self.choices]
        for choice in self.choices:
            if not choice.strip() or choice != choice.strip():
                raise UsageError(
                    f"scorer choice: {choice!r}, expected text without blanks around it"
                )
            if folded.count(choice.casefold()) > 1:
                raise UsageError(f"scorer choice: {choice!r} stands twice")

    @property
    def name(self) -> str:
        return f"choice {json.dumps(list(self.choices))}"

    @property
    def unit(self) -> str:
        return f"1 where {self.choices[0]!r} is named first, else 0"

    def __call__(self, text: str) -> float:
        return float(bool(self.hits(text)))

    def hits(self, text: str) -> tuple[Hit, ...]:
        """Where the choice that is looked for is named, if it is the first."""
        match = self._compiled.search(text)
        wanted = match is not None and match[0].casefold() == self.choices[0].casefold()
        return (Hit(*match.span()),) if match is not None and wanted else ()

    @cached_property
    def _compiled(self) -> regex.Pattern[str]:
        # The longest first: of 'no' and 'no idea' the one that is there.
        longest = sorted(self.choices, key=len, reverse=True)
        either = "|".join(map(regex.escape, longest))
        return regex.compile(rf"(?<!\w)(?:{either})(?!\w)", regex.IGNORECASE)


def stated_scorer(said: Mapping[Any, Any]) -> Pattern | FirstNamed:
    """The scorer that a task file states: `regex` (with `flags`, `count`) or `choice`.

    Raises UsageError for anything else.
    """
    kinds = [kind for kind in ("regex", "choice") if kind in said]
    if len(kinds) != 1:
        raise UsageError(f"scorer {dict(said)!r:.80}, expected `regex`, `choice` or `python` in it")
    known = {"regex": {"regex", "flags", "count"}, "choice": {"choice"}}[kinds[0]]
    if unknown := sorted(map(str, set(said) - known)):
        raise UsageError(
            f"scorer {kinds[0]}: unknown key {', '.join(unknown)}; expected "
            f"{', '.join(sorted(known))}"
        )
    if kinds[0] == "choice":
        choices = said["choice"]
        if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
            raise UsageError(f"scorer choice: {choices!r:.80}, expected a list of texts")
        return FirstNamed(tuple(choices))
    for key, value in said.items():
        if not isinstance(value, str) or (key == "regex" and not value):
            raise UsageError(f"scorer regex: `{key}` is {value!r:.80}, expected text")
    return Pattern(said["regex"], said.get("flags", ""), said.get("count", "presence"))
