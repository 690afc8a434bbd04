"""What a patch can reach, found by experiment on random models and held against `classify`.

The reference patches by hand (hooks on plain modules, edits of a plain cache; float64, one row at
a time) and shares nothing with the engine. Tokens are drawn from the logits by a rule in which
every digit counts, so that a change of the logits shows in the text.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from kv_claims.claims.layers import resolve_heads, resolve_layers
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, window_of
from kv_claims.claims.reach import (
    READ_TOKENS,
    SEED_METHODS,
    Flow,
    classify,
    is_donor,
    seed_methods,
    seed_table,
    trace,
)
from kv_claims.claims.sites import CACHE_SITES, SITES, heads_of
from kv_claims.errors import UsageError
from kv_claims.models.forward import with_cache
from tests.models.architectures import VOCAB, prompt, sites_of, tiny

N_LAYERS = 4
N_GENERATED = READ_TOKENS + 1
OUTCOMES = [
    Outcome.parse(text)
    for text in (
        *(f"pr@{layer}{where}" for layer in range(N_LAYERS) for where in ("", "/generated")),
        *("rv", "rv/generated", "behavior", "loglik", "kl"),
    )
]


class Run(NamedTuple):
    """One run by hand.

    computed: outputs of k_proj (before RoPE), v_proj and the layer, `[pos, width]` by (layer,
    tensor). keys, values: the cache afterwards, `[head, pos, d_head]` by layer. logits: from the
    last prompt token on. tokens: what was fed behind the prompt, or sampled.
    """

    length: int
    computed: dict[tuple[int, str], torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    logits: torch.Tensor
    tokens: tuple[int, ...]

    def rows(self, layer: int) -> torch.Tensor:
        """v_proj outputs as they stand in the cache, `[pos, width]`."""
        return self.values[layer].transpose(0, 1).flatten(1)


class Lab:
    """A random model whose activations are overwritten by hooks while it runs."""

    def __init__(self, name: str) -> None:
        self.network = tiny(name).network
        self.patches: tuple[Patch, ...] = ()
        self.donor: Run | None = None
        self.start = self.length = 0
        self.computed: dict[tuple[int, str], list[torch.Tensor]] = {}
        fused = name == "gpt_neox"
        layers = self.network.gpt_neox.layers if fused else self.network.model.layers
        self.n_heads = 4 if fused else 2
        embedding = self.network.get_input_embeddings()
        embedding.register_forward_hook(self._hook(0, "embed"))
        for i, layer in enumerate(layers):
            out = layer.attention.dense if fused else layer.self_attn.o_proj
            layer.register_forward_hook(self._hook(i, "residual"))
            layer.mlp.register_forward_hook(self._hook(i, "mlp_out"))
            out.register_forward_hook(self._hook(i, "attn_out"))
            out.register_forward_pre_hook(self._before(i, "z"), with_kwargs=True)
            layer.register_forward_pre_hook(self._before(i, "resid_pre"), with_kwargs=True)
            if fused:
                layer.attention.query_key_value.register_forward_hook(self._fused_hook(i))
            else:
                for tensor in ("q", "k", "v"):
                    module = layer.self_attn.get_submodule(f"{tensor}_proj")
                    module.register_forward_hook(self._hook(i, tensor))
                norm = layer.post_attention_layernorm
                norm.register_forward_pre_hook(self._before(i, "resid_mid"), with_kwargs=True)

    def _hook(self, layer: int, tensor: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return self._write(layer, tensor, output[0].clone())[None]

        return hook

    def _before(self, layer: int, tensor: str) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            # In place: the block adds this very tensor to what comes next.
            given[0] = self._write(layer, tensor, given[0].clone())

        return hook

    def _fused_hook(self, layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            parts = output[0].unflatten(-1, (self.n_heads, 3, -1)).clone()
            for place, tensor in enumerate(("q", "k", "v")):
                width = parts.shape[-1]
                new = self._write(layer, tensor, parts[:, :, place].flatten(1).clone())
                parts[:, :, place] = new.unflatten(-1, (self.n_heads, width))
            return parts.flatten(1)[None]

        return hook

    def _write(self, layer: int, tensor: str, states: torch.Tensor) -> torch.Tensor:
        """Overwrite what is computed now, `[pos, width]` from `start` on, and record it."""
        for patch in self.patches:
            if tensor not in patch.tensors or layer not in resolve_layers(patch.layers, N_LAYERS):
                continue
            assert self.donor is not None
            given = self.donor.computed[layer, tensor]
            for row in range(len(states)):
                source = self._source(patch, self.start + row)
                if source is not None:
                    columns = self._columns(patch, states.shape[1])
                    new = given[min(source, len(given) - 1), columns]
                    states[row, columns] = put(patch, states[row, columns].clone(), new)
        self.computed.setdefault((layer, tensor), []).append(states.clone())
        return states

    def _source(self, patch: Patch, position: int) -> int | None:
        """The donor's position that is written while this one is computed."""
        assert self.donor is not None
        if position >= self.length:
            step = position - self.length
            held = {"prompt": None, "every_step(held)": self.donor.length - 1}
            return held.get(patch.active, self.donor.length + step)
        window = window_of(patch, self.donor.length, self.length)
        inside = not patch.is_splice and position in window.base_slots
        return position - window.shift if inside else None

    def _columns(self, patch: Patch, width: int) -> list[int]:
        if heads_of(patch.site) is None:
            return list(range(width))
        n_heads = self.n_heads if heads_of(patch.site) == "KV heads" else 4
        size = width // n_heads
        heads = resolve_heads(patch.heads, n_heads)
        return [head * size + i for head in heads for i in range(size)]

    def _splice(self, patch: Patch, kept: DynamicCache) -> None:
        """Overwrite cached slots. Keys are not turned: that does not change what reaches what."""
        assert self.donor is not None
        window = window_of(patch, self.donor.length, self.length)
        heads = list(resolve_heads(patch.heads, self.n_heads))
        for layer in resolve_layers(patch.layers, N_LAYERS):
            for tensor in patch.tensors:
                donor = (self.donor.keys if tensor == "k" else self.donor.values)[layer]
                name = "keys" if tensor == "k" else "values"
                target = getattr(kept.layers[layer], name).clone()
                slots = slice(window.base_slots.start, window.base_slots.stop)
                new = donor[heads, window.source_slots.start : window.source_slots.stop]
                old = target[0, heads, slots]
                target[0, heads, slots] = put(patch, old, new)
                setattr(kept.layers[layer], name, target)

    @torch.no_grad()
    def run(
        self,
        tokens: tuple[int, ...],
        patches: tuple[Patch, ...] = (),
        donor: Run | None = None,
        forced: tuple[int, ...] | None = None,
    ) -> Run:
        """Prefill T-1 tokens, splice, feed the last one, and go on."""
        self.patches, self.donor = patches, donor
        self.start, self.length, self.computed = 0, len(tokens), {}
        kept = DynamicCache()
        self._feed(tokens[:-1], kept)
        for patch in patches:
            if patch.is_splice:
                self._splice(patch, kept)
        if forced is not None:
            logits = self._feed((tokens[-1], *forced[: N_GENERATED - 1]), kept)
            fed = forced
        else:
            seen, fed, token = [], (), tokens[-1]
            for _ in range(N_GENERATED):
                seen.append(self._feed((token,), kept))
                token = int(float(seen[-1].abs().sum()) * 1e6) % VOCAB
                fed = (*fed, token)
            logits = torch.cat(seen)
        return Run(
            len(tokens),
            {cell: torch.cat(states) for cell, states in self.computed.items()},
            [layer.keys[0] for layer in kept.layers],
            [layer.values[0] for layer in kept.layers],
            logits,
            fed,
        )

    def _feed(self, tokens: tuple[int, ...], kept: DynamicCache) -> torch.Tensor:
        logits = self.network(
            input_ids=torch.tensor([tokens]), **with_cache(self.network, kept), use_cache=True
        ).logits[0]
        self.start += len(tokens)
        return logits


def put(patch: Patch, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """What is to stand where something stands. A direction is 0.1, 0.2 ... whatever the width."""
    if patch.donor == "zero":
        new = torch.zeros_like(old)
    if patch.donor.startswith("vector"):
        new = 0.1 * torch.arange(1.0, 1 + old.shape[-1], dtype=old.dtype).expand_as(old)
    if patch.mode.startswith("add"):
        return old + patch.alpha * new
    return new if patch.alpha == 1 else old + patch.alpha * (new - old)


@cache
def lab(name: str) -> Lab:
    return Lab(name)


SOURCE, BASE, OTHER_BASE = 0, 1, 2
"""Prompts; the other base is as long as the base."""


def words(length: int, which: int) -> tuple[int, ...]:
    """A prompt that has no word in common with the other two: equal cells must mean something."""
    return tuple(3 * (token % 32) + which for token in prompt(length, which))


@cache
def unpatched(name: str, length: int, which: int, forced: tuple[int, ...] | None = None) -> Run:
    return lab(name).run(words(length, which), forced=forced)


class Bench(NamedTuple):
    """An experiment: the base, patched or not, free or along the source's continuation."""

    patches: tuple[Patch, ...]
    flow: Flow
    source: Run
    base: Run
    patched: Run
    other: Run


def experiment(
    name: str, patches: tuple[Patch, ...], source: int, base: int, *, forced: bool
) -> Bench:
    donor = unpatched(name, source, SOURCE)
    along = donor.tokens if forced else None
    patched, other = (
        lab(name).run(words(base, which), patches, donor, along) for which in (BASE, OTHER_BASE)
    )
    flow = trace(patches, n_layers=N_LAYERS, source=source, base=base, forced=forced)
    plain = unpatched(name, base, BASE, along)
    return Bench(patches, flow, donor, plain, patched, other)


def differ(a: torch.Tensor, b: torch.Tensor, relative: float = 0.0) -> np.ndarray:
    """Rows that are not the same."""
    return ((a - b).abs().amax(-1) > relative * b.abs().amax()).numpy()


def check_cells(bench: Bench, *, forced: bool) -> None:
    """Every value and logit, cell by cell.

    A sampled token may by chance be the base's: what must change is asked of forced tokens only.
    """
    flow, first = bench.flow, bench.base.length - 1
    tensors = [
        (
            bench.patched.rows(i),
            bench.base.rows(i),
            bench.other.rows(i),
            [f[i] for f in flow.values],
        )
        for i in range(N_LAYERS)
    ]
    logits = [flags[first:] for flags in flow.logits]
    tensors.append((bench.patched.logits, bench.base.logits, bench.other.logits, logits))
    for patched, base, other, (changed, pasted, alone) in tensors:
        moved = changed & ~pasted & ~alone
        assert not differ(patched, base)[~changed].any(), "a null cell changed"
        assert not differ(patched, other, 1e-12)[changed & alone].any(), "the base is left in it"
        if forced:
            assert differ(patched, base)[moved].all(), "a moved cell did not change"
            assert differ(patched, other)[moved].all(), "a moved cell has nothing of the base"
    for layer in range(N_LAYERS):
        arithmetic, pasted = by_arithmetic(bench, layer)
        assert (pasted == flow.values.pasted[layer]).all()
        assert torch.equal(bench.patched.rows(layer)[pasted], arithmetic[pasted])


def by_arithmetic(bench: Bench, layer: int) -> tuple[torch.Tensor, np.ndarray]:
    """The base's values with the donor's put in, no model run; and which rows were put in.

    Heads that a patch leaves alone may be moved by another patch; they are the run's own.
    """
    rows = bench.base.rows(layer).clone()
    pasted = np.zeros(len(rows), dtype=bool)
    n_heads, length = bench.base.values[layer].shape[0], bench.base.length
    for patch in bench.patches:
        if "v" not in patch.tensors or layer not in resolve_layers(patch.layers, N_LAYERS):
            continue
        window = window_of(patch, bench.source.length, length)
        pairs = list(zip(window.base_slots, window.source_slots, strict=True))
        for step in range(READ_TOKENS if patch.active != "prompt" else 0):
            held = bench.source.length - 1
            going = bench.source.length + step
            pairs.append((length + step, going if patch.active == "every_step" else held))
        heads = list(resolve_heads(patch.heads, n_heads))
        for here, there in pairs:
            old, new = (
                run.rows(layer)[place].unflatten(0, (n_heads, -1))
                for run, place in ((bench.base, here), (bench.source, there))
            )
            row = bench.patched.rows(layer)[here].clone().unflatten(0, (n_heads, -1))
            # Written as one vector of all its heads' numbers.
            chosen = old[heads].flatten(), new[heads].flatten()
            row[heads] = put(patch, *chosen).view_as(old[heads])
            rows[here] = row.flatten()
            pasted[here] = True
    return rows, pasted


def pr(rows: torch.Tensor) -> float:
    s = torch.linalg.svdvals(rows)
    return float((s**2).sum() ** 2 / (s**4).sum())


def measured(run: Run, source: Run, outcome: Outcome) -> Any:
    """The outcome's own number, from its definition."""
    if outcome.is_text:
        return run.tokens
    if outcome.is_likelihood:
        log_p = run.logits.log_softmax(-1)
        if outcome.name == "loglik":
            return float(log_p[range(N_GENERATED), list(source.tokens)].mean())
        log_q = source.logits.log_softmax(-1)
        return -float((log_q.exp() * (log_q - log_p)).sum(-1).mean())
    window = outcome.rows(run.length, N_GENERATED)
    ratios = [pr(run.rows(layer)[list(window)]) for layer in outcome.layers(N_LAYERS)]
    return ratios[-1] / ratios[0] if outcome.name == "rv" else ratios[0]


def check_outcome(bench: Bench, outcome: Outcome) -> str:
    """One outcome of one patch against what happened. Returns its kind."""
    lengths = {"source": bench.source.length, "base": bench.base.length}
    kind, why = classify(bench.patches, outcome, n_layers=N_LAYERS, **lengths)
    before, after = (measured(run, bench.source, outcome) for run in (bench.base, bench.patched))
    if kind == "null":
        assert after == before, why
    elif kind == "informative":
        assert after != before, why
    elif outcome.is_geometry:
        _check_tautology(bench, outcome, before, after, why)
    return kind


def _check_tautology(bench: Bench, outcome: Outcome, before: float, after: float, why: str) -> None:
    """Rows that are fixed are known without the model, and move the number by themselves."""
    window = list(outcome.rows(bench.base.length, N_GENERATED))
    arithmetic = bench.base._replace(
        values=[
            put_in(bench, layer)
            .unflatten(1, (bench.base.values[layer].shape[0], -1))
            .transpose(0, 1)
            for layer in range(N_LAYERS)
        ]
    )
    alone = measured(arithmetic, bench.source, outcome)
    layers = list(outcome.layers(N_LAYERS))
    if not bench.flow.values.moved[np.ix_(layers, window)].any():
        assert after == pytest.approx(alone, rel=1e-11, nan_ok=True), why
    assert alone != pytest.approx(before, rel=1e-9), why


def put_in(bench: Bench, layer: int) -> torch.Tensor:
    """The base's values with every fixed row put in: pasted, or the same for any base."""
    rows, pasted = by_arithmetic(bench, layer)
    follows = bench.flow.values.fixed[layer] & ~pasted
    rows[follows] = bench.other.rows(layer)[follows]
    return rows


def check(name: str, patches: tuple[Patch, ...], source: int, base: int) -> set[str]:
    """Everything about one arm. Returns the kinds that occurred."""
    free = experiment(name, patches, source, base, forced=False)
    forced = experiment(name, patches, source, base, forced=True)
    check_cells(free, forced=False)
    check_cells(forced, forced=True)
    return {check_outcome(forced if o.is_likelihood else free, o) for o in OUTCOMES}


WITHIN_LAYERS = [site for site in SITES if site != "embed"]


@pytest.mark.parametrize("positions", ["last(15)", "last(3)", "first(5)"])
def test_what_is_said_of_the_embedding_is_what_happens(positions: str) -> None:
    check("llama", (Patch("embed", layers="0", positions=positions),), 29, 24)


@pytest.mark.parametrize("site", WITHIN_LAYERS)
@pytest.mark.parametrize("positions", ["last(15)", "last(3)", "first(5)"])
@pytest.mark.parametrize("layers", ["0", "2", "3", "1+3"])
def test_what_is_said_is_what_happens(site: Any, layers: str, positions: str) -> None:
    check("llama", (Patch(site, layers=layers, positions=positions),), 29, 24)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        (name, site)
        for name in ("mistral", "qwen2", "gpt_neox")
        for site in WITHIN_LAYERS
        if site in sites_of(name)
    ],
)
def test_it_holds_for_other_architectures(name: str, site: Any) -> None:
    check(name, (Patch(site, layers="1", positions="last(15)"),), 20, 24)


@pytest.mark.parametrize("active", ["every_step", "every_step(held)"])
@pytest.mark.parametrize("site", WITHIN_LAYERS)
def test_it_holds_for_patches_that_stay_on(site: Any, active: Any) -> None:
    check("llama", (Patch(site, layers="2", positions="last(9)", active=active),), 20, 24)


@pytest.mark.parametrize("active", ["prompt", "every_step"])
@pytest.mark.parametrize("site", WITHIN_LAYERS)
def test_it_holds_for_ablations_and_directions(site: Any, active: Any) -> None:
    """Positions count the base alone, however long the source is."""
    tried = [("replace", "zero", "all")]
    if site not in ("kv", "k", "v"):  # there a vector is as wide as a head, and ours as all heads
        tried += [("replace", "vector(x)", "last(9)")]
        if active == "prompt" or site not in ("kv_proj", "v_proj"):
            # Values that are generated have others to be added to than the base's.
            tried += [("add(-2)", "vector(x)", "last(9)")]
    for mode, donor, positions in tried:
        patch = Patch(site, "2", positions, mode=mode, active=active, donor=donor)
        check("llama", (patch,), 18, 24)


def test_what_is_no_prompts_is_nobodys_run() -> None:
    """Zeros in the whole cache leave nothing of the base, and are not the source's run either."""
    sizes = {"n_layers": 4, "source": 20, "base": 24}
    for donor, runs in (("source", True), ("resample", True), ("zero", False), ("mean", False)):
        patches = (Patch("kv", "all", "all", donor=donor),)
        assert is_donor(patches, **sizes) is runs
        assert trace(patches, **sizes).prompt_tokens == (20 if donor == "source" else 24)


@pytest.mark.parametrize("layers", ["0", "1", "3"])
@pytest.mark.parametrize(("source", "base"), [(24, 24), (29, 24), (20, 24)])
def test_it_holds_where_the_whole_residual_is_pasted(layers: str, source: int, base: int) -> None:
    for active in ("prompt", "every_step"):
        patch = Patch("residual", layers=layers, positions="all", active=active)  # type: ignore[arg-type]
        check("llama", (patch,), source, base)


@st.composite
def arms(draw: st.DrawFn) -> tuple[tuple[Patch, ...], int, int]:
    """One or two patches of different layers, of any site, and the lengths of both prompts."""
    source, base = draw(st.sampled_from([18, 29])), draw(st.sampled_from([16, 24]))
    order = draw(st.permutations(range(N_LAYERS)))
    cut = draw(st.integers(1, 3))
    parts = draw(st.sampled_from([(order[:cut],), (order[:cut], order[cut:])]))
    sites = [draw(st.sampled_from(SITES)) for _ in parts]
    modes = ["replace"]
    if all(site in CACHE_SITES for site in sites):
        modes.append("mix(0.3)")
    found: list[Patch] = []
    for layers, site in zip(parts, sites, strict=True):
        width = draw(st.integers(1, min(source, base) - (site in CACHE_SITES)))
        found.append(
            Patch(
                site,
                layers="0" if site == "embed" else "+".join(map(str, sorted(layers))),
                positions=draw(st.sampled_from([f"last({width})", f"first({width})", "all"])),
                heads=draw(st.sampled_from(["all", "1"])) if heads_of(site) else "all",
                mode=draw(st.sampled_from(modes)),
            )
        )
    if all(patch.mode == "replace" for patch in found):
        active = draw(st.sampled_from(["prompt", "prompt", "every_step"]))
        found = [Patch(**{**vars(patch), "active": active}) for patch in found]
    return tuple(found), source, base


@pytest.mark.slow
@settings(deadline=None, max_examples=80, derandomize=True)
@given(arms())
def test_it_holds_for_any_arm(arm: tuple[tuple[Patch, ...], int, int]) -> None:
    check("llama", *arm)


def kind(patch: Patch, outcome: str, n_layers: int = 32, tokens: int = 48) -> str:
    return classify(patch, Outcome.parse(outcome), n_layers=n_layers, source=64, base=tokens).kind


def test_measured_where_patched_of_the_seeds_own_table() -> None:
    """Only the residual at 25 read at 27 said anything about geometry; behavior always did."""
    found = {(str(c.patch), str(c.outcome)): c.kind for c in seed_table()}
    assert len(found) == 3 * len(SEED_METHODS) == 36
    assert {k for (_, outcome), k in found.items() if outcome == "behavior"} == {"informative"}
    for outcome in ("pr@27/32", "rv"):
        assert found["kv_proj@27/32/last(16)", outcome] == "tautological"
        assert found["v_proj@27/32/last(16)", outcome] == "tautological"
        assert found["residual@25/32/last(16)", outcome] == "informative"
        assert found["residual@27/32/last(16)", outcome] == "null"
        for width in (16, 32):
            for layers, said in (
                ("18/32", "informative"),
                ("25/32", "informative"),
                ("27/32", "tautological"),
                ("25/32+27/32", "tautological"),
            ):
                assert found[f"kv@{layers}/last({width})", outcome] == said


@pytest.mark.parametrize("n_layers", range(2, 41))
def test_the_seeds_table_on_few_layers_leaves_out_what_is_not_there(n_layers: int) -> None:
    meet = n_layers * 25 // 32 == n_layers * 27 // 32
    methods = [m for m in SEED_METHODS if not (meet and m[1].layers == "25/32+27/32")]
    assert seed_methods(n_layers) == methods
    assert len(methods) == len(SEED_METHODS) - 2 * meet
    found = seed_table(n_layers=n_layers)
    assert [(cell.method, cell.patch) for cell in found[::3]] == methods


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(34, 90), st.integers(34, 90))
def test_the_seeds_table_does_not_depend_on_the_prompts(source: int, base: int) -> None:
    found = seed_table(source_tokens=source, base_tokens=base)
    assert [cell.kind for cell in found] == [cell.kind for cell in seed_table()]


def test_on_16_layers_the_residual_at_25_32_is_the_layer_below_27_32() -> None:
    patch = Patch("residual", layers="25/32", positions="last(16)")
    assert kind(patch, "pr@27/32", n_layers=16) == "tautological"
    assert kind(patch, "pr@27/32", n_layers=32) == "informative"


def test_a_residual_over_the_whole_of_a_short_base_leaves_nothing_of_it() -> None:
    patch = Patch("residual", layers="25/32", positions="last(16)")
    assert kind(patch, "pr@27/32", tokens=16) == "tautological"
    assert kind(patch, "pr@27/32", tokens=17) == "informative"


def test_the_last_layers_earlier_outputs_are_read_by_nothing() -> None:
    patch = Patch("residual", layers="31", positions="first(8)")
    for outcome in ("behavior", "loglik", "kl", "pr@31", "pr@31/generated"):
        assert kind(patch, outcome) == "null"
    assert kind(Patch("kv_proj", layers="31", positions="first(8)"), "behavior") == "informative"


def test_the_last_layers_last_output_is_the_first_prediction() -> None:
    patch = Patch("residual", layers="31", positions="last(1)")
    assert kind(patch, "loglik") == kind(patch, "kl") == "tautological"
    assert kind(patch, "behavior") == "informative"
    kept_on = Patch("residual", layers="31", positions="last(1)", active="every_step")
    assert kind(kept_on, "behavior") == "tautological"


def test_an_answer_of_one_token_is_read_at_the_last_prompt_position_alone() -> None:
    """What is written before it in the last layer, or behind it, cannot move it."""
    late = Patch("residual", layers="31", positions="first(8)", active="every_step")
    last = Patch("residual", layers="31", positions="last(1)", active="every_step")
    lengths = {"n_layers": 32, "source": 64, "base": 48}

    def kinds(patch: Patch, outcome: str) -> list[str]:
        asked = Outcome.parse(outcome)
        return [classify(patch, asked, **lengths, fed=fed).kind for fed in (1, 2, None)]

    for outcome in ("logit_diff", "prob", "accuracy", "loss"):
        assert kinds(late, outcome) == ["null", "tautological", "tautological"]
        assert kinds(last, outcome) == ["tautological"] * 3
        assert kinds(Patch("kv", layers="31", positions="last(4)"), outcome) == ["informative"] * 3
    said = classify(late, Outcome.parse("prob"), **lengths, fed=1).why
    assert "reads the logits of position 47 (the last of the prompt), none of which" in said


def test_the_full_swap_is_the_donor_in_every_outcome() -> None:
    swap = Patch("kv", layers="all", positions="all")
    for outcome in ("behavior", "loglik", "kl", "pr@5", "pr@5/generated", "rv"):
        assert kind(swap, outcome) == "tautological"
    told = classify(swap, Outcome.parse("pr@5"), n_layers=32, source=64, base=48)
    assert "at positions 48..63; positions 48..62 pasted" in told.why


def test_what_is_appended_lies_in_the_window() -> None:
    patch = Patch("kv", layers="all", positions="last(4)", mode="append")
    assert kind(patch, "pr@3") == "tautological"
    assert kind(patch, "pr@3/generated") == kind(patch, "behavior") == "informative"


def test_the_reason_names_layers_positions_and_patch() -> None:
    patch = Patch("kv", layers="13", positions="last(16)")
    told = classify(patch, Outcome.parse("pr@13"), n_layers=16, source=50, base=40)
    assert told.why == (
        "reads v_proj of layer 13 at positions 24..39; positions 24..38 pasted by "
        "kv@13/last(16), position 39 out of its reach"
    )


def test_a_window_that_does_not_fit_is_an_error() -> None:
    patch = Patch("kv", layers="1", positions="last(3)")
    with pytest.raises(UsageError, match="its window has 16 tokens, the prompt has 15"):
        kind(patch, "pr@1", tokens=15)
    with pytest.raises(UsageError, match="out of range"):
        kind(patch, "pr@32")
    with pytest.raises(UsageError, match="fits both"):
        kind(Patch("kv", layers="1", positions="last(48)"), "behavior")


def test_the_experiments_saw_every_kind_at_every_place() -> None:
    """Else the tests above could pass by never meeting a kind."""
    seen: dict[str, set[str]] = {}
    for site, layers, positions in product(SITES, ("0", "2", "3"), ("last(15)", "first(5)")):
        for outcome in OUTCOMES:
            layers = "0" if site == "embed" else layers
            patch = Patch(site, layers=layers, positions=positions)
            family = "geometry" if outcome.is_geometry else "logits"
            found = kind(patch, str(outcome), n_layers=N_LAYERS, tokens=24)
            seen.setdefault(f"{family}/{outcome.where}", set()).add(found)
    assert seen["geometry/prompt"] == {"null", "informative", "tautological"}
    assert seen["geometry/generated"] == {"null", "informative"}
    assert seen["logits/prompt"] == {"null", "informative", "tautological"}
