"""Prompts of no meaning, on which a model's decoding is tried out before its first trial."""

from __future__ import annotations

from kv_claims.models.load import LoadedModel
from kv_claims.patch.store import PromptStore

LENGTHS = (7, 12, 12)
"""Tokens of each: rows of unlike length, and two that one can be spliced into the other."""


def probe_store(model: LoadedModel) -> tuple[PromptStore, list[int]]:
    """A store with a prompt of each length, and the place of each in it."""
    vocabulary = int(model.config.vocab_size)
    prompts = [
        [(31 * at + 17 * number + 5) % vocabulary for at in range(length)]
        for number, length in enumerate(LENGTHS)
    ]
    store = PromptStore(model)
    store.add(prompts)
    return store, [store.index(prompt) for prompt in prompts]
