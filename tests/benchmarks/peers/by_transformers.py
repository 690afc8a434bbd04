"""By transformers alone, unpatched: `generate`, and `generate_batch` (continuous batching)."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from kv_claims.benching.reference import ARMS, Reference
from tests.benchmarks.peers.ways import Found, Way, in_order


def ways(work: Reference, _few: int) -> list[Way]:
    """`generate_batch` on a GPU alone: what it gains are CUDA graphs and paged kernels."""
    by = "transformers"
    found = [Way("generate", by, "unpatched", lambda: generate(work))]
    if work.device.type == "cuda":
        found.append(Way("generate_batch", by, "unpatched", lambda: generate_batch(work)))
    return found


def _settings(work: Reference) -> dict[str, Any]:
    return {"max_new_tokens": work.new_tokens, "do_sample": False}


def generate(work: Reference) -> Found:
    """All rows in one batch."""
    ids = work.ids(_rows(work))
    found = work.model.network.generate(ids, **_settings(work), pad_token_id=0)
    return in_order(found[:, ids.shape[1] :].tolist())


def generate_batch(work: Reference) -> Found:
    """All rows as requests of their own. Raises RuntimeError where some did not come back."""
    config = GenerationConfig(**_settings(work), eos_token_id=-1, pad_token_id=0)
    found = work.model.network.generate_batch(inputs=_rows(work), generation_config=config)
    tokens = [list(one.generated_tokens) for one in found.values()]
    if len(tokens) != work.trials:
        raise RuntimeError(f"{len(tokens)} of {work.trials} requests came back")
    return in_order(tokens)


def _rows(work: Reference) -> list[list[int]]:
    return [base for base in work.bases for _ in range(ARMS)]
