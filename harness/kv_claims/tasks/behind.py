"""Which texts a task puts behind a pair's prompts, and what identifies them. No tokens."""

from __future__ import annotations

import hashlib
import json

from kv_claims.claims.outcome import Behind
from kv_claims.errors import UsageError
from kv_claims.tasks.answers import Options, options_of
from kv_claims.tasks.task import Pair


def options_behind(pair: Pair, behind: Behind) -> Options:
    """The texts behind a pair's prompts. Raises UsageError where it has none."""
    if behind == "continuation":
        text = pair.source.continuation or pair.base.continuation
        if text is None:
            raise UsageError(
                f"{named(pair)}: no continuation; expected `continuation` in the source's entry "
                "of the task file, or in the base's"
            )
        return Options((text,), has_foil=False, are_choices=False)
    if pair.source.answers is None:
        raise UsageError(
            f"{named(pair)}: no answer; expected `answer` in the source's entry of the task file"
        )
    return options_of(pair.source.answers, pair.base.answers)


def texts_sha(options: Options) -> str:
    """SHA-256, hex, of texts in their order."""
    return hashlib.sha256(json.dumps(options.texts).encode()).hexdigest()


def named(pair: Pair) -> str:
    """A pair in an error."""
    return f"pair {pair.index} (source {pair.source.id!r}, base {pair.base.id!r})"
