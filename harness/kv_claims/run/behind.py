"""The texts that a task puts behind a pair's prompts, as tokens: answers, or a continuation.

They are the same for every arm of a pair: what follows the source's prompt as some tokens and the
base's as others cannot be compared, and is an error. Everything is decided before a model runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kv_claims.claims.outcome import Behind, Outcome
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.tasks.answers import Options
from kv_claims.tasks.behind import named, options_behind, texts_sha
from kv_claims.tasks.task import Pair


class Asked(NamedTuple):
    """What is fed behind both prompts of a pair, the text that an outcome is of first.

    options: the texts, and what the others are. tokens: of each text.
    """

    options: Options
    tokens: tuple[tuple[int, ...], ...]

    @property
    def texts_sha(self) -> str:
        return texts_sha(self.options)


class TextsBehind:
    """Texts behind the prompts of one task's pairs, on one model."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._found: dict[tuple[str, Behind], Asked] = {}

    def of(self, pair: Pair, behind: Behind) -> Asked:
        """Raises UsageError for texts that are not there, or cannot be told apart as tokens."""
        if (pair.id, behind) not in self._found:
            options = options_behind(pair, behind)
            tokens = tuple(self._tokens(pair, text) for text in options.texts)
            _check_apart(pair, options.texts, tokens)
            self._found[pair.id, behind] = Asked(options, tokens)
        return self._found[pair.id, behind]

    def check(self, outcomes: Iterable[Outcome], pairs: Sequence[Pair]) -> None:
        """Raise UsageError for an outcome that some pair's texts do not have."""
        for outcome in outcomes:
            if outcome.behind is not None:
                for pair in pairs:
                    _check(outcome, pair, self.of(pair, outcome.behind))

    def longest(self, outcomes: Iterable[Outcome], pairs: Sequence[Pair]) -> int:
        """Tokens of the longest text of some outcomes; 0 where none has any."""
        lengths = self._lengths(outcomes, pairs)
        return max((n for some in lengths for n in some), default=0)

    def fewest_read(self, outcome: Outcome, pairs: Sequence[Pair]) -> int | None:
        """Of the pair whose texts are shortest, the tokens of the longest; None without texts."""
        return min((max(some) for some in self._lengths([outcome], pairs)), default=None)

    def _lengths(self, outcomes: Iterable[Outcome], pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
        kinds = {outcome.behind for outcome in outcomes if outcome.behind is not None}
        return [
            tuple(map(len, self.of(pair, kind).tokens)) for kind in sorted(kinds) for pair in pairs
        ]

    def _tokens(self, pair: Pair, text: str) -> tuple[int, ...]:
        of_source, of_base = (
            tuple(self._model.behind(prompt, text)) for prompt in (pair.source, pair.base)
        )
        if of_source != of_base:
            raise UsageError(
                f"{named(pair)}: {text!r} is {list(of_source)} behind the source and "
                f"{list(of_base)} behind the base, on {self._model.name}; expected the same tokens"
            )
        return of_source


def _check_apart(pair: Pair, texts: Sequence[str], tokens: Sequence[tuple[int, ...]]) -> None:
    """Refuse texts of which one begins with the other: it is always the less likely of the two."""
    for k, (one, text) in enumerate(zip(tokens, texts, strict=True)):
        for other, beside in zip(tokens[:k], texts[:k], strict=True):
            if one == other:
                raise UsageError(
                    f"{named(pair)}: {beside!r} and {text!r} are the same tokens {list(one)}, "
                    "expected answers that differ"
                )
            shared = min(len(one), len(other))
            if one[:shared] == other[:shared]:
                longer, shorter = (text, beside) if len(one) > len(other) else (beside, text)
                raise UsageError(
                    f"{named(pair)}: {longer!r} begins with all the tokens of {shorter!r}, so "
                    "that it can never be the likelier one; expected answers that part before "
                    "one of them ends"
                )


def _check(outcome: Outcome, pair: Pair, asked: Asked) -> None:
    """Refuse an outcome that these texts do not have."""
    options, here = asked.options, f"outcome {outcome}: {named(pair)}"
    if outcome.name == "logit_diff" and not options.has_foil:
        raise UsageError(
            f"{here}: no foil; expected `foil` in the source's entry, `answer` in the base's, or "
            "two choices"
        )
    if outcome.name == "accuracy" and len(options.texts) < 2:
        raise UsageError(f"{here}: no foil and no choices; expected something to be likelier than")
    if outcome.name == "choice" and not options.are_choices:
        raise UsageError(f"{here}: no choices; expected `choices` in the source's entry")
    if outcome.name == "rank" and (n := len(asked.tokens[0])) > 1:
        raise UsageError(
            f"{here}: the answer {options.texts[0]!r} has {n} tokens, and only single tokens have "
            "a rank; expected an answer of one, or another outcome"
        )
