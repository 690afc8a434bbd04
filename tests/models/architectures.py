"""Tiny random checkpoints of every architecture of the table, with their variants, as data."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kv_claims.claims.sites import SITES, Site
from kv_claims.models.load import LoadedModel
from tests.device import PLACE

VOCAB = 97
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GQA = {"num_key_value_heads": 2}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Numbers that a tiny text soon reaches; real ones are 4096 and more.
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 96,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
_TWO_THETAS = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GQA),
    "llama-llama3-rope": ("llama", {**_GQA, "rope_parameters": _LLAMA3}),
    "llama-yarn": ("llama", {**_GQA, "rope_parameters": _YARN}),
    "llama-linear": (
        "llama",
        {**_GQA, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "llama-dynamic": (
        "llama",
        {**_GQA, "rope_parameters": _DYNAMIC, "max_position_embeddings": 128},
    ),
    "mistral": ("mistral", {**_GQA, "sliding_window": None}),
    "mistral-window": ("mistral", {**_GQA, "sliding_window": 8}),
    "mixtral": ("mixtral", {**_GQA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", _GQA),
    "qwen3": ("qwen3", {**_GQA, "head_dim": 8}),
    "gemma2": ("gemma2", {**_GQA, "head_dim": 8, "sliding_window": 8}),
    "gemma3": (
        "gemma3_text",
        {
            **_GQA,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": _TWO_THETAS,
        },
    ),
    "phi3": ("phi3", _GQA),
    "phi3-longrope": (
        "phi3",
        {**_GQA, "rope_parameters": _LONGROPE, "original_max_position_embeddings": 96},
    ),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.5}),
    "gpt_neox-serial": ("gpt_neox", {"rotary_pct": 0.5, "use_parallel_residual": False}),
    "gpt2": ("gpt2", {}),
}
"""Name to (model type, changes to the common configuration)."""

_MLA: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon-one-head": ("falcon", {"multi_query": True, "new_decoder_architecture": False}),
    "falcon-new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-alibi": (
        "falcon",
        {"multi_query": False, "new_decoder_architecture": False, "alibi": True},
    ),
    "deepseek_v3": ("deepseek_v3", _MLA),
    "qwen2_moe": (
        "qwen2_moe",
        {**_GQA, **_EXPERTS, "shared_expert_intermediate_size": 16},
    ),
    "qwen3_moe": ("qwen3_moe", {**_GQA, **_EXPERTS, "head_dim": 8}),
    "olmo2": ("olmo2", _GQA),
    "stablelm": ("stablelm", _GQA),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {}),
    "opt": ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "cohere": ("cohere", _GQA),
    "starcoder2": ("starcoder2", _GQA),
    "smollm3": ("smollm3", _GQA),
    "granite": ("granite", _GQA),
}
"""Architectures out of the table that are spliced as they are, where no key moves."""

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma3n": (
        "gemma3n_text",
        {
            **_GQA,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "laurel_rank": 4,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": None,
        },
        "'gemma3n_text': ",
    ),
    "openai-gpt": ("openai-gpt", {}, "'openai-gpt': 0 layers keep keys and values, of 4"),
    "bert": ("bert", {}, "'bert': rows decoded from its caches do not have the logits"),
    "bart": ("bart", {"encoder_layers": 2, "decoder_layers": 2}, "'bart': "),
    "mamba": ("mamba", {}, "'mamba': layer 0 keeps LinearAttentionLayer"),
}
"""Those that cannot be patched, with how the sentence begins."""

ROTARY = [name for name in CONFIGS if name != "gpt2"]
"""Those whose keys can be moved."""


def sites_of(name: str) -> tuple[Site, ...]:
    """The sites that a checkpoint of the table has: parallel blocks have no stream within."""
    return tuple(site for site in SITES if site != "resid_mid" or name != "gpt_neox")


def tiny(name: str, dtype: torch.dtype = torch.float64) -> LoadedModel:
    """A random checkpoint of an architecture, 4 layers, width 32, with weights of some size.

    It lies on the device of the tests (`tests.device`).
    """
    known = {**CONFIGS, **OTHERS, **{of: (kind, more) for of, (kind, more, _) in REFUSED.items()}}
    kind, changes = known.get(name, (name, {}))
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_COMMON, **changes})
    # torch's grouped matrix product, which Mixtral takes by default, has no float64.
    config._experts_implementation = "eager"
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # The usual initialization is so small that attention hardly looks at its keys.
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    rope = {key: value for key, value in network.named_buffers() if "inv_freq" in key}
    network = network.to(dtype).eval()
    for key, value in rope.items():
        # transformers keeps the frequencies in float32, whatever the dtype.
        network.get_submodule(key.rpartition(".")[0]).register_buffer(
            key.rpartition(".")[2], value, persistent=False
        )
    return LoadedModel(
        name=f"tiny:{name}",
        network=network.to(PLACE),
        tokenizer=NumberTokenizer(),
        device=PLACE,
        dtype=dtype,
        revision=None,
    )


class NumberTokenizer:
    """Words are token numbers: `5 17 3` is [5, 17, 3]."""

    def __call__(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,  # noqa: ARG002
        return_offsets_mapping: bool = False,  # noqa: ARG002
    ) -> dict[str, Any]:
        words = [*re.finditer(r"\S+", text)]
        return {
            "input_ids": [int(word[0]) % VOCAB for word in words],
            "offset_mapping": [word.span() for word in words],
        }

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:  # noqa: ARG002
        return " ".join(map(str, ids))


def prompt(length: int, seed: int) -> list[int]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (length,), generator=generator).tolist()
