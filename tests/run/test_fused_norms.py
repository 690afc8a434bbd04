"""Norms that become one kernel: which ones, for how long, and by how much they differ."""

from __future__ import annotations

import pytest
import torch

from kv_claims.run.fused_norms import fused, fusible
from tests.device import PLACE
from tests.models.architectures import tiny

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(
    ("name", "norms"), [("llama", 9), ("qwen3", 17), ("phi3", 9), ("gemma3", 0), ("gpt_neox", 0)]
)
def test_those_that_agree_are_found(name: str, norms: int, dtype: torch.dtype) -> None:
    """Two a layer and one behind; Qwen3 has two more a layer, Gemma adds 1 to its weights."""
    network = tiny(name, dtype).network
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 1.0, 0.3)
    assert len(fusible(network)) == norms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_none_is_taken_where_tokens_are_promised(dtype: torch.dtype) -> None:
    assert fusible(tiny("llama", dtype).network) == []


def test_they_are_themselves_again_afterwards() -> None:
    network = tiny("llama", torch.bfloat16).network
    norms = fusible(network)
    states = torch.randn(3, 32).bfloat16().to(PLACE)
    before = network.model.norm(states)
    with fused(norms):
        assert network.model.norm.forward is norms[-1].fused
    assert "forward" not in vars(network.model.norm)
    assert torch.equal(network.model.norm(states), before)


def test_one_that_somebody_replaced_is_left_alone() -> None:
    network = tiny("llama", torch.bfloat16).network
    network.model.norm.forward = lambda states: states
    assert len(fusible(network)) == 8


def test_one_that_only_looks_like_it_is_not() -> None:
    """Name, weight and epsilon are there, but it computes something else."""
    network = tiny("llama", torch.bfloat16).network
    norm = network.model.norm

    class OtherRMSNorm(type(norm)):  # type: ignore[misc]
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states) / 2

    norm.__class__ = OtherRMSNorm
    assert len(fusible(network)) == 8
