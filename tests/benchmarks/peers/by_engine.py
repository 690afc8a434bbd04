"""By this project: the engine on both routes and in both meanings, and the unpatched bare loop."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from kv_claims.benching.reference import Reference
from kv_claims.patch.build import build
from kv_claims.run.slab_cache import as_cache
from tests.benchmarks.peers.ways import Way, in_order

BARE, ENGINE, IN_PROMPT = (
    "bare decode loop",
    "engine, its best route",
    "engine, in the prompt pass",
)


def ways(work: Reference, _few: int) -> list[Way]:
    """The engine's ways do all rows at once."""
    return [
        Way(BARE, "transformers", "unpatched", lambda: in_order(work.bare_loop())),
        Way(ENGINE, "kv-claims", "splice", lambda: in_order(work.engine())),
        Way("engine, plain route", "kv-claims", "splice", lambda: in_order(work.engine("plain"))),
        Way(IN_PROMPT, "kv-claims", "in-prefill", lambda: in_order(work.engine(site="kv_proj"))),
    ]


def spliced(work: Reference) -> tuple[torch.Tensor, DynamicCache]:
    """A neighbour's start: the last prompt token of every row, and our caches, spliced already."""
    store, plans = work.planned()
    slab = build(store, plans, None, headroom=work.new_tokens).slab
    ids = work.ids([[store.tokens[plan.prompt][-1]] for plan in plans])
    return ids, as_cache(slab)
