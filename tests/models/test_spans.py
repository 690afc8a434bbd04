"""Spans to tokens: all of the part, nothing beside it, or an error that names what straddles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from kv_claims.errors import UsageError
from kv_claims.models.spans import located
from kv_claims.models.tokens import Tokenization
from kv_claims.tasks.task import Prompt
from tests.models.test_tokens import network


def by_bytes(*, starts: bool = False) -> Tokenization:
    """A byte-level tokenizer with a few merges, which takes the blank before a word along."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "s"), ("Ġs", "e"), ("Ġse", "a")]
    vocabulary = {one: n for n, one in enumerate([*letters, *(a + b for a, b in merges), "<s>"])}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if starts:
        special = [("<s>", vocabulary["<s>"])]
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=special)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    return Tokenization("bytes", made, network())


WORDS = st.sampled_from(["the", "sea", "is", "Zürich", "日本", "a", "the-sea"])


@given(
    words=st.lists(WORDS, min_size=2, max_size=8, unique=True), data=st.data(), bos=st.booleans()
)
def test_the_tokens_of_a_span_read_as_the_span(
    words: list[str], data: st.DataObject, bos: bool
) -> None:
    text = " ".join(["zero", *words, "end"])
    first = data.draw(st.integers(0, len(words) - 1))
    part = " ".join(words[first : data.draw(st.integers(first + 1, len(words)))])
    if text.count(part) != 1:
        return
    tokenization = by_bytes(starts=bos)
    ((name, found),) = located(tokenization, Prompt("p", "f", text, spans=(("part", part),)))
    ids = tokenization.encode(text)
    assert name == "part"
    assert tokenization.decode([ids[k] for k in found]).strip() == part
    before = tokenization.decode(ids[: found.start])
    assert text.startswith(before)
    assert before.strip() == text[: text.index(part)].strip()


def test_a_token_that_straddles_an_end_is_named() -> None:
    prompt = Prompt("p7", "f", "see the sea", spans=(("part", "he se"),))
    with pytest.raises(
        UsageError, match=r"'p7': span 'part': no whole tokens .* ' the sea'|the sea"
    ):
        located(by_bytes(), prompt)


def test_a_tokenizer_without_places_is_refused() -> None:
    class Slow:
        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            if options.get("return_offsets_mapping"):
                raise NotImplementedError
            return {"input_ids": [ord(one) for one in text]}

    prompt = Prompt("p", "f", "the sea", spans=(("part", "sea"),))
    with pytest.raises(UsageError, match="does not say which characters a token stands for"):
        located(Tokenization("slow", Slow(), network()), prompt)
    assert located(Tokenization("slow", Slow(), network()), Prompt("p", "f", "the sea")) == ()
