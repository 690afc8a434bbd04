"""Common random numbers and inverse CDF."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_claims.errors import UsageError
from kv_claims.run import sampling
from kv_claims.run.sampling import choose, uniforms
from kv_claims.run.sampling_settings import Sampling


def test_uniforms_depend_on_pair_seed_and_index_alone() -> None:
    short, long = uniforms("pair", 0, 5), uniforms("pair", 0, 50)
    assert torch.equal(short, long[:5])
    assert not torch.equal(uniforms("pair", 1, 5), short)
    assert not torch.equal(uniforms("other", 0, 5), short)
    assert long.dtype == torch.float64
    assert bool(((long >= 0) & (long < 1)).all())


def test_uniforms_are_spread_evenly() -> None:
    found = torch.cat([uniforms(f"pair {i}", 0, 100) for i in range(100)])
    counts = torch.histc(found, bins=10, min=0, max=1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 27.9  # chi-square, 9 df, p = 0.001


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_a_token_is_where_the_cdf_passes_the_uniform(uniform: float, seed: int) -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed))
    token, margin = choose(logits, torch.tensor([uniform], dtype=torch.float64), 0.7)
    cdf = torch.softmax(logits[0].double() / 0.7, -1).cumsum(-1)
    target = uniform * float(cdf[-1])
    k = int(token)
    assert (cdf[k - 1] if k else 0.0) <= target < cdf[k]
    edges = [float(cdf[k]) - target] + ([target - float(cdf[k - 1])] if k else [])
    assert math.isclose(float(margin), min(edges), abs_tol=1e-15)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_many_rows_are_drawn_a_few_at_a_time_to_the_bit(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 3 * torch.randn(7, 1001, generator=torch.Generator().manual_seed(0))
    luck = torch.cat([uniforms("pair", seed, 1) for seed in range(7)])
    whole = choose(logits, luck, temperature)
    for numbers in (1, 2002, 3003):
        monkeypatch.setattr(sampling, "NUMBERS_AT_ONCE", numbers)
        few = choose(logits, luck, temperature)
        assert torch.equal(few.tokens, whole.tokens)
        assert torch.equal(few.margin, whole.margin)


def test_frequencies_follow_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0]])
    n = 4000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = choose(logits.expand(n, 4), grid, 0.5).tokens
    wanted = torch.softmax(logits[0].double() / 0.5, -1)
    found = torch.bincount(tokens, minlength=4) / n
    torch.testing.assert_close(found.double(), wanted, atol=1 / n, rtol=0)


def test_temperature_zero_is_greedy() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.9], [5.0, 1.0, 0.0]])
    uniform = torch.tensor([0.999, 0.999], dtype=torch.float64)
    assert choose(logits, uniform, 0.0).tokens.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("tokens", "temperature", "message"),
    [
        (0, 0.7, "max-new-tokens 0"),
        (5, -0.1, "temperature -0.1"),
        (5, math.inf, "temperature inf"),
        (5, math.nan, "temperature nan"),
    ],
    ids=["no-tokens", "negative", "infinite", "nan"],
)
def test_settings_that_cannot_be_drawn_from_are_refused(
    tokens: int, temperature: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Sampling(tokens, temperature)
