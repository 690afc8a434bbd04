"""What the models that are made here have in common: Mistral's shape without its extras, and words
as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import MistralConfig, PreTrainedTokenizerFast


def plain_mistral(**shape: Any) -> MistralConfig:
    """A Mistral whose layers see everything, and whose texts have no first, last or empty token."""
    return MistralConfig(
        **shape, sliding_window=None, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )


def word_tokenizer(words: Sequence[str], *, unknown: str) -> PreTrainedTokenizerFast:
    """Token n is the n-th word; words stand apart. unknown: the word that any other is read as."""
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=unknown))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
