"""A tiny random Llama as a GGUF file, written as llama.cpp writes one, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed: kv-claims[gguf]")
pytest.importorskip("accelerate", reason="accelerate is not installed: kv-claims[gguf]")
if Version(transformers.__version__) < Version("5.24"):
    pytest.skip("GGUF files are read by transformers 5.24 or newer", allow_module_level=True)

SPECIAL = ("<|begin|>", "<|end|>")
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), "he", "ll", "hell", "hello"]
MERGES = ["h e", "l l", "he ll", "hell o"]
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
HEADS, KV_HEADS, LAYERS, WIDTH = 4, 2, 2, 64

Spoiled = Callable[[dict[str, Any], dict[str, np.ndarray]], None]
"""Changes metadata and tensors before they are written."""


def network(seed: int = 0) -> LlamaForCausalLM:
    """The network that a file is made of, float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def tensors_of(network: LlamaForCausalLM) -> dict[str, np.ndarray]:
    """By the names of GGUF; rows of queries and keys in llama.cpp's order."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    said = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    found = {
        "token_embd.weight": said["model.embed_tokens.weight"],
        "output_norm.weight": said["model.norm.weight"],
        "output.weight": said["lm_head.weight"],
    }
    for layer in range(LAYERS):
        for ours, theirs in names.items():
            weight = said[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                heads = HEADS if theirs == "attn_q" else KV_HEADS
                halves = weight.reshape(heads, 2, -1, weight.shape[1])
                weight = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
            found[f"blk.{layer}.{theirs}.weight"] = weight
    return found


def metadata() -> dict[str, Any]:
    return {
        "general.name": "tiny",
        "general.license": "mit",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 5000.0,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(TOKENS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(
    path: Path,
    *,
    kind: str = "F32",
    raw: Mapping[str, str] | None = None,
    spoil: Spoiled | None = None,
    architecture: str = "llama",
) -> Path:
    """Write a file. kind: how matrices are stored. raw: zeros of other kinds, by tensor."""
    said, tensors = metadata(), tensors_of(network())
    if spoil:
        spoil(said, tensors)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in said.items():
        put = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
        getattr(writer, f"add_{put[type(value)]}")(key, value)
    for name, tensor in tensors.items():
        if name in (raw or {}):
            stored = gguf.GGMLQuantizationType[raw[name]]  # type: ignore[index]
            of_block, size = gguf.GGML_QUANT_SIZES[stored]
            rows = np.zeros((tensor.shape[0], 256 // of_block * size), np.uint8)
            writer.add_tensor(name, rows, raw_dtype=stored)
        elif kind != "F32" and tensor.ndim == 2:
            stored = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(tensor, stored), raw_dtype=stored)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
