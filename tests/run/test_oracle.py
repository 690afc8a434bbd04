"""The oracle itself: laws that need no engine, and one layer worked out by hand."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from transformers import DynamicCache

from kv_claims.claims.patch import Active
from kv_claims.claims.positions import Window
from kv_claims.claims.sites import CACHE_SITES, SITES, TENSORS, Site
from kv_claims.errors import UsageError
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import rotation_of
from kv_claims.run.oracle import Paste, oracle_keys, oracle_logits, relative_error
from tests.device import PLACE, placed
from tests.models.architectures import CONFIGS, ROTARY, VOCAB, prompt, sites_of, tiny

BASE, DONOR = prompt(13, 1), prompt(17, 2)
DRAWN, DONOR_DRAWN = prompt(6, 3), prompt(6, 4)
LAYERS, HEADS = (0, 1, 2, 3), (0, 1)
HAVE = [(name, site) for name in CONFIGS for site in sites_of(name)]
LAST = 3
SAME = 1e-6
"""Two routes through the same model, relative: angles and norms are float32."""


def span(site: Site, tokens: int) -> int:
    return tokens - 1 if site in CACHE_SITES else tokens


def at_end(site: Site, width: int) -> Window:
    """The last positions of the donor into the last ones of the base."""
    of_donor, of_base = span(site, len(DONOR)), span(site, len(BASE))
    return Window(range(of_donor - width, of_donor), range(of_base - width, of_base))


def everything(site: Site, tokens: int) -> Window:
    return Window(range(span(site, tokens)), range(span(site, tokens)))


def heads_of(model: LoadedModel, site: Site) -> tuple[int, ...]:
    return tuple(range(model.heads.of(site) or 1))


def layers_of(site: Site) -> tuple[int, ...]:
    """Two layers; the embedding stands before the first."""
    return (0,) if site == "embed" else (1, 3)


def hooks_on(model: LoadedModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.network.modules()
    )


@pytest.mark.parametrize("active", get_args(Active)[:2])
@pytest.mark.parametrize(("name", "site"), HAVE)
def test_pasting_a_prompt_into_itself_changes_nothing(
    name: str, site: Site, active: Active
) -> None:
    model = tiny(name)
    window = everything(site, len(BASE))
    heads = heads_of(model, site)[1:] or (0,)
    own = Paste(*(BASE, site, layers_of(site), heads, window), active=active, donor_generated=DRAWN)
    plain = oracle_logits(model, BASE, DRAWN)
    assert plain.shape == (len(DRAWN), VOCAB)
    assert relative_error(oracle_logits(model, BASE, DRAWN, [own]), plain) < SAME


@pytest.mark.parametrize(("name", "site"), HAVE)
def test_pasting_another_prompt_changes_something(name: str, site: Site) -> None:
    model = tiny(name)
    width = len(BASE) - 1
    # Without rotation keys stay where they are: both windows start at the first position.
    window = at_end(site, width) if name in ROTARY else Window(range(width), range(width))
    paste = Paste(DONOR, site, layers_of(site), heads_of(model, site), window)
    plain = oracle_logits(model, BASE, DRAWN)
    assert relative_error(oracle_logits(model, BASE, DRAWN, [paste]), plain) > 1e-3


@pytest.mark.parametrize("site", ["kv", "kv_proj"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_whole_of_the_donor_and_its_last_token_is_the_donor(name: str, site: Site) -> None:
    model = tiny(name)
    base = [*prompt(len(DONOR) - 1, 5), DONOR[-1]]
    paste = Paste(DONOR, site, LAYERS, heads_of(model, site), everything("kv", len(DONOR)))
    found = oracle_logits(model, base, DRAWN, [paste])
    assert relative_error(found, oracle_logits(model, DONOR, DRAWN)) < SAME


@pytest.mark.parametrize("name", CONFIGS)
def test_a_donor_that_goes_on_is_appended_as_it_goes_on(name: str) -> None:
    """Behind the same beginning, what is appended is the donor's own cache."""
    model = tiny(name)
    donor = [*BASE[:-1], *prompt(4, 6), BASE[-1]]
    slots = range(len(BASE) - 1, len(donor) - 1)
    paste = Paste(donor, "kv", LAYERS, heads_of(model, "kv"), Window(slots, slots), mode="append")
    found = oracle_logits(model, BASE, DRAWN, [paste])
    assert relative_error(found, oracle_logits(model, donor, DRAWN)) < SAME


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_residual_at_every_step_is_the_donors_run(name: str) -> None:
    model = tiny(name)
    paste = Paste(
        DONOR,
        "residual",
        (LAST,),
        (),
        at_end("residual", 1),
        active="every_step",
        donor_generated=DONOR_DRAWN,
    )
    found = oracle_logits(model, BASE, DRAWN, [paste])
    assert relative_error(found, oracle_logits(model, DONOR, DONOR_DRAWN)) < SAME
    held = oracle_logits(model, BASE, DRAWN, [paste._replace(active="every_step(held)")])
    first = oracle_logits(model, DONOR, DONOR_DRAWN)[:1].expand_as(held)
    assert relative_error(held, first) < SAME
    once = oracle_logits(model, BASE, DRAWN, [paste._replace(active="prompt")])
    assert relative_error(once[:1], first[:1]) < SAME
    assert relative_error(once[1:], oracle_logits(model, BASE, DRAWN)[1:]) < SAME


@pytest.mark.parametrize(("proj", "cache_site"), [("v_proj", "v"), ("k_proj", "k")])
@pytest.mark.parametrize("name", ROTARY)
def test_in_the_last_layer_a_projection_and_its_cache_are_one(
    name: str, proj: Site, cache_site: Site
) -> None:
    """Nothing is computed downstream of the last layer but the logits of the same position."""
    model = tiny(name)
    window = at_end("kv", 5)
    by_hook = Paste(DONOR, proj, (LAST,), heads_of(model, proj)[:1], window)
    by_cache = by_hook._replace(site=cache_site)
    found = oracle_logits(model, BASE, DRAWN, [by_hook])
    assert relative_error(found, oracle_logits(model, BASE, DRAWN, [by_cache])) < SAME


def last_layer_by_hand(model: LoadedModel, values: torch.Tensor) -> torch.Tensor:
    """Logits of a llama over BASE and DRAWN; its last layer has these values, `pos head d_head`."""
    network = model.network
    layer, rotary = network.model.layers[LAST], network.model.rotary_emb
    tokens = placed([[*BASE, *DRAWN[:-1]]])
    n = tokens.shape[1]
    given = network(input_ids=tokens, output_hidden_states=True).hidden_states[LAST]
    x = layer.input_layernorm(given)
    queries, keys = (
        project(x).view(n, -1, 8).double()
        for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    angle = torch.arange(n, device=PLACE)[:, None, None] * rotary.inv_freq.double()

    def turn(y: torch.Tensor) -> torch.Tensor:
        a, b = y[..., :4], y[..., 4:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    keys, values = turn(keys).repeat_interleave(2, 1), values.repeat_interleave(2, 1)
    scores = torch.einsum("qhd,khd->hqk", turn(queries), keys) / 8**0.5
    scores = scores.masked_fill(torch.ones(n, n, device=PLACE).triu(1).bool(), -torch.inf)
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).reshape(1, n, -1)
    after = given + layer.self_attn.o_proj(mixed)
    after = after + layer.mlp(layer.post_attention_layernorm(after))
    logits: torch.Tensor = network.lm_head(network.model.norm(after))[0, len(BASE) - 1 :]
    return logits.cpu()


def values_by_hand(model: LoadedModel, tokens: list[int]) -> torch.Tensor:
    """The last layer's values, `pos head d_head`, from its input and its weights."""
    layer = model.network.model.layers[LAST]
    given = model.network(input_ids=placed([tokens]), output_hidden_states=True)
    x = layer.input_layernorm(given.hidden_states[LAST][0])
    return (x @ layer.self_attn.v_proj.weight.T).view(len(tokens), 2, 8)


@torch.no_grad()
def test_values_of_the_last_layer_by_hand() -> None:
    model = tiny("llama")
    own, donor = values_by_hand(model, [*BASE, *DRAWN[:-1]]), values_by_hand(model, DONOR)
    plain = last_layer_by_hand(model, own)
    assert relative_error(oracle_logits(model, BASE, DRAWN), plain) < SAME

    hooked = own.clone()
    hooked[9:13, 1] = donor[13:17, 1]
    paste = Paste(DONOR, "v_proj", (LAST,), (1,), at_end("v_proj", 4))
    wanted = last_layer_by_hand(model, hooked)
    assert relative_error(oracle_logits(model, BASE, DRAWN, [paste]), wanted) < SAME
    assert relative_error(wanted, plain) > 1e-3

    mixed = own.clone()
    mixed[8:12, 1] = 0.75 * own[8:12, 1] + 0.25 * donor[12:16, 1]
    paste = Paste(DONOR, "v", (LAST,), (1,), at_end("v", 4), mode="mix(0.25)", alpha=0.25)
    wanted = last_layer_by_hand(model, mixed)
    assert relative_error(oracle_logits(model, BASE, DRAWN, [paste]), wanted) < SAME
    assert relative_error(wanted, plain) > 1e-4


class Intercepting(DynamicCache):
    """Overwrites keys and values where attention hands them over: after rotation.

    changes: (layer, position) to the heads, the key and the value that stand there.
    """

    def __init__(self, changes: dict[tuple[int, int], tuple[list[int], Any, Any]]) -> None:
        super().__init__()
        self.changes = changes

    def update(self, keys: Any, values: Any, layer: int, *args: Any, **kwargs: Any) -> Any:
        first = self.get_seq_length(layer)
        for (where, position), (heads, key, value) in self.changes.items():
            if where == layer and first <= position < first + keys.shape[2]:
                keys[0, heads, position - first] = key
                values[0, heads, position - first] = value
        return super().update(keys, values, layer, *args, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize("active", get_args(Active))
@pytest.mark.parametrize("site", ["kv", "kv_proj"])
@pytest.mark.parametrize("name", ROTARY)
def test_projections_overwritten_are_the_cache_overwritten_after_rotation(
    name: str, site: Site, active: Active
) -> None:
    """Another route to the same patch: no module hooks, keys moved by the rotation we tested."""
    model, layers, heads = tiny(name), (1, 2), [1]
    window = at_end(site, 4)
    paste = Paste(DONOR, site, layers, (1,), window, active=active, donor_generated=DONOR_DRAWN)
    goes_to = dict(zip(window.base_slots, window.source_slots, strict=True))
    steps = range(len(DRAWN) - 1)
    if active == "every_step":
        goes_to |= {len(BASE) + step: len(DONOR) + step for step in steps}
    if active == "every_step(held)":
        goes_to |= {len(BASE) + step: len(DONOR) - 1 for step in steps}

    donor, rotation = DynamicCache(), rotation_of(model.network)
    model.network(input_ids=placed([[*DONOR, *DONOR_DRAWN]]), **with_cache(model.network, donor))
    changes = {}
    for layer in layers:
        kept = donor.layers[layer]
        for here, there in goes_to.items():
            moved = rotation(layer, kept.keys[:, heads, there], placed([here - there]))[0]
            changes[layer, here] = (heads, moved, kept.values[0, heads, there])

    cached = len(BASE) - 1
    fed = placed([[*BASE, *DRAWN[:-1]]])
    if site == "kv":
        # A splice lets the prompt run by itself, and writes afterwards.
        cache = Intercepting({})
        model.network(input_ids=fed[:, :cached], **with_cache(model.network, cache))
        for (layer, position), (_, key, value) in changes.items():
            if position < cached:
                cache.layers[layer].keys[0, heads, position] = key
                cache.layers[layer].values[0, heads, position] = value
        cache.changes = changes
        wanted = model.network(
            input_ids=fed[:, cached:], **with_cache(model.network, cache)
        ).logits[0]
    else:
        cache = Intercepting(changes)
        wanted = model.network(input_ids=fed, **with_cache(model.network, cache)).logits[0, cached:]
    found = oracle_logits(model, BASE, DRAWN, [paste])
    wanted = wanted.cpu()
    assert relative_error(found, wanted) < 10 * SAME
    assert relative_error(oracle_logits(model, BASE, DRAWN), wanted) > 1e-3


def test_pastes_of_different_layers_and_tensors_go_together() -> None:
    """K and V of one layer in two pastes are KV in one; and neither alone is."""
    model = tiny("qwen3")
    both = Paste(DONOR, "kv_proj", (1,), HEADS, at_end("kv_proj", 4))
    parts = [both._replace(site="k_proj"), both._replace(site="v_proj")]
    wanted = oracle_logits(model, BASE, DRAWN, [both])
    assert torch.equal(oracle_logits(model, BASE, DRAWN, parts), wanted)
    for part in parts:
        assert relative_error(oracle_logits(model, BASE, DRAWN, [part]), wanted) > 1e-4


def test_mixing_starts_from_the_rows_own_cache() -> None:
    model = tiny("llama")
    paste = Paste(DONOR, "kv", (1, 2), HEADS, at_end("kv", 6), mode="mix(0.3)", alpha=0.3)
    found = oracle_logits(model, BASE, DRAWN, [paste])
    whole = oracle_logits(model, BASE, DRAWN, [paste._replace(alpha=1.0)])
    replaced = oracle_logits(model, BASE, DRAWN, [paste._replace(mode="replace", alpha=1.0)])
    assert torch.equal(whole, replaced)
    assert relative_error(found, replaced) > 1e-3
    own = paste._replace(donor=BASE, window=Window(range(6), range(6)))
    plain = oracle_logits(model, BASE, DRAWN)
    assert relative_error(oracle_logits(model, BASE, DRAWN, [own]), plain) < SAME


@pytest.mark.parametrize("name", ["llama-yarn", "gpt_neox", "gemma3"])
def test_keys_are_those_of_the_new_positions_for_the_pasted_heads(name: str) -> None:
    model = tiny(name)
    window = at_end("kv", 5)
    paste = Paste(DONOR, "k", (1, 2), (1,), window)
    cache = DynamicCache()
    with torch.no_grad():
        model.network(input_ids=placed([DONOR]), **with_cache(model.network, cache))
    rotation = rotation_of(model.network)
    found = oracle_keys(model, paste)
    assert found.shape == (2, 1, 5, 8)
    for row, layer in zip(found, paste.layers, strict=True):
        keys = cache.layers[layer].keys[0, 1, 11:16][:, None]
        moved = rotation(layer, keys, placed([-4] * 5)).cpu()
        torch.testing.assert_close(row, moved.transpose(0, 1), rtol=1e-4, atol=1e-4)
    assert oracle_keys(model, paste._replace(site="v")).numel() == 0
    assert oracle_keys(model, paste._replace(site="residual")).numel() == 0


def test_values_that_move_are_those_of_the_donors_own_positions() -> None:
    """GPT-2's values hold positions as well; a moved value is what the donor's run had."""
    model = tiny("gpt2")
    paste = Paste(DONOR, "v", (LAST,), heads_of(model, "v"), at_end("v", 5))
    by_hook = paste._replace(site="v_proj")
    found = oracle_logits(model, BASE, DRAWN, [paste])
    assert relative_error(found, oracle_logits(model, BASE, DRAWN, [by_hook])) < SAME


@pytest.mark.parametrize("site", SITES)
def test_no_hook_stays(site: Site) -> None:
    model = tiny("gpt_neox-serial")
    paste = Paste(
        DONOR,
        site,
        (0,) if site == "embed" else (0, 2),
        heads_of(model, site),
        at_end(site, 4),
        active="every_step",
        donor_generated=DONOR_DRAWN,
    )
    oracle_logits(model, BASE, DRAWN, [paste])
    assert hooks_on(model) == 0
    no_token = VOCAB + 1
    with pytest.raises(IndexError):
        oracle_logits(model, BASE, DRAWN, [paste._replace(donor=[no_token, *DONOR[1:]])])
    assert hooks_on(model) == 0
    with pytest.raises(IndexError):
        oracle_logits(model, [no_token, *BASE[1:]], DRAWN, [paste])
    assert hooks_on(model) == 0
    with pytest.raises(IndexError):
        oracle_logits(model, BASE, [no_token] * 3, [paste])
    assert hooks_on(model) == 0


def test_too_few_generated_tokens_of_the_donor_are_an_error() -> None:
    model = tiny("llama")
    needed = len(DRAWN) - 1
    paste = Paste(DONOR, "v_proj", (1,), HEADS, at_end("v_proj", 4), active="every_step")
    for given in (0, needed - 1):
        short = paste._replace(donor_generated=DONOR_DRAWN[:given])
        with pytest.raises(ValueError, match=f"fed {needed} generated.*own {given} are given"):
            oracle_logits(model, BASE, DRAWN, [short])
    just = paste._replace(donor_generated=DONOR_DRAWN[:needed])
    assert oracle_logits(model, BASE, DRAWN, [just]).shape == (len(DRAWN), VOCAB)


def test_an_unknown_architecture_keeps_its_cache_patches_and_no_others() -> None:
    model = tiny("llama")
    window = everything("kv", len(BASE))
    spliced = Paste(prompt(len(BASE), 7), "kv", (1, 2), HEADS, window)
    known = oracle_logits(model, BASE, DRAWN, [spliced])
    model.network.config.model_type = "novel"
    assert torch.equal(oracle_logits(model, BASE, DRAWN, [spliced]), known)
    for site in set(TENSORS) - set(CACHE_SITES):
        with pytest.raises(UsageError, match="architecture 'novel'"):
            oracle_logits(model, BASE, DRAWN, [spliced._replace(site=site)])
