"""Log-probabilities and divergences, held against torch's own on all logits in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.run.distributions import POSITIONS, Reference, along

NEAR = 1e-12


def logits(steps: int, vocab: int, seed: int, scale: float, dtype: torch.dtype) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(steps, vocab, generator=made, dtype=torch.float64)).to(dtype)


@given(
    steps=st.integers(1, 3 * POSITIONS + 1),
    behind=st.integers(0, POSITIONS + 1),
    vocab=st.integers(1, 300),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_they_are_those_of_log_softmax(
    steps: int, behind: int, vocab: int, seed: int, scale: float, dtype: torch.dtype
) -> None:
    """Whatever stands behind the tokens is left out."""
    mine, source = (logits(steps + behind, vocab, seed + i, scale, dtype) for i in (0, 1))
    tokens = [(seed + 7 * step) % vocab for step in range(steps)]
    mine[steps:] = float("nan")
    own, of_source = (torch.log_softmax(one[:steps].double(), -1) for one in (mine, source))
    chosen = float(own.gather(-1, torch.tensor(tokens)[:, None]).mean())
    kl = float((of_source.exp() * (of_source - own)).sum(-1).mean())
    found = along(mine, tokens, Reference.of(source[:steps]))
    assert found.chosen == pytest.approx(chosen, rel=NEAR, abs=NEAR)
    assert found.divergence == pytest.approx(max(kl, 0.0), rel=NEAR, abs=NEAR * max(1.0, scale))
    assert along(mine, tokens) == (found.chosen, None)


def test_a_distribution_is_at_no_distance_from_itself() -> None:
    one = logits(5, 1000, 3, 8.0, torch.float32)
    divergence = along(one, [1, 2, 3, 4, 5], Reference.of(one)).divergence
    assert divergence is not None
    assert 0.0 <= divergence < 1e-14
