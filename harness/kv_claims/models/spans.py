"""Which tokens of a prompt a named part of its text is.

Promises: the tokens hold all of the part, and nothing of the text beside it but blanks; where a
token straddles an end of it (as where a word is cut in two), it is an error that names the token.
Does not: know where BOS comes from (`kv_claims.models.tokens`): it counts what is fed.
"""

from __future__ import annotations

from kv_claims.errors import UsageError
from kv_claims.models.tokens import Tokenization
from kv_claims.tasks.spans import places
from kv_claims.tasks.task import Prompt


def located(tokenization: Tokenization, prompt: Prompt) -> tuple[tuple[str, range], ...]:
    """The spans of a prompt by name, each as positions among the tokens that are fed.

    Raises UsageError for a tokenizer that does not say which characters a token stands for, a part
    that a chat template writes twice, and one that no whole tokens are.
    """
    if not prompt.spans:
        return ()
    text = tokenization.rendered(prompt)
    offsets = tokenization.offsets(text)
    return tuple(
        (name, _tokens_of(part, text, offsets, f"prompt {prompt.id!r}: span {name!r}"))
        for name, part in prompt.spans
    )


def _tokens_of(part: str, text: str, offsets: list[tuple[int, int]], where: str) -> range:
    found = places(part, text)
    if len(found) != 1:
        raise UsageError(
            f"{where}: {part!r:.60} stands {len(found)} times in what the model is given; expected "
            "it once"
        )
    start, stop = found[0], found[0] + len(part)
    inside = [place for place, (first, end) in enumerate(offsets) if first < stop and end > start]
    if not inside:
        raise UsageError(f"{where}: no token stands for {part!r:.60}")
    first, end = offsets[inside[0]][0], offsets[inside[-1]][1]
    if (text[first:start] + text[stop:end]).strip():
        raise UsageError(
            f"{where}: no whole tokens are {part!r:.60}; those that hold it are "
            f"{text[first:end]!r:.80}: expected a span that begins and ends where tokens do"
        )
    return range(inside[0], inside[-1] + 1)
