"""Where each architecture keeps its layers, the tensors of a block and rotary frequencies, as data.

Promises: what is in the table is tested on a tiny model of each architecture; an architecture that
is not in it is refused by name, never guessed. Paths start at the decoder that transformers itself
names (`get_decoder`), so a multimodal wrapper needs no row of its own.
Does not: run a model, or say which patches an architecture allows. Splicing a cache without moving
its keys needs nothing of this: every attention module hands its keys and values to the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from kv_claims.claims.sites import PARTS, Tensor
from kv_claims.errors import UsageError


class Place(NamedTuple):
    """Where a tensor lies.

    module: in a layer; '' is the layer itself. at: whether it is what the module is given or gives.
    start, step: of a tensor of heads, which is some of its module's rows of d_head numbers: first
        row and stride. 'q' and 'kv' in `start` stand for the numbers of query and KV heads, so
        ('q', 'kv') is the row after all queries and keys.
    """

    module: str
    at: Literal["output", "input"] = "output"
    start: tuple[int | str, ...] = (0,)
    step: int = 1


Places = dict[Tensor, Place]


@dataclass(frozen=True)
class Architecture:
    """Where one architecture keeps things; paths are relative to the decoder.

    places: of a block's tensors; the embedding is where transformers says. rotary: None where
    positions are learned and added to the embeddings, so that keys hold them for good.
    parallel: the key of the configuration that says whether the MLP reads what attention reads, so
    that there is no stream between them; None where it never does.
    """

    layers: str
    places: Places
    rotary: str | None
    parallel: str | None = None


def _block(
    attention: str,
    projected: Places,
    *,
    out: str,
    attn_out: str | None = None,
    before_mlp: str = "post_attention_layernorm",
    mlp_out: str = "mlp",
) -> Places:
    """The tensors of a block.

    projected: queries, keys and values, in the attention module. out: its output projection.
    attn_out: what is added to the stream, where that is not the projection's output. before_mlp:
    what reads the stream for the MLP. It and the block read one tensor, so that what is written
    there in place is written to the stream.
    """
    output = f"{attention}.{out}"
    within: Places = {
        tensor: place._replace(module=f"{attention}.{place.module}")
        for tensor, place in projected.items()
    }
    return {
        "resid_pre": Place("", "input"),
        **within,
        "z": Place(output, "input"),
        "attn_out": Place(attn_out or output),
        "resid_mid": Place(before_mlp, "input"),
        "mlp_out": Place(mlp_out),
        "residual": Place(""),
    }


def _fused(module: str) -> Places:
    """One projection for all: queries, then keys, then values."""
    return {
        "q": Place(module),
        "k": Place(module, start=("q",)),
        "v": Place(module, start=("q", "kv")),
    }


_SEPARATE: Places = {"q": Place("q_proj"), "k": Place("k_proj"), "v": Place("v_proj")}
"""q_norm and k_norm of Qwen3 and Gemma 3 come after them."""
_LLAMA = Architecture("layers", _block("self_attn", _SEPARATE, out="o_proj"), "rotary_emb")
_GEMMA = Architecture(
    "layers",
    # What attention and MLP give is normed before it is added to the stream.
    _block(
        "self_attn",
        _SEPARATE,
        out="o_proj",
        attn_out="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        mlp_out="post_feedforward_layernorm",
    ),
    "rotary_emb",
)

TABLE: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "phi3": Architecture(
        "layers", _block("self_attn", _fused("qkv_proj"), out="o_proj"), "rotary_emb"
    ),
    "gpt2": Architecture(
        "h", _block("attn", _fused("c_attn"), out="c_proj", before_mlp="ln_2"), rotary=None
    ),
    "gpt_neox": Architecture(
        "layers",
        _block(
            "attention",
            # One projection, interleaved: query, key, value of head 0, then of head 1, ...
            {
                tensor: Place("query_key_value", start=(number,), step=3)
                for number, tensor in enumerate(_SEPARATE)
            },
            out="dense",
        ),
        "rotary_emb",
        parallel="use_parallel_residual",
    ),
}
"""Model type (of the text model) to where it keeps things."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of one network.

    rotary: None where the architecture learns its positions (GPT-2). embedding: of the tokens.
    is_parallel: whether attention and MLP of a block read the same stream.
    """

    kind: str
    layers: tuple[nn.Module, ...]
    embedding: nn.Module
    rotary: nn.Module | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    is_parallel: bool
    _places: Places

    def check(self, tensor: Tensor) -> None:
        """Raise UsageError for a tensor that this network's blocks do not have."""
        if tensor == "resid_mid" and self.is_parallel:
            raise UsageError(
                f"Patch(site='resid_mid'): architecture {self.kind!r} here has parallel blocks, in "
                "which attention and MLP read the same stream, and there is none between them; "
                "expected site 'resid_pre', 'attn_out', 'mlp_out' or 'residual'"
            )

    def module(self, layer: int, tensor: Tensor) -> nn.Module:
        """The module that is given a tensor, or gives it; see `at`."""
        if tensor == "embed":
            return self.embedding
        return self.layers[layer].get_submodule(self._places[tensor].module)

    def at(self, tensor: Tensor) -> Literal["output", "input"]:
        """Whether a tensor is its module's output or its input."""
        return "output" if tensor == "embed" else self._places[tensor].at

    def part(self, states: torch.Tensor, tensor: Tensor) -> torch.Tensor:
        """A tensor's share of what its module gives or is given, as a view: writing to it writes
        that.

        states: `batch pos width`. Gives `batch pos head d_head`, of the tensor's kind of heads;
        queries, keys and values before RoPE and before their norms. What has no heads is one head
        as wide as the model.
        """
        kind = PARTS[tensor].heads
        if kind is None:
            return states.unsqueeze(2)
        place, count = self._places[tensor], {"q": self.n_heads, "kv": self.n_kv_heads}
        start = sum(term if isinstance(term, int) else count[term] for term in place.start)
        n_heads = self.n_kv_heads if kind == "KV heads" else self.n_heads
        stop = start + place.step * (n_heads - 1) + 1
        rows = states.view(*states.shape[:-1], -1, self.d_head)
        return rows[:, :, start : stop : place.step]


def anatomy_of(network: Any) -> Anatomy:
    """The parts of a causal language model.

    Raises UsageError for an architecture that is not in the table, or whose modules are not where
    the table says.
    """
    config = network.config.get_text_config()
    row = _row(config.model_type)
    layers = decoder_layers(network)
    rotary = _get(network.get_decoder(), row.rotary, config.model_type) if row.rotary else None
    for place in row.places.values():
        _get(layers[0], place.module, config.model_type)
    n_heads = int(config.num_attention_heads)
    return Anatomy(
        kind=config.model_type,
        layers=tuple(layers),
        embedding=network.get_input_embeddings(),
        rotary=rotary,
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        d_head=int(getattr(config, "head_dim", None) or config.hidden_size // n_heads),
        is_parallel=bool(row.parallel and getattr(config, row.parallel)),
        _places=row.places,
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
