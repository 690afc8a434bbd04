"""The reference work: what every speed in docs/performance.md is measured on.

A random Mistral-shaped model (8 layers, width 256, 8 heads, 2 KV heads, MLP 512, vocabulary 1000,
float32); 32 pairs of prompts of equal length; 8 arms, each the last 16 cached positions of one
layer's keys and values; 50 greedy tokens: 256 trials. The same work in other ways stands beside the
engine, so that they can be timed in turn in one process.

On a model of somebody's own the prompts are made of its task's, and the arms are the seed's eight
cells (`seed_arms`): where a patch stands decides how much rows of a base share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from transformers import DynamicCache, MistralForCausalLM

from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.positions import Window
from kv_claims.claims.sites import Site
from kv_claims.errors import UsageError
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.planted.made import plain_mistral, word_tokenizer
from kv_claims.run.decode import decode
from kv_claims.run.routes import Kind, Route, route_of
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task

LAYERS, ARMS, WIDTH = 8, 8, 16
SEED_LAYERS = ("18/32", "25/32", "27/32", "25/32+27/32")
Tokens = list[list[int]]


class PatchedAt(NamedTuple):
    """An arm: keys and values of some layers, at the last so many cached positions."""

    layers: tuple[int, ...]
    width: int = WIDTH


def seed_arms(n_layers: int) -> list[PatchedAt]:
    """The eight cells of the seed's table on a model of so many layers.

    Raises UsageError where it has so few that two of them are one layer.
    """
    places = [resolve_layers(layers, n_layers) for layers in SEED_LAYERS]
    return [PatchedAt(layers, width) for layers in places for width in (16, 32)]


class Reference:
    """The work, and ways to do it. Each returns the tokens of its trials, a base's arms in turn.

    tokens: of a prompt. new_tokens: that are generated. pairs: 32 in the reference.
    device: where the model lies; its weights are the same on any.
    model, texts: another model, and the texts that its prompts are cut from, one behind another.
    Raises UsageError where the texts are too short for so many.
    """

    def __init__(
        self,
        tokens: int = 64,
        *,
        pairs: int = 32,
        new_tokens: int = 50,
        device: torch.device | None = None,
        model: LoadedModel | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        self.model = model or _random_model(device or torch.device("cpu"))
        self.device = self.model.device
        if model is None:
            generator = torch.Generator().manual_seed(1)
            prompts = torch.randint(1000, (2 * pairs, tokens), generator=generator).tolist()
            self.arms = [PatchedAt((layer,)) for layer in range(LAYERS)]
        else:
            prompts = _cut(model, texts, 2 * pairs, tokens)
            self.arms = seed_arms(model.n_layers)
        self.bases, self.sources = prompts[:pairs], prompts[pairs:]
        self.tokens, self.new_tokens = tokens, new_tokens
        self._memory = Memory()

    def window(self, width: int = WIDTH) -> Window:
        """The last so many cached positions of a prompt."""
        return Window(*2 * [range(self.tokens - 1 - width, self.tokens - 1)])

    def ids(self, prompts: Tokens) -> torch.Tensor:
        """Prompts of equal length, `prompt token`, where the model lies."""
        return torch.tensor(prompts, dtype=torch.long, device=self.device)

    def task(self) -> Task:
        """The same prompts as a task of the harness; nothing is scored on it."""

        def named(side: str, prompts: Tokens) -> tuple[Prompt, ...]:
            names = [f"{side}{number}" for number in range(len(prompts))]
            texts = [" ".join(f"w{token}" for token in prompt) for prompt in prompts]
            return tuple(map(Prompt, names, names, texts))

        return Task(
            name="reference",
            about="random words",
            sources=named("source", self.sources),
            bases=named("base", self.bases),
            pairing="one-to-one",
            scorer=Lexicon(frozenset()),
            lexicon=frozenset(),
        )

    @property
    def trials(self) -> int:
        return len(self.arms) * len(self.bases)

    @cached_property
    def route(self) -> Route:
        return route_of(self.model)

    def planned(self, site: Site = "kv") -> tuple[PromptStore, list[RowPlan]]:
        """Its prompts, prefilled, and its trials as the engine's rows.

        site: "kv", a splice; others patch the same positions in the prompt pass.
        """
        store = PromptStore(self.model)
        store.add([*self.bases, *self.sources])
        plans = [
            RowPlan(
                store.index(base),
                self.tokens,
                (Write(store.index(source), site, arm.layers, self.window(arm.width)),),
            )
            for base, source in zip(self.bases, self.sources, strict=True)
            for arm in self.arms
        ]
        return store, plans

    def engine(
        self, kind: Kind | None = None, *, rows: int | None = None, site: Site = "kv"
    ) -> Tokens:
        """Patched, by this project's engine.

        kind: the route; None takes the model's. rows: of a batch; None for all at once.
        """
        kind = kind or self.route.kind
        store, plans = self.planned(site)
        found: Tokens = []
        for start in range(0, len(plans), rows or len(plans)):
            some = plans[start : start + (rows or len(plans))]
            built = build(
                store,
                some,
                None,
                headroom=self.new_tokens,
                shared=kind == "shared",
                memory=self._memory if kind == "static" else None,
            )
            uniform = torch.zeros(len(some), self.new_tokens, dtype=torch.float64)
            first = [store.tokens[plan.prompt][-1] for plan in some]
            decoded = decode(
                self.model,
                built.slab,
                first,
                uniform,
                Sampling(self.new_tokens, 0.0),
                live=built.live or None,
            )
            found += decoded.tokens
        return found

    @torch.no_grad()
    def bare_loop(self) -> Tokens:
        """Unpatched: prefill every row, then one token a row and step, on a DynamicCache."""
        ids = self.ids([base for base in self.bases for _ in self.arms])
        cache, steps = DynamicCache(), []
        for _ in range(self.new_tokens):
            logits = self._forward(ids, cache)
            ids = logits.argmax(-1)[:, None]
            steps.append(ids)
        tokens: Tokens = torch.cat(steps, 1).tolist()
        return tokens

    @torch.no_grad()
    def one_at_a_time(self, trials: int = 4) -> Tokens:
        """Patched as the seed's script did: a prefill of source and base a trial, batch 1, the last
        prompt token fed twice. The first trials only.
        """
        found: Tokens = []
        for trial in range(trials):
            pair, number = divmod(trial, len(self.arms))
            arm = self.arms[number]
            donor, cache = DynamicCache(), DynamicCache()
            self._forward(self.ids([self.sources[pair]]), donor)
            ids = self.ids([self.bases[pair]])
            self._forward(ids, cache)
            for name in ("keys", "values"):
                for layer in arm.layers:
                    there, here = (getattr(of.layers[layer], name) for of in (donor, cache))
                    here[:, :, -arm.width :] = there[:, :, -arm.width :]
            ids, tokens = ids[:, -1:], []
            for _ in range(self.new_tokens):
                ids = self._forward(ids, cache).argmax(-1)[:, None]
                tokens.append(int(ids))
            found.append(tokens)
        return found

    def _forward(self, ids: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        network = self.model.network
        logits: torch.Tensor = network(
            input_ids=ids, **with_cache(network, cache), use_cache=True, logits_to_keep=1
        ).logits[:, -1]
        return logits


def _random_model(device: torch.device) -> LoadedModel:
    """The model of the reference: its weights are the same on any device."""
    torch.manual_seed(0)
    config = plain_mistral(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        max_position_embeddings=4096,
    )
    return LoadedModel(
        name="reference",
        network=MistralForCausalLM(config).eval().to(device),
        tokenizer=word_tokenizer([f"w{n}" for n in range(config.vocab_size)], unknown="w0"),
        device=device,
        dtype=torch.float32,
        revision=None,
    )


def _cut(model: LoadedModel, texts: Sequence[str], prompts: int, tokens: int) -> Tokens:
    """Prompts of equal length, each a text and what follows it, with what the model puts before."""
    start = list(model.tokenization.around.before)
    said = [model.encode(text)[len(start) :] for text in texts]
    found: Tokens = []
    rest: list[int] = []
    for one in said:
        rest += one
        if len(start) + len(rest) >= tokens and len(found) < prompts:
            found.append([*start, *rest[: tokens - len(start)]])
            rest = []
    if len(found) < prompts:
        raise UsageError(
            f"{len(texts)} texts make {len(found)} prompts of {tokens} tokens on {model.name}; "
            f"expected {prompts}: shorter prompts, or a task of more"
        )
    return found
