"""By nnsight: `generate` with the patch in its prompt pass, or a trace a step on our caches."""

from __future__ import annotations

import copy
from typing import Any

import torch
from nnsight import TransformersModel, save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from kv_claims.benching.reference import ARMS, Reference
from kv_claims.models.forward import with_cache
from tests.benchmarks.peers.by_engine import spliced
from tests.benchmarks.peers.ways import (
    Cut,
    Found,
    Rows,
    Way,
    a_few,
    arm_by_arm,
    at_once,
    greedy,
    in_batches,
    in_order,
)

PARTS = ("k_proj", "v_proj")


class Nnsight:
    def __init__(self, work: Reference) -> None:
        self._work = work
        vocabulary = work.model.config.vocab_size
        words = {str(i): i for i in range(vocabulary)} | {"<pad>": vocabulary}
        # It asks for a tokenizer; prompts are given as tokens, and as long as each other.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")), pad_token="<pad>"
        )
        self._traced = TransformersModel(copy.deepcopy(work.model.network), tokenizer=tokenizer)
        self._settings = {"max_new_tokens": work.new_tokens, "do_sample": False}

    def generate(self, rows: Rows) -> torch.Tensor:
        """The sources' projections, then one `generate`, each layer's rows written in place."""
        donors = self._donors(rows)
        with self._traced.generate(rows.bases, **self._settings) as tracer:
            for layer, places, donor in rows.by_layer():
                attention = self._traced.model.layers[layer].self_attn
                for part in PARTS:
                    output = getattr(attention, part).output
                    output[places, rows.slots] = donors[layer, part][donor]
            found = save(tracer.result)
        tokens: torch.Tensor = found[:, rows.bases.shape[1] :]
        return tokens

    def invokes(self, rows: Rows) -> torch.Tensor:
        """The same with an invoke for each layer, batched by nnsight."""
        donors = self._donors(rows)
        groups = list(rows.by_layer())
        with self._traced.generate(**self._settings) as tracer:
            for layer, places, donor in groups:
                with tracer.invoke(rows.bases[places]):
                    attention = self._traced.model.layers[layer].self_attn
                    for part in PARTS:
                        output = getattr(attention, part).output
                        output[:, rows.slots] = donors[layer, part][donor]
            with tracer.invoke():
                found = save(tracer.result)
        tokens: torch.Tensor = found[:, rows.bases.shape[1] :]
        return tokens[torch.cat([places for _, places, _ in groups]).argsort()]

    def given_our_caches(self) -> Found:
        """A trace a step."""
        ids, cache = spliced(self._work)

        def step(ids: torch.Tensor) -> torch.Tensor:
            given: dict[str, Any] = with_cache(self._work.model.network, cache)
            with self._traced.trace(input_ids=ids, **given, use_cache=True, logits_to_keep=1):
                logits = save(self._traced.output.logits)
            last: torch.Tensor = logits[:, -1:]
            return last

        return in_order(greedy(step, ids, self._work.new_tokens).tolist())

    def _donors(self, rows: Rows) -> dict[tuple[int, str], torch.Tensor]:
        layers = [layer for layer, _, _ in rows.by_layer()]
        with self._traced.trace(rows.sources, use_cache=False, logits_to_keep=1):
            kept: dict[tuple[int, str], torch.Tensor] = save({})
            for layer in layers:
                attention = self._traced.model.layers[layer].self_attn
                for part in PARTS:
                    kept[layer, part] = getattr(attention, part).output[:, rows.slots]
        return kept


def ways(work: Reference, few: int) -> list[Way]:
    by, every = Nnsight(work), at_once(work)
    invokes = Cut(f"{ARMS} invokes of {len(work.bases)} rows", every.batches)
    return [
        Way("nnsight, our spliced caches", "nnsight", "splice", by.given_our_caches),
        *(
            in_batches("nnsight", "nnsight", "in-prefill", cut, generate)
            for cut, generate in (
                (invokes, by.invokes),
                (every, by.generate),
                (arm_by_arm(work), by.generate),
                (a_few(work, few), by.generate),
            )
        ),
    ]
