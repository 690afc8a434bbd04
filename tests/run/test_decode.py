"""Two rows of one batch beside each other: how far apart, until when, and whether by rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import PromptStore
from kv_claims.run.decode import Compared, Decoded, decode
from kv_claims.run.sampling import choose, uniforms
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import prompt, tiny

STEPS = 12


def side_by_side(
    model: LoadedModel, prompts: list[list[int]], sampling: Sampling, *, past_stops: bool = False
) -> Decoded:
    """Every prompt on the same luck; the first is compared with each of the others."""
    store = PromptStore(model)
    store.add(prompts)
    plans = [RowPlan(store.index(tokens), len(tokens)) for tokens in prompts]
    return decode(
        model,
        build(store, plans, None, headroom=STEPS).slab,
        [tokens[-1] for tokens in prompts],
        uniforms("a pair", 0, STEPS).repeat(len(prompts), 1),
        sampling,
        compare=[(0, row) for row in range(1, len(prompts))],
        keep=range(len(prompts)),
        past_stops=past_stops,
    )


@pytest.mark.parametrize("temperature", [0.7, 0.0], ids=["sampled", "greedy"])
def test_rows_are_compared_until_their_tokens_part(temperature: float) -> None:
    sampling = Sampling(STEPS, temperature)
    prompts = [prompt(12, 1), [*prompt(12, 1)[:-2], *prompt(2, 9)], prompt(12, 1)]
    found = side_by_side(tiny("llama"), prompts, sampling)
    first, second, same = (found.logits[row] for row in range(3))
    other, own = found.compared
    together = next(step for step, (a, b) in enumerate(zip(*found.ids[:2], strict=True)) if a != b)
    assert together < STEPS - 1
    apart = (first - second)[: together + 1].abs().amax()
    assert other.largest == pytest.approx(float(apart))
    assert other.largest < float((first - second).abs().amax())
    luck = uniforms("a pair", 0, STEPS)[together : together + 1]
    margin = choose(first[together][None], luck, temperature).margin
    assert other.parted == pytest.approx(float(margin))
    assert (own.largest, own.parted) == (0.0, None)
    assert torch.equal(first, same)


def test_a_row_that_goes_on_past_its_stop_token_says_what_it_would_have() -> None:
    model = tiny("llama")
    free = side_by_side(model, [prompt(12, 1)], Sampling(STEPS))
    model.__dict__["stop_ids"] = frozenset({free.ids[0][4]})
    ended = side_by_side(model, [prompt(12, 1)], Sampling(STEPS))
    assert len(ended.tokens[0]) < STEPS
    on = side_by_side(model, [prompt(12, 1)], Sampling(STEPS), past_stops=True)
    assert on.ids == on.tokens == free.ids
    assert on.stopped == [False]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.floats(1e-7, 0.2),
    st.sampled_from([0.0, 0.3, 0.7, 1.5]),
)
def test_tokens_part_by_rounding_at_near_ties_only(
    seed: int, apart: float, temperature: float
) -> None:
    """Whatever logits differ by, other tokens on the same luck lie within what it explains."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(256, 20, generator=generator, dtype=torch.float64)
    moved = logits + apart * (2 * torch.rand(256, 20, generator=generator).double() - 1)
    uniform = torch.rand(256, generator=generator, dtype=torch.float64)
    one, other = (choose(some, uniform, temperature) for some in (logits, moved))
    largest = float((logits - moved).abs().amax())
    for row in (one.tokens != other.tokens).nonzero().flatten().tolist():
        parted = Compared(largest, 1.0, float(one.margin[row]))
        assert parted.is_near_tie(temperature)


@pytest.mark.parametrize(
    ("largest", "parted", "near"),
    [
        (0.0, None, False),
        (1e-3, None, False),
        (0.0, 1e-9, False),
        (1e-6, 1e-6, True),
        (1e-6, 1e-4, False),
        (1e-2, 1e-2, True),
        (1e-2, 0.2, False),
    ],
)
def test_a_difference_explains_a_parting_of_its_own_size(
    largest: float, parted: float | None, near: bool
) -> None:
    assert Compared(largest, 1.0, parted).is_near_tie(0.7) is near
