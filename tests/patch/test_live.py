"""Patches that stay on while rows generate: what is written when, from where, what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from kv_claims.claims.patch import Active, Patch
from kv_claims.claims.positions import resolve_window
from kv_claims.claims.sites import Site
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import rotation_of
from kv_claims.patch.activations import PromptPass
from kv_claims.patch.build import build
from kv_claims.patch.live import Live
from kv_claims.patch.plan import RowPlan, Steps, Write
from kv_claims.patch.store import PromptStore
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.decode import Decoded, decode
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling import choose, uniforms
from kv_claims.run.sampling_settings import Sampling
from tests.device import PLACE, placed
from tests.models.architectures import prompt, tiny
from tests.run.test_runner import number_task

SAMPLING = Sampling(max_new_tokens=8)
BASE_PROMPT, DONOR_PROMPT = prompt(12, 1), prompt(17, 2)
LAYER = 1
LUCK = uniforms("a pair", 0, SAMPLING.max_new_tokens)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny("llama")


def generated(
    model: LoadedModel, site: Site, active: Active, width: int = 4
) -> tuple[Decoded, list[Steps]]:
    """The engine's patched base and, beside it, the donor by itself."""
    store = PromptStore(model)
    store.add([BASE_PROMPT, DONOR_PROMPT])
    base, donor = store.index(BASE_PROMPT), store.index(DONOR_PROMPT)
    span = Patch(site, "1", "all").span
    window = resolve_window(f"last({width})", len(DONOR_PROMPT), len(BASE_PROMPT), span=span)
    write = Write(donor, site, (LAYER,), window, active=active)
    plans = [RowPlan(base, len(BASE_PROMPT), (write,)), RowPlan(donor, len(DONOR_PROMPT))]
    built = build(store, plans, rotation_of(model.network), headroom=8, donor_rows={(0, donor): 1})
    decoded = decode(
        model,
        built.slab,
        [BASE_PROMPT[-1], DONOR_PROMPT[-1]],
        LUCK.repeat(2, 1),
        SAMPLING,
        live=built.live,
        keep=[0, 1],
    )
    return decoded, built.live.seen()


# --- a loop by hand: one row, module hooks, none of the engine's caches or batches ---------------


@contextmanager
def hooked(module: torch.nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def module_of(model: LoadedModel, site: Site) -> torch.nn.Module:
    layer = model.network.model.layers[LAYER]
    return layer if site == "residual" else getattr(layer.self_attn, site)


@torch.no_grad()
def by_hand(
    model: LoadedModel, tokens: Sequence[int], hook: Callable[..., Any], module: torch.nn.Module
) -> tuple[list[int], torch.Tensor]:
    """Prompt in one pass, then token by token with transformers' own cache; tokens and logits."""
    cache, fed, drawn, seen = DynamicCache(), list(tokens), [], []
    with hooked(module, hook):
        for step in range(SAMPLING.max_new_tokens):
            logits = model.network(
                input_ids=placed([fed]), **with_cache(model.network, cache)
            ).logits.cpu()
            token, _ = choose(logits[:, -1], LUCK[step : step + 1], SAMPLING.temperature)
            seen.append(logits[0, -1])
            drawn.append(int(token))
            fed = drawn[-1:]
    return drawn, torch.stack(seen)


def first_of(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def put_back(result: Any, new: torch.Tensor) -> Any:
    return (new, *result[1:]) if isinstance(result, tuple) else new


@pytest.mark.parametrize("active", ["prompt", "every_step", "every_step(held)"])
@pytest.mark.parametrize("site", ["v_proj", "k_proj", "residual"])
def test_what_is_written_is_what_a_loop_by_hand_writes(
    model: LoadedModel, site: Site, active: Active
) -> None:
    """The donor generates by itself, step by step; its own activations go into the base's steps."""
    module = module_of(model, site)
    passes: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, result: Any) -> None:
        passes.append(first_of(result)[0].clone())

    donor_tokens, donor_logits = by_hand(model, DONOR_PROMPT, keep, module)
    step = -1

    def write(_module: Any, _inputs: Any, result: Any) -> Any:
        nonlocal step
        step += 1
        new = first_of(result).clone()
        if step == 0:
            new[0, -4:] = passes[0][-4:]
        elif active == "every_step":
            new[0] = passes[step]
        elif active == "every_step(held)":
            new[0] = passes[0][-1:]
        return put_back(result, new)

    tokens, logits = by_hand(model, BASE_PROMPT, write, module)
    decoded, _ = generated(model, site, active)
    assert decoded.tokens == [tokens, donor_tokens]
    # Angles are float32 in transformers, whatever the dtype.
    torch.testing.assert_close(decoded.logits[0], logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.logits[1], donor_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("site", "active", "fired"),
    [
        ("v_proj", "prompt", 1),
        ("v_proj", "every_step", 8),
        ("kv_proj", "every_step", 16),
        ("kv_proj", "every_step(held)", 16),
        ("residual", "every_step", 8),
        # A splice is in the cache already: the last prompt token stays the base's own.
        ("kv", "prompt", 0),
        ("kv", "every_step", 14),
        ("v", "every_step(held)", 7),
    ],
)
def test_it_fires_once_a_tensor_a_step(
    model: LoadedModel, site: Site, active: Active, fired: int
) -> None:
    _, (patched_row, donor_row) = generated(model, site, active, width=4)
    assert patched_row.fired == fired
    assert donor_row == Steps(0, 0)
    width = {"residual": 32}.get(site, 16)
    assert patched_row.changed <= fired * width
    assert (patched_row.changed > fired * width * 0.9) or not fired


STOPS = frozenset(range(0, 97, 5))


@pytest.mark.parametrize("site", ["v_proj", "kv", "residual"])
def test_what_a_row_does_after_its_stop_token_does_not_count(site: Site) -> None:
    """Nor does the donor's own stop token take anything away: it goes on generating."""
    stopping = replace(tiny("llama"))
    stopping.__dict__["stop_ids"] = STOPS
    arm = patched(Patch(site, "1+2", "first(3)", active="every_step"))
    task = number_task()
    by_size = []
    for model, size in ((stopping, 64), (stopping, 5), (tiny("llama"), 64)):
        trials = Runner(model, task, Sampling(10), Ledger(), size).run(
            [BASE, SOURCE, arm], task.pairs, range(2)
        )
        by_size.append({(t.pair, t.seed, t.arm): t for t in trials})
    stopped, small, free = by_size
    lengths = set()
    for (pair, seed, name), trial in stopped.items():
        if name != arm.id:
            continue
        tensors = 2 * len(arm.patches[0].tensors)
        assert trial.fired_steps == trial.planned_steps == (len(trial.tokens) - 1) * tensors
        source = stopped[pair, seed, "source"]
        lengths.add(
            (len(source.tokens) < len(trial.tokens)) - (len(source.tokens) > len(trial.tokens))
        )
        assert trial.tokens == small[pair, seed, name].tokens
        assert trial.tokens == free[pair, seed, name].tokens[: len(trial.tokens)]
        assert trial.beyond_rounding_steps == small[pair, seed, name].beyond_rounding_steps
    # Rows that outlive their donor, and rows that do not, were both among them.
    assert {-1, 1} <= lengths


# --- one write at a time, on made-up activations -----------------------------------------------


def live_of(write: Write, *, noise_steps: int = 8) -> Live:
    """Row 0 has the write, row 1 is its donor; heads 2, 8 components each."""
    plans = [RowPlan(0, 12, (write,)), RowPlan(1, 12)]
    return Live(
        plans,
        PromptPass(),
        {(0, 1): 1},
        None,
        lengths=[12, 12],
        steps=noise_steps,
        device=PLACE,
    )


def states(seed: int, *, columns: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, columns, 8, generator=generator, dtype=torch.float64).to(PLACE)


WINDOW = resolve_window("last(3)", 12, 12, span="prompt")
WRITE = Write(1, "v_proj", (LAYER,), WINDOW, active="every_step")


def test_only_its_layer_tensor_and_steps_are_written() -> None:
    live = live_of(WRITE)
    for step, layer, tensor, written in (
        (0, LAYER, "v", False),
        (1, LAYER, "v", True),
        (1, LAYER, "k", False),
        (1, 2, "v", False),
        (5, LAYER, "v", True),
    ):
        given = states(step)
        now = given.clone()
        live.begin(range(step, step + 1))
        live.edit(layer, tensor, now)
        assert torch.equal(now[1], given[1])
        assert torch.equal(now[0], given[1] if written else given[0])
    assert live.seen() == [Steps(2, 2 * 16, 2 * 16), Steps()]


def test_several_steps_in_one_pass_are_several_writes() -> None:
    live, given = live_of(WRITE), states(1, columns=6)
    now = given.clone()
    live.begin(range(6))
    live.edit(LAYER, "v", now)
    assert torch.equal(now[0, :, 0], given[0, :, 0])
    assert torch.equal(now[0, :, 1:], given[1, :, 1:])
    assert live.seen()[0].fired == 5


def test_of_some_heads_the_others_stay() -> None:
    live, given = live_of(WRITE._replace(heads=(1,))), states(1)
    now = given.clone()
    live.begin(range(1, 2))
    live.edit(LAYER, "v", now)
    assert torch.equal(now[0, 0], given[0, 0])
    assert torch.equal(now[0, 1], given[1, 1])
    assert live.seen()[0] == Steps(1, 8, 8)


def test_noise_has_the_norms_of_the_donor_and_a_direction_for_each_step() -> None:
    live = live_of(WRITE._replace(noise="a pair:0"))
    given, directions = states(1), []
    for step in (1, 2, 7):
        now = given.clone()
        live.begin(range(step, step + 1))
        live.edit(LAYER, "v", now)
        torch.testing.assert_close(now[0].norm(dim=-1), given[1].norm(dim=-1))
        directions.append(now[0] / now[0].norm(dim=-1, keepdim=True))
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert float((directions[one] - directions[other]).norm()) > 0.5
    again = live_of(WRITE._replace(noise="a pair:0"))
    now = given.clone()
    again.begin(range(7, 8))
    again.edit(LAYER, "v", now)
    torch.testing.assert_close(now[0] / now[0].norm(dim=-1, keepdim=True), directions[2])


def test_rows_that_have_stopped_are_not_counted() -> None:
    live, now = live_of(WRITE), states(1)
    live.begin(range(1, 2), placed([False, True]))
    live.edit(LAYER, "v", now)
    assert live.seen()[0] == Steps()
