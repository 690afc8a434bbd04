"""The sites of a patch, as data: which tensors of a block each writes, and what a block does with
them. No torch here.

Promises: one row a tensor, in the order in which a forward pass computes them; what else needs to
know of a site reads it here. Where an architecture keeps a tensor is in `models.architectures`.
Does not: know layers, positions, or models.

    embed -> resid_pre -> q, k, v -> z -> attn_out -> resid_mid -> mlp_out -> residual -> ...

The stream of a block is resid_pre; resid_mid is resid_pre + attn_out, and residual (the block's
output, TransformerLens' resid_post) is resid_mid + mlp_out. In a parallel block (GPT-NeoX) the MLP
reads resid_pre, and there is no resid_mid.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

# fmt: off
Tensor = Literal[
    "embed", "resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_out", "residual",
]
Site = Literal[
    "kv", "k", "v",
    "kv_proj", "k_proj", "v_proj", "q_proj", "z", "attn_out", "mlp_out",
    "embed", "resid_pre", "resid_mid", "residual",
]
# fmt: on
HeadKind = Literal["KV heads", "query heads"]
Spot = tuple[int, Tensor]
"""A layer and one of its tensors."""


class Part(NamedTuple):
    """One tensor of a block, at each position.

    heads: whose heads its rows are; None where it is one row, as wide as the model.
    feeds_cache: whether keys and values of its own block are computed from it, or are it.
    is_stream: whether it is all that anything later gets from its position.
    follows: the tensor that it is computed from alone, position by position, and how many layers
        below that is; None where it is not computed from one.
    """

    heads: HeadKind | None
    feeds_cache: bool = False
    is_stream: bool = False
    follows: tuple[int, Tensor] | None = None


PARTS: dict[Tensor, Part] = {
    "embed": Part(None, feeds_cache=True, is_stream=True),
    "resid_pre": Part(None, feeds_cache=True, is_stream=True, follows=(1, "residual")),
    "q": Part("query heads", follows=(0, "resid_pre")),
    "k": Part("KV heads", feeds_cache=True, follows=(0, "resid_pre")),
    "v": Part("KV heads", feeds_cache=True, follows=(0, "resid_pre")),
    "z": Part("query heads"),
    "attn_out": Part(None, follows=(0, "z")),
    "resid_mid": Part(None, is_stream=True),
    "mlp_out": Part(None, follows=(0, "resid_mid")),
    "residual": Part(None, is_stream=True),
}
"""The tensors of a block, in the order in which they are computed."""

TENSORS: dict[Site, tuple[Tensor, ...]] = {
    "kv": ("k", "v"),
    "k": ("k",),
    "v": ("v",),
    "kv_proj": ("k", "v"),
    "k_proj": ("k",),
    "v_proj": ("v",),
    "q_proj": ("q",),
    "z": ("z",),
    "attn_out": ("attn_out",),
    "mlp_out": ("mlp_out",),
    "embed": ("embed",),
    "resid_pre": ("resid_pre",),
    "resid_mid": ("resid_mid",),
    "residual": ("residual",),
}
"""The tensors of a layer that a site writes."""
SITES: tuple[Site, ...] = get_args(Site)
CACHE_SITES: tuple[Site, ...] = ("kv", "k", "v")
IN_CACHE: tuple[Tensor, ...] = TENSORS["kv"]
"""What attention hands to its cache."""
_ORDER = {tensor: number for number, tensor in enumerate(PARTS)}


def heads_of(site: Site) -> HeadKind | None:
    """Whose heads a site has; None where it has none."""
    return PARTS[TENSORS[site][0]].heads


def in_order(spot: Spot) -> tuple[int, int]:
    """What sorts spots by when a forward pass computes them."""
    layer, tensor = spot
    return layer, _ORDER[tensor]


def given_by(spot: Spot, written: set[Spot]) -> bool:
    """Whether a spot is computed from what is written, and nothing else of its position."""
    layer, tensor = spot
    below = PARTS[tensor].follows
    if below is None:
        return False
    origin = layer - below[0], below[1]
    return origin in written or given_by(origin, written)


class HeadCounts(NamedTuple):
    """Heads of each layer of a model; with grouped queries fewer of keys and values. 0: unknown."""

    kv: int
    query: int

    def of(self, site: Site) -> int | None:
        """How many heads a site has; None where it has none."""
        return {None: None, "KV heads": self.kv, "query heads": self.query}[heads_of(site)]
