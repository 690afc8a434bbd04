"""Planted weights: a `MistralForCausalLM` and its tokenizer, built in memory.

How it works. One constant dimension of the residual stream is so large (2**14) that RMSNorm
divides by the same number everywhere and is linear to about 1e-7. Queries are zero, so attention
averages the values of all positions uniformly; where a model binds by keys, its query comes from
the constant and meets the keys' trigger in the slowest rotary pair. The first components of a
value are the planted ones (`catalog.Channel`), which the output adds to further dimensions; the
head reads those that raise words. All other components of K and V are fixed random content of the
token that no weight reads: every patch changes elements, and only the planted ones have an
effect. MLPs are zero, or linear: their gate is open by the constant. In a filled model queries,
attention and MLPs have content too, which goes nowhere: queries where keys have none, and into
dimensions that are read by nothing.
"""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from kv_claims.claims.layers import resolve_layers
from kv_claims.planted.catalog import (
    COLUMN,
    CONSTANT_COLUMN,
    CONTENT_COLUMN,
    D_HEAD,
    HIDDEN,
    MATCHED,
    N_CONTENT,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    UNKNOWN,
    Planted,
)
from kv_claims.planted.embedding import content_table
from kv_claims.planted.made import plain_mistral
from kv_claims.planted.words import MARKERS, PLAIN

_CONSTANT = 2.0**14
_NEVER = -60.0
"""Logit of words that are never generated: their total probability is below 1e-30."""
_SPARE = range(max(COLUMN.values()) + 1, HIDDEN)
"""Dimensions that nothing reads."""
_GATE = 1 / (1 + exp(-1.0))
"""What a gate lets through that is given 1."""


def build_planted(planted: Planted) -> tuple[MistralForCausalLM, PreTrainedTokenizerFast]:
    """The network (float64, on CPU, eval mode) and its tokenizer."""
    vocabulary = {word: index for index, word in enumerate(planted.words)}
    with torch.device("meta"):
        network = MistralForCausalLM(_config(planted))
    network = network.to_empty(device="cpu").to(torch.float64)
    _restore_rotary(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        _write_embeddings(network, planted)
        for index, layer in enumerate(network.model.layers):
            _write_layer(layer, planted, index)
            if planted.turns or planted.filled:
                _write_mlp(layer, planted, index)
            if planted.filled:
                _fill(layer.self_attn)
        network.model.norm.weight.fill_(_CONSTANT / HIDDEN**0.5)
        _write_head(network, vocabulary, planted)
    return network.eval(), _tokenizer(vocabulary)


def save_planted(planted: Planted, folder: Path) -> None:
    """Write the model as an ordinary Hugging Face folder (config, safetensors, tokenizer)."""
    network, tokenizer = build_planted(planted)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(planted: Planted) -> MistralConfig:
    return plain_mistral(
        vocab_size=len(planted.words),
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        head_dim=D_HEAD,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": planted.rope_theta},
        tie_word_embeddings=False,
    )


def _restore_rotary(network: MistralForCausalLM) -> None:
    """Compute the rotary buffers, which `to_empty` leaves undefined."""
    network.model.rotary_emb = type(network.model.rotary_emb)(network.config)


def _write_embeddings(network: MistralForCausalLM, planted: Planted) -> None:
    table = network.model.embed_tokens.weight
    table[:, CONSTANT_COLUMN] = _CONSTANT
    content = torch.tensor(content_table(len(planted.words)))
    table[:, CONTENT_COLUMN : CONTENT_COLUMN + N_CONTENT] = content
    for dim, column in COLUMN.items():
        values = [planted.word_value(word, dim) for word in planted.words]
        table[:, column] = torch.tensor(values, dtype=torch.float64)


def _write_layer(layer: Any, planted: Planted, index: int) -> None:
    """K: content; V: the channels, then content; O: each channel's share of its dimension."""
    attention, reading = layer.self_attn, planted.reading(index)
    layer.input_layernorm.weight.fill_(_CONSTANT / HIDDEN**0.5)
    layer.post_attention_layernorm.weight.fill_(1.0)
    for component in range(D_HEAD):
        attention.k_proj.weight[component, CONTENT_COLUMN + D_HEAD + component] = 1.0
    for component, channel in enumerate(reading.channels):
        attention.v_proj.weight[component, COLUMN[channel.of]] = channel.scale
        if channel.to is not None:
            attention.o_proj.weight[COLUMN[channel.to], component] = channel.weight
    for component in range(len(reading.channels), D_HEAD):
        attention.v_proj.weight[component, CONTENT_COLUMN + component] = 1.0
    if reading.match:
        attention.k_proj.weight[MATCHED].zero_()
        attention.k_proj.weight[MATCHED, COLUMN["trigger"]] = 1.0
        # Attention divides by the root of the head's size; the norm leaves the constant as it is.
        attention.q_proj.weight[MATCHED, CONSTANT_COLUMN] = reading.match * D_HEAD**0.5 / _CONSTANT


def _write_mlp(layer: Any, planted: Planted, index: int) -> None:
    """Each number that a turn takes is passed on: up, through a gate that stands open, and down."""
    layer.post_attention_layernorm.weight.fill_(_CONSTANT / HIDDEN**0.5)
    moved = [
        (COLUMN[turn.of], COLUMN[turn.to], turn.weight)
        for turn in planted.turns
        if index in resolve_layers(turn.layers, N_LAYERS)
    ]
    if planted.filled:
        moved += [(CONTENT_COLUMN + i, _SPARE[i], 1.0) for i in range(2)]
    for row, (of, to, weight) in enumerate(moved):
        layer.mlp.gate_proj.weight[row, CONSTANT_COLUMN] = 1 / _CONSTANT
        layer.mlp.up_proj.weight[row, of] = 1.0
        layer.mlp.down_proj.weight[to, row] = weight / _GATE


def _fill(attention: Any) -> None:
    """Content in queries, where keys have none, and of head 1 in what attention adds."""
    # Component i pairs with i + D_HEAD / 2.
    pair = [MATCHED, MATCHED + D_HEAD // 2]
    attention.k_proj.weight[pair] = 0.0
    for head in range(N_HEADS):
        for component in pair:
            row = head * D_HEAD + component
            attention.q_proj.weight[row, CONTENT_COLUMN + D_HEAD + component] = 1.0
    for i, component in enumerate(range(D_HEAD - 2, D_HEAD)):
        attention.o_proj.weight[_SPARE[2 + i], D_HEAD + component] = 1.0


def _write_head(network: MistralForCausalLM, vocabulary: dict[str, int], planted: Planted) -> None:
    head = network.lm_head.weight
    head[:, CONSTANT_COLUMN] = _NEVER / _CONSTANT
    head[[vocabulary[word] for word in PLAIN], CONSTANT_COLUMN] = 0.0
    markers = [vocabulary[word] for word in MARKERS]
    head[markers, CONSTANT_COLUMN] = planted.offset / _CONSTANT
    head[markers, COLUMN["signal"]] = planted.gain
    for raised in planted.raises:
        rows = [vocabulary[word] for word in raised.words]
        head[rows, COLUMN[raised.of]] = raised.gain
        head[rows, CONSTANT_COLUMN] += raised.rest / _CONSTANT


def _tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
