"""Planted weights: a `MistralForCausalLM` and its tokenizer, built in memory.

How it works. One constant dimension of the residual stream is so large (2**14) that RMSNorm
divides by the same number everywhere and is linear to about 1e-7. Queries are zero, so attention
averages the values of all positions uniformly. A trigger word's value has a 1 in its first
component; the reading layers add the average of that component to a signal dimension, and the
signal raises the logit of every marker word. All other components of K and V are fixed random
content of the token that no weight reads: every patch changes elements, and only the planted
ones have an effect. MLPs are zero. Markers and plain words carry no trigger, so generated words
only dilute the signal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from harness.models.planted.catalog import (
    CONTENT,
    D_HEAD,
    HIDDEN,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    Planted,
)
from harness.models.planted.words import MARKERS, PLAIN, TRIGGERS

UNKNOWN = "<unk>"
_CONSTANT_DIM, _TRIGGER_DIM, _SIGNAL_DIM, _CONTENT_DIM = 0, 1, 2, 3
_CONSTANT = 2.0**14
_NEVER = -60.0
"""Logit of words that are never generated: their total probability is below 1e-30."""


def build_planted(planted: Planted) -> tuple[MistralForCausalLM, PreTrainedTokenizerFast]:
    """The network (float64, on CPU, eval mode) and its tokenizer."""
    words = [UNKNOWN, *MARKERS, *PLAIN, *TRIGGERS]
    vocabulary = {word: index for index, word in enumerate(words)}
    with torch.device("meta"):
        network = MistralForCausalLM(_config(len(words)))
    network = network.to_empty(device="cpu").to(torch.float64)
    _restore_rotary(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        _write_embeddings(network, vocabulary)
        for layer, share in zip(network.model.layers, planted.shares, strict=True):
            _write_layer(layer, share)
        network.model.norm.weight.fill_(_CONSTANT / HIDDEN**0.5)
        _write_head(network, vocabulary, planted)
    return network.eval(), _tokenizer(vocabulary)


def save_planted(planted: Planted, folder: Path) -> None:
    """Write the model as an ordinary Hugging Face folder (config, safetensors, tokenizer)."""
    network, tokenizer = build_planted(planted)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(vocab_size: int) -> MistralConfig:
    return MistralConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        head_dim=D_HEAD,
        max_position_embeddings=4096,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def _restore_rotary(network: MistralForCausalLM) -> None:
    """Compute the rotary buffers, which `to_empty` leaves undefined."""
    network.model.rotary_emb = type(network.model.rotary_emb)(network.config)


def _write_embeddings(network: MistralForCausalLM, vocabulary: dict[str, int]) -> None:
    table = network.model.embed_tokens.weight
    generator = torch.Generator().manual_seed(0)
    n_content = 2 * D_HEAD
    content = torch.rand(len(vocabulary), n_content, generator=generator, dtype=torch.float64)
    table[:, _CONSTANT_DIM] = _CONSTANT
    table[:, _CONTENT_DIM : _CONTENT_DIM + n_content] = CONTENT * (2 * content - 1)
    table[[vocabulary[word] for word in TRIGGERS], _TRIGGER_DIM] = 1.0


def _write_layer(layer: Any, share: float) -> None:
    """K: content; V: the trigger, then content; O: the signal takes its share of V's trigger."""
    attention = layer.self_attn
    layer.input_layernorm.weight.fill_(_CONSTANT / HIDDEN**0.5)
    layer.post_attention_layernorm.weight.fill_(1.0)
    for component in range(D_HEAD):
        attention.k_proj.weight[component, _CONTENT_DIM + D_HEAD + component] = 1.0
    attention.v_proj.weight[0, _TRIGGER_DIM] = 1.0
    for component in range(1, D_HEAD):
        attention.v_proj.weight[component, _CONTENT_DIM + component] = 1.0
    attention.o_proj.weight[_SIGNAL_DIM, 0] = share


def _write_head(network: MistralForCausalLM, vocabulary: dict[str, int], planted: Planted) -> None:
    head = network.lm_head.weight
    head[:, _CONSTANT_DIM] = _NEVER / _CONSTANT
    head[[vocabulary[word] for word in PLAIN], _CONSTANT_DIM] = 0.0
    markers = [vocabulary[word] for word in MARKERS]
    head[markers, _CONSTANT_DIM] = planted.offset / _CONSTANT
    head[markers, _SIGNAL_DIM] = planted.gain


def _tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
