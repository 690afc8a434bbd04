"""Rotating a cached key equals computing it at the new position."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from harness.errors import UsageError
from harness.models.rotary import rotation_of
from tests.models.architectures import CONFIGS, prompt, tiny


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shift", [-7, 0, 5, 60])
def test_rotated_keys_are_the_keys_of_the_new_positions(name: str, shift: int) -> None:
    model = tiny(name)
    tokens = torch.tensor([prompt(12, 1)])
    here, there = DynamicCache(), DynamicCache()
    with torch.no_grad():
        model.network(input_ids=tokens, past_key_values=here)
        model.network(
            input_ids=tokens, past_key_values=there, position_ids=torch.arange(12)[None] + shift
        )
    rotation = rotation_of(model.network)
    for old, new in zip(here.layers, there.layers, strict=True):
        keys = old.keys[0].transpose(0, 1)
        turned = rotation(keys, torch.full((12,), shift)).transpose(0, 1)
        torch.testing.assert_close(turned, new.keys[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(old.values, new.values, rtol=1e-4, atol=1e-4)


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"architecture 'gpt2'.*cannot be moved"):
        rotation_of(tiny("gpt2").network)


def test_frequencies_that_change_with_length_are_refused() -> None:
    network = tiny("llama").network
    network.model.rotary_emb.rope_type = "dynamic"
    with pytest.raises(UsageError, match="RoPE type 'dynamic'"):
        rotation_of(network)


def test_half_precision_is_rounded_once() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    rotation = rotation_of(model.network)
    keys = torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    shift = torch.arange(20)
    exact = rotation(keys.to(torch.float64), shift)
    assert rotation(keys, shift).dtype == torch.bfloat16
    torch.testing.assert_close(
        rotation(keys, shift).double(), exact, rtol=2**-8, atol=2**-8 * float(keys.abs().max())
    )
    assert torch.equal(rotation(keys, torch.zeros(20)), keys)
