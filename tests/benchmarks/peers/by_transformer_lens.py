"""By TransformerLens: its own model (HookedTransformer) and its wrapper (TransformerBridge)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.pretrained.weight_conversions import convert_mistral_weights
from transformers import DynamicCache

from kv_claims.benching.reference import ARMS, LAYERS, Reference
from tests.benchmarks.peers.by_engine import spliced
from tests.benchmarks.peers.ways import (
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

SAME = 1e-4
"""Largest difference of unpatched logits from those of transformers, before anything is timed."""
PARTS = ("k", "v")
Step = Callable[[torch.Tensor], torch.Tensor]


class Lens:
    """A model of TransformerLens, patched by hooks on `hook_k` and `hook_v` in its prompt pass.

    step: how tokens are fed to a cache of so many rows that the step keeps.
    Raises ValueError where its unpatched logits are not those of transformers.
    """

    def __init__(self, work: Reference, model: Any, step: Callable[[Any, int], Step]) -> None:
        self.work, self.model, self._step = work, model, step
        ids = work.ids(work.bases[:2])
        wanted = work.model.network(input_ids=ids, use_cache=False).logits
        fed = self.step(len(ids))
        # The prompt but for its last token, and that on the cache.
        found = [fed(ids[:, :-1])[:, -1], fed(ids[:, -1:])[:, -1]]
        apart = float((torch.stack(found, 1) - wanted[:, -2:]).abs().max())
        if not apart <= SAME:
            raise ValueError(
                f"{type(model).__name__}: unpatched logits are {apart:.1e} from those of "
                f"transformers; expected {SAME:.0e} at most"
            )

    def step(self, rows: int) -> Step:
        return self._step(self.model, rows)

    def patched(self, rows: Rows) -> torch.Tensor:
        """In its prompt pass, with the sources' keys and values of a pass of their own."""
        named = {
            f"blocks.{layer}.attn.hook_{part}": (places, donor)
            for layer, places, donor in rows.by_layer()
            for part in PARTS
        }
        _, donors = self.model.run_with_cache(rows.sources, names_filter=list(named))

        def hook_of(name: str) -> Callable[..., torch.Tensor]:
            places, donor = named[name]

            def hook(states: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
                states[places, rows.slots] = donors[name][donor, rows.slots]
                return states

            return hook

        step = self.step(len(rows.bases))

        def prompt(ids: torch.Tensor) -> torch.Tensor:
            with self.model.hooks(fwd_hooks=[(name, hook_of(name)) for name in named]):
                return step(ids)

        return greedy(step, rows.bases, self.work.new_tokens, prompt=prompt)


def hooked(work: Reference) -> Lens:
    """HookedTransformer: weights by TransformerLens' own conversion, and its own cache."""
    network, given = work.model.network, work.model.config
    config = HookedTransformerConfig(
        d_model=given.hidden_size,
        d_head=given.head_dim,
        n_heads=given.num_attention_heads,
        n_key_value_heads=given.num_key_value_heads,
        d_mlp=given.intermediate_size,
        n_layers=given.num_hidden_layers,
        n_ctx=work.tokens + work.new_tokens,
        d_vocab=given.vocab_size,
        act_fn=given.hidden_act,
        gated_mlp=True,
        normalization_type="RMS",
        eps=given.rms_norm_eps,
        positional_embedding_type="rotary",
        rotary_base=given.rope_parameters["rope_theta"],
        rotary_dim=given.head_dim,
        final_rms=True,
        default_prepend_bos=False,
        dtype=torch.float32,
        device=str(work.device),
    )
    model = HookedTransformer(config)
    model.load_and_process_state_dict(
        convert_mistral_weights(network, config),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return Lens(work, model.eval(), _hooked_step)


def _hooked_step(model: Any, rows: int) -> Step:
    return _step_on(
        model, TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, rows)
    )


def _step_on(model: Any, cache: TransformerLensKeyValueCache) -> Step:
    """The mask is given, as there is no tokenizer that it could be derived with."""
    return lambda ids: model(ids, past_kv_cache=cache, attention_mask=torch.ones_like(ids))


def spliced_by_hand(lens: Lens) -> Found:
    """All rows at once, spliced in HookedTransformer's own cache.

    Ours cannot be given to it: it keeps keys as they are before rotation.
    """
    work, model = lens.work, lens.model
    ids = {"base": work.ids(work.bases), "source": work.ids(work.sources)}
    caches = {}
    for name, prompts in ids.items():
        caches[name] = TransformerLensKeyValueCache.init_cache(
            model.cfg, model.cfg.device, len(prompts)
        )
        _step_on(model, caches[name])(prompts[:, :-1])
    window = slice(work.window().base_slots.start, work.window().base_slots.stop)
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, model.cfg.device, work.trials)
    for layer, entry in enumerate(cache.entries):
        for part in ("past_keys", "past_values"):
            base, source = (getattr(caches[name][layer], part) for name in ("base", "source"))
            states = base.repeat_interleave(ARMS, 0)
            for arm in range(layer, ARMS, LAYERS):
                states[arm::ARMS, window] = source[:, window]
            setattr(entry, part, states)
    cache.previous_attention_mask = torch.ones(
        work.trials, work.tokens - 1, dtype=torch.int, device=work.device
    )
    last = ids["base"][:, -1:].repeat_interleave(ARMS, 0)
    tokens = greedy(_step_on(model, cache), last, work.new_tokens)
    return in_order(tokens.tolist())


def bridged(work: Reference) -> Lens:
    """TransformerBridge, around a copy of the model of transformers, on a cache of transformers."""
    network = copy.deepcopy(work.model.network)
    model = build_bridge_from_module(network, "MistralForCausalLM", hf_config=network.config)
    return Lens(work, model, lambda model, _rows: _bridge_step(model, DynamicCache()))


def _bridge_step(model: Any, cache: DynamicCache) -> Step:
    return lambda ids: model(ids, use_cache=True, past_key_values=cache, logits_to_keep=1)


def given_our_caches(lens: Lens) -> Found:
    """TransformerBridge on the caches that our engine spliced."""
    ids, cache = spliced(lens.work)
    return in_order(greedy(_bridge_step(lens.model, cache), ids, lens.work.new_tokens).tolist())


def ways(work: Reference, few: int) -> list[Way]:
    own, bridge, by = hooked(work), bridged(work), "transformer-lens"
    splices = (
        ("HookedTransformer, its own cache spliced", lambda: spliced_by_hand(own)),
        ("TransformerBridge, our spliced caches", lambda: given_our_caches(bridge)),
    )
    return [
        *(Way(name, by, "splice", run) for name, run in splices),
        *(
            in_batches(type(lens.model).__name__, by, "in-prefill", cut, lens.patched)
            for lens in (own, bridge)
            for cut in (at_once(work), arm_by_arm(work), a_few(work, few))
        ),
    ]
