"""Where each architecture keeps layers, keys, values and rotary frequencies: one table, as data.

Promises: what is in the table is tested on a tiny model of each architecture; an architecture that
is not in it is refused by name, never guessed. Paths start at the decoder that transformers itself
names (`get_decoder`), so a multimodal wrapper needs no row of its own.
Does not: run a model, or say which patches an architecture allows. Splicing a cache without moving
its keys needs nothing of this: every attention module hands its keys and values to the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from kv_claims.claims.patch import Tensor
from kv_claims.errors import UsageError


class Place(NamedTuple):
    """Where keys or values lie: a projection's output is rows of d_head numbers, some of them ours.

    module: the projection, under the attention module.
    start, step: first row and stride, rows counted in heads. 'q' and 'kv' in `start` stand for
        the numbers of query and KV heads, so ('q', 'kv') is the row after all queries and keys.
    """

    module: str
    start: tuple[int | str, ...]
    step: int


@dataclass(frozen=True)
class Architecture:
    """Where one architecture keeps things; paths are relative to the decoder.

    attention: the attention module's name in a layer. rotary: None where positions are learned
    and added to the embeddings, so that keys hold them for good.
    """

    layers: str
    attention: str
    keys: Place
    values: Place
    rotary: str | None


def _llama_like() -> Architecture:
    """Separate projections; q_norm and k_norm of Qwen3 and Gemma 3 come after them."""
    return Architecture(
        layers="layers",
        attention="self_attn",
        keys=Place("k_proj", (0,), 1),
        values=Place("v_proj", (0,), 1),
        rotary="rotary_emb",
    )


TABLE: dict[str, Architecture] = {
    "llama": _llama_like(),
    "mistral": _llama_like(),
    "mixtral": _llama_like(),
    "qwen2": _llama_like(),
    "qwen3": _llama_like(),
    "gemma2": _llama_like(),
    "gemma3_text": _llama_like(),
    # One projection for all: queries, then keys, then values.
    "phi3": Architecture(
        layers="layers",
        attention="self_attn",
        keys=Place("qkv_proj", ("q",), 1),
        values=Place("qkv_proj", ("q", "kv"), 1),
        rotary="rotary_emb",
    ),
    "gpt2": Architecture(
        layers="h",
        attention="attn",
        keys=Place("c_attn", ("q",), 1),
        values=Place("c_attn", ("q", "kv"), 1),
        rotary=None,
    ),
    # One projection, interleaved: query, key, value of head 0, then of head 1, ...
    "gpt_neox": Architecture(
        layers="layers",
        attention="attention",
        keys=Place("query_key_value", (1,), 3),
        values=Place("query_key_value", (2,), 3),
        rotary="rotary_emb",
    ),
}
"""Model type (of the text model) to where it keeps things."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of one network.

    rotary: None where the architecture learns its positions (GPT-2).
    """

    kind: str
    layers: tuple[nn.Module, ...]
    rotary: nn.Module | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    _architecture: Architecture

    def module(self, layer: int, tensor: Tensor) -> nn.Module:
        """The module whose output holds a tensor: a projection, or the layer itself (residual)."""
        if tensor == "residual":
            return self.layers[layer]
        attention = self.layers[layer].get_submodule(self._architecture.attention)
        return attention.get_submodule(self._place(tensor).module)

    def part(self, output: torch.Tensor, tensor: Tensor) -> torch.Tensor:
        """A tensor's share of its module's output, as a view: writing to it writes the output.

        output: `batch pos width`. Gives `batch pos head d_head`, heads being KV heads, before
        RoPE and before the norm of keys; for the residual, one head as wide as the model.
        """
        if tensor == "residual":
            return output.unsqueeze(2)
        place = self._place(tensor)
        count = {"q": self.n_heads, "kv": self.n_kv_heads}
        start = sum(term if isinstance(term, int) else count[term] for term in place.start)
        stop = start + place.step * (self.n_kv_heads - 1) + 1
        rows = output.view(*output.shape[:-1], -1, self.d_head)
        return rows[:, :, start : stop : place.step]

    def _place(self, tensor: Tensor) -> Place:
        return self._architecture.keys if tensor == "k" else self._architecture.values


def anatomy_of(network: Any) -> Anatomy:
    """The parts of a causal language model.

    Raises UsageError for an architecture that is not in the table, or whose modules are not where
    the table says.
    """
    config = network.config.get_text_config()
    row = _row(config.model_type)
    layers = decoder_layers(network)
    rotary = _get(network.get_decoder(), row.rotary, config.model_type) if row.rotary else None
    for part in (row.keys.module, row.values.module):
        _get(layers[0], f"{row.attention}.{part}", config.model_type)
    n_heads = int(config.num_attention_heads)
    return Anatomy(
        kind=config.model_type,
        layers=tuple(layers),
        rotary=rotary,
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        d_head=int(getattr(config, "head_dim", None) or config.hidden_size // n_heads),
        _architecture=row,
    )


def decoder_layers(network: Any) -> Sequence[nn.Module]:
    """The decoder layers of a causal language model, first to last. Errors as in `anatomy_of`."""
    kind = network.config.get_text_config().model_type
    return list(_get(network.get_decoder(), _row(kind).layers, kind))


def output_of(result: Any) -> torch.Tensor:
    """The tensor in what a module returned: decoder layers of some releases return a tuple."""
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return found


def with_output(result: Any, output: torch.Tensor) -> Any:
    """What a module returned, with another tensor in it."""
    return (output, *result[1:]) if isinstance(result, tuple) else output


def _row(kind: str) -> Architecture:
    if kind not in TABLE:
        raise UsageError(
            f"architecture {kind!r}: it is not known where it keeps its decoder layers, its "
            "projections of keys and values, and its rotary frequencies. Expected one of "
            f"{', '.join(sorted(TABLE))}; or patch its cache (kv, k, v) without moving keys"
        )
    return TABLE[kind]


def _get(root: nn.Module, path: str, kind: str) -> Any:
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        raise UsageError(
            f"architecture {kind!r}: no module {path!r} in {type(root).__name__}, where the table "
            "of architectures expects it (another release of transformers?)"
        ) from error
