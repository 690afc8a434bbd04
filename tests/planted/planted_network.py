"""A planted network run one row at a time, with plain module hooks: what its truth is held against.

Shares no code with the engine (`kv_claims.patch`, `kv_claims.run`) nor with the truth. Slow and
simple: batch 1, float64, generated tokens given, so that probabilities can be compared step by
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

from kv_claims.claims.donors import vector_of
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import Patch
from kv_claims.claims.positions import resolve_window
from kv_claims.models.forward import with_cache
from kv_claims.planted.build import build_planted
from kv_claims.planted.catalog import Planted
from kv_claims.planted.prompts import planted_task
from kv_claims.tasks.task import Pair, Prompt, Task

Key = tuple[int, str]
"""A layer and one of its tensors, by the names of `kv_claims.claims.sites`."""


@dataclass
class Seen:
    """What one forward pass computed: logits `pos vocab`, activations `pos width` by layer."""

    logits: torch.Tensor
    acts: dict[Key, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Donor:
    """A prompt's unpatched run: its prompt length, and activations of prompt and generation."""

    tokens: int
    acts: dict[Key, torch.Tensor]


Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Edits = dict[Key, dict[int, tuple[torch.Tensor, slice, Change]]]
"""For a layer and tensor: what is written at a position (counted through prompt and generation), in
which columns, and how it is put together with what stands there."""


def change_of(patch: Patch) -> Change:
    """What becomes of a vector by a patch."""
    alpha = patch.alpha
    if patch.mode.startswith("add"):
        return lambda own, new: own + alpha * new
    if patch.mode == "project_out":
        return lambda own, new: own - (own * new).sum(-1, True) / (new * new).sum(-1, True) * new
    return lambda own, new: (1 - alpha) * own + alpha * new


@contextmanager
def _hooks(network: Any, first: int, edits: Edits, acts: dict[Key, torch.Tensor]) -> Iterator[None]:
    def hook(key: Key) -> Callable[..., Any]:
        def edit(_module: Any, _inputs: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            states = states.clone()
            for position, (vector, columns, change) in edits.get(key, {}).items():
                if 0 <= position - first < states.shape[1]:
                    own = states[0, position - first, columns]
                    own[:] = change(own.clone(), vector[columns])
            acts[key] = states[0].clone()
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return edit

    def before(key: Key) -> Callable[..., Any]:
        edit = hook(key)

        def write(module: Any, args: Any, kwargs: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            given.copy_(edit(module, None, given))  # in place: the block goes on with it

        return write

    handles = [network.model.embed_tokens.register_forward_hook(hook((0, "embed")))]
    for index, layer in enumerate(network.model.layers):
        attention = layer.self_attn
        for name, module in (
            ("q", attention.q_proj),
            ("k", attention.k_proj),
            ("v", attention.v_proj),
            ("attn_out", attention.o_proj),
            ("mlp_out", layer.mlp),
            ("residual", layer),
        ):
            handles.append(module.register_forward_hook(hook((index, name))))
        for name, module in (
            ("resid_pre", layer),
            ("z", attention.o_proj),
            ("resid_mid", layer.post_attention_layernorm),
        ):
            write = before((index, name))
            handles.append(module.register_forward_pre_hook(write, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def forward(
    network: Any, ids: Sequence[int], edits: Edits | None = None, cache: DynamicCache | None = None
) -> Seen:
    """One forward pass over tokens, behind what the cache holds."""
    first = cache.get_seq_length() if cache is not None else 0
    seen = Seen(torch.empty(0))
    with _hooks(network, first, edits or {}, seen.acts):
        found = network(
            torch.tensor([list(ids)]), **with_cache(network, cache), use_cache=cache is not None
        )
    seen.logits = found.logits[0]
    return seen


def donor_run(network: Any, prompt: Sequence[int], generated: Sequence[int]) -> Donor:
    """An unpatched run whose generation is given."""
    return Donor(len(prompt), forward(network, [*prompt, *generated]).acts)


def patched_run(
    network: Any,
    base: Sequence[int],
    generated: Sequence[int],
    patches: Sequence[Patch],
    donor: Donor,
    source_tokens: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits at each step of a patched row, `step vocab`, and V of its prompt by layer.

    source_tokens: prompt length of the pair's source, which decides the windows.
    """
    n_layers, n_base = len(network.model.layers), len(base)
    edits: Edits = {}
    splices: list[tuple[Patch, int, list[int], list[int]]] = []
    appended = 0
    for patch in patches:
        if patch.mode == "append":
            taken = resolve_window(patch.positions, source_tokens, source_tokens).source_slots
            slots = range(n_base - 1, n_base - 1 + len(taken))
            appended = len(taken)
        else:
            window = resolve_window(patch.positions, source_tokens, n_base, span=patch.span)
            taken, slots = window.source_slots, window.base_slots
        if donor.tokens != source_tokens or not patch.positions.startswith("first"):
            end = donor.tokens - (1 if patch.is_splice else 0)
            start = 0 if patch.positions.startswith("first") else end - len(slots)
            if patch.positions.startswith("at("):
                first_of = int(patch.positions[3:-1].split(":")[0])
                start = first_of if first_of >= 0 else donor.tokens + first_of
            taken = range(start, start + len(slots))
        if patch.is_splice:
            splices.append((patch, n_layers, list(taken), list(slots)))
        else:
            _edit(edits, patch, n_layers, donor, taken, slots)
        first = n_base + appended
        steps = range(first, first + len(generated))
        if patch.active == "every_step":
            own = range(donor.tokens, donor.tokens + len(generated))
            _edit(edits, patch, n_layers, donor, own, steps)
        elif patch.active != "prompt":
            _edit(edits, patch, n_layers, donor, [donor.tokens - 1] * len(generated), steps)
    cache = DynamicCache()
    forward(network, base[:-1], edits, cache)
    for splice in splices:
        _splice(network, cache, donor, *splice)
    after = forward(network, [base[-1], *generated], edits, cache)
    values = [layer.values[0, 0, : n_base + appended] for layer in cache.layers]
    return after.logits, values


def _edit(
    edits: Edits,
    patch: Patch,
    n_layers: int,
    donor: Donor,
    taken: Sequence[int],
    places: Sequence[int],
) -> None:
    heads = patch.heads if patch.site in ("z", "q_proj") else "all"
    columns = slice(None) if heads == "all" else slice(8 * int(heads), 8 * int(heads) + 8)
    for layer in resolve_layers(patch.layers, n_layers):
        for tensor in patch.tensors:
            at = edits.setdefault((layer, tensor), {})
            for position, place in zip(taken, places, strict=True):
                at[place] = donor.acts[layer, tensor][position], columns, change_of(patch)


def _splice(
    network: Any,
    cache: DynamicCache,
    donor: Donor,
    patch: Patch,
    n_layers: int,
    taken: list[int],
    slots: list[int],
) -> None:
    """Write over the cache, or behind it; keys are turned to their new positions."""
    cos, sin = network.model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.tensor([slots]))
    for index in resolve_layers(patch.layers, n_layers):
        layer = cache.layers[index]
        keys = donor.acts[index, "k"][taken][None, None]
        _, keys = apply_rotary_pos_emb(keys, keys, cos, sin)
        new = {"k": keys, "v": donor.acts[index, "v"][taken][None, None]}
        for tensor in patch.tensors:
            name = {"k": "keys", "v": "values"}[tensor]
            old = getattr(layer, name)
            if patch.mode == "append":
                setattr(layer, name, torch.cat([old, new[tensor]], dim=2))
            else:
                old[:, :, slots] = change_of(patch)(old[:, :, slots], new[tensor])


def noisy(donor: Donor, seed: int) -> Donor:
    """The same run with every vector of K and V replaced by one of its length in any direction."""
    draw = torch.Generator().manual_seed(seed)
    acts = {}
    for (layer, tensor), vectors in donor.acts.items():
        noise = torch.randn(vectors.shape, generator=draw, dtype=vectors.dtype)
        noise *= vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        acts[layer, tensor] = noise
    return Donor(donor.tokens, acts)


def everywhere(vectors: dict[Key, torch.Tensor], positions: int) -> Donor:
    """A donor that has the same vector of a layer and tensor at so many positions."""
    return Donor(positions, {key: one.expand(positions, -1) for key, one in vectors.items()})


@dataclass
class Bench:
    """A planted network with its task, and donors' runs that are already done."""

    planted: Planted
    network: Any
    tokenizer: Any
    task: Task
    runs: dict[tuple[int, ...], Donor] = field(default_factory=dict)

    def ids(self, prompt: Prompt) -> list[int]:
        return list(self.tokenizer(prompt.text)["input_ids"])

    def donor(
        self, pair: Pair, donor: str, patches: Sequence[Patch], generated: list[int]
    ) -> Donor:
        """The run of the prompt that is pasted from; the rules of `unrelated` written out again."""
        if donor != "unrelated-base":
            prompt = pair.source if donor == "source" else pair.base
            return self.run(self.ids(prompt), generated)
        n_source, n_base = len(self.ids(pair.source)), len(self.ids(pair.base))
        needed = 0
        for patch in patches:
            longest = n_source if patch.mode == "append" else n_base
            window = resolve_window(patch.positions, n_source, longest, span=patch.span)
            needed = max(needed, len(window.base_slots) + patch.is_splice)
        ids = next(i for i in map(self.ids, self.task.unrelated(pair)) if len(i) >= needed)
        return self.run(ids, generated)

    def instead(self, pair: Pair, patch: Patch, generated: list[int]) -> Donor:
        """The donor that a patch names, where that is not the source."""
        base = self.ids(pair.base)
        own = self.run(base, generated)
        name = vector_of(patch.donor)
        if patch.donor == "resample":
            window = resolve_window(patch.positions, len(base), len(base), span=patch.span)
            needed = len(window.base_slots) + patch.is_splice
            found = (i for i in map(self.ids, self.task.unrelated(pair)) if len(i) >= needed)
            return self.run(next(found), generated)
        if patch.donor == "mean":
            runs = [self.run(self.ids(other), []) for other in self.task.bases]
            tensors = [(layer, t) for layer, t in own.acts if t in {*patch.tensors, "k", "v"}]
            means = {key: torch.cat([run.acts[key] for run in runs]).mean(0) for key in tensors}
        elif name is None:
            means = {key: torch.zeros_like(one[0]) for key, one in own.acts.items()}
        else:
            (direction,) = (one for one in self.task.directions if one.name == name)
            array = torch.tensor(direction.parts[""])
            # As wide as one head: both get the same.
            times = {key: one.shape[1] // array.shape[2] for key, one in own.acts.items()}
            means = {
                key: array[key[0] % len(array)].flatten().repeat(times[key]) for key in own.acts
            }
        return Donor(len(base), everywhere(means, len(base) + len(generated)).acts)

    def run(self, ids: list[int], generated: list[int]) -> Donor:
        """A donor's run, done once."""
        key = (len(ids), *ids, *generated)
        if key not in self.runs:
            self.runs[key] = donor_run(self.network, ids, generated)
        return self.runs[key]


def bench(planted: Planted, n_pairs: int = 40) -> Bench:
    network, tokenizer = build_planted(planted)
    return Bench(planted, network, tokenizer, planted_task(planted, n_pairs))
