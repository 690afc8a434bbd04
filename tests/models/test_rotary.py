"""Rotating a cached key equals computing it at the new position."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from kv_claims.errors import UsageError
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import longest_fixed, rotation_of
from tests.models.architectures import CONFIGS, ROTARY, prompt, tiny

TOKENS = 12


def cached(model: LoadedModel, first_position: int) -> DynamicCache:
    cache = DynamicCache()
    with torch.no_grad():
        model.network(
            input_ids=torch.tensor([prompt(TOKENS, 1)]),
            **with_cache(model.network, cache),
            position_ids=torch.arange(TOKENS)[None] + first_position,
        )
    return cache


def keys_error(model: LoadedModel, shift: int) -> list[float]:
    """For each layer, the largest error of a key that was moved; keys are of size 1 to 30."""
    rotation = rotation_of(model.network)
    here, there = cached(model, 0), cached(model, shift)
    return [
        float(
            (
                rotation(layer, old.keys[0].transpose(0, 1), torch.full((TOKENS,), shift))
                - new.keys[0].transpose(0, 1)
            )
            .abs()
            .max()
        )
        for layer, (old, new) in enumerate(zip(here.layers, there.layers, strict=True))
    ]


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("shift", [-7, 0, 5, 60])
def test_rotated_keys_are_the_keys_of_the_new_positions(name: str, shift: int) -> None:
    model = tiny(name)
    rotation = rotation_of(model.network)
    here, there = cached(model, 0), cached(model, shift)
    for layer, (old, new) in enumerate(zip(here.layers, there.layers, strict=True)):
        keys = old.keys[0].transpose(0, 1)
        turned = rotation(layer, keys, torch.full((TOKENS,), shift)).transpose(0, 1)
        torch.testing.assert_close(turned, new.keys[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(old.values, new.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ROTARY)
def test_a_shift_of_zero_returns_the_very_same_numbers(name: str) -> None:
    model = tiny(name)
    rotation = rotation_of(model.network)
    for layer, kept in enumerate(cached(model, 0).layers):
        keys = kept.keys[0].transpose(0, 1)
        assert torch.equal(rotation(layer, keys, torch.zeros(TOKENS)), keys)


def test_layers_of_gemma3_turn_by_their_own_frequencies() -> None:
    local, wide = rotation_of(tiny("gemma3").network).inv_freq[:2]
    torch.testing.assert_close(local, 100.0 ** -(torch.arange(4) / 4))
    torch.testing.assert_close(wide, 1e6 ** -(torch.arange(4) / 4) / 8)


@pytest.mark.parametrize(("name", "limit"), [("llama-dynamic", 128), ("phi3-longrope", 96)])
def test_rotation_is_exact_up_to_the_longest_text_with_fixed_frequencies(
    name: str, limit: int
) -> None:
    assert longest_fixed(tiny(name).network) == limit
    assert max(keys_error(tiny(name), limit - TOKENS)) < 1e-3
    assert max(keys_error(tiny(name), limit - TOKENS + 1)) > 1e-2


@pytest.mark.parametrize("name", ["llama-dynamic", "phi3-longrope"])
def test_a_longer_text_before_does_not_change_the_rotation(name: str) -> None:
    model = tiny(name)
    before, limit = rotation_of(model.network), longest_fixed(model.network)
    assert limit is not None
    kept = before.inv_freq[0].clone()
    cached(model, limit)
    after = rotation_of(model.network)
    assert torch.equal(before.inv_freq[0], kept)
    assert torch.equal(after.inv_freq[0], kept)


@pytest.mark.parametrize(
    "name", [n for n in CONFIGS if n not in ("llama-dynamic", "phi3-longrope")]
)
def test_others_have_no_such_limit(name: str) -> None:
    assert longest_fixed(tiny(name).network) is None


def test_an_unknown_architecture_is_refused_by_name() -> None:
    network = tiny("llama").network
    network.config.model_type = "novel"
    with pytest.raises(UsageError, match=r"architecture 'novel'.*rotary frequencies.*mistral"):
        rotation_of(network)


def test_learned_positions_are_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"'gpt2'.*absolute positions.*inside its keys"):
        rotation_of(tiny("gpt2").network)


def test_frequencies_that_are_not_known_are_refused() -> None:
    network = tiny("llama").network
    network.config.rope_parameters["rope_type"] = "proportional"
    with pytest.raises(UsageError, match=r"RoPE type 'proportional'.*Expected one of default"):
        rotation_of(network)


def test_half_precision_is_rounded_once() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    rotation = rotation_of(model.network)
    keys = torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    shift = torch.arange(20)
    exact = rotation(0, keys.to(torch.float64), shift)
    assert rotation(0, keys, shift).dtype == torch.bfloat16
    torch.testing.assert_close(
        rotation(0, keys, shift).double(), exact, rtol=2**-8, atol=2**-8 * float(keys.abs().max())
    )
    assert torch.equal(rotation(0, keys, torch.zeros(20)), keys)
