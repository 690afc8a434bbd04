"""Both routes of decoding give the same tokens; which one is taken, and what happens if it errs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps

import pytest
import torch
import transformers

from kv_claims.claims.patch import Patch
from kv_claims.models.load import LoadedModel
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.slab import Slab
from kv_claims.run import routes, shared_attention, steps
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.routes import Route, route_of
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from tests.device import on_the_cpu
from tests.models.architectures import CONFIGS, tiny
from tests.run.test_runner import ARMS, LIVE, RECOMPUTED, assert_same_geometry, number_task

pytestmark = on_the_cpu("the shared route is taken there alone")

OLDER = tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24)
"""Whether attention of GPT-2 may not be asked for by name, as in 5.0."""
WINDOWED = ("mistral-window", "gemma2", "gemma3")
SHARED = [name for name in CONFIGS if name not in WINDOWED]
HALF = (Patch("kv", "1", "first(25%)"), Patch("v", "2+3", "last(4)"))


def trials(
    model: LoadedModel,
    arms: list[Arm],
    route: Route,
    temperature: float = 0.7,
    tokens: int = 18,
) -> tuple[list[Trial], Runner]:
    task = number_task()
    runner = Runner(model, task, Sampling(tokens, temperature), Ledger())
    runner.route = route
    return runner.run(arms, task.first_pairs(5), [0]), runner


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        *(pytest.param(name, ARMS, id=f"{name}-spliced") for name in SHARED),
        *(
            pytest.param(name, RECOMPUTED, id=f"{name}-computed-anew")
            for name in ("llama", "phi3", "gpt_neox", "gpt2")
        ),
    ],
)
def test_both_routes_give_the_same_trials(name: str, arms: list[Arm]) -> None:
    if name == "gpt2":
        # Its keys cannot be moved, so only arms that keep them in place.
        arms = [BASE, SOURCE, patched(HALF[0])] if arms is ARMS else [self_patch(LIVE[:1])]
    model = tiny(name)
    found = route_of(model)
    if name == "gpt2" and found.kind == "plain" and OLDER:
        pytest.skip(
            f"transformers {transformers.__version__} decodes GPT-2 plainly: {found.reason}"
        )
    assert (found.kind, found.reason) == ("shared", "")
    plain, plainly = trials(model, arms, Route("plain"))
    shared, sharing = trials(model, arms, found)
    assert set(plainly.batches) == {"plain"}
    assert set(sharing.batches) == {"shared"}
    for one, other in zip(plain, shared, strict=True):
        assert one.tokens == other.tokens, one.arm
        assert (one.elements, one.beyond_rounding) == (other.elements, other.beyond_rounding)
        assert bool(one.differs) == bool(other.differs)
        assert one.fired_steps == other.fired_steps
        assert one.beyond_rounding_steps == other.beyond_rounding_steps
        assert other.margin == pytest.approx(one.margin, abs=1e-7)
        assert_same_geometry(one, other)
        for error in (other.oracle_error, other.oracle_keys_error):
            assert error is None or error < 1e-5


@pytest.mark.parametrize("temperature", [0.7, 0.0], ids=["sampled", "greedy"])
def test_in_float32_they_part_at_near_ties_only(temperature: float) -> None:
    model = tiny("qwen3", dtype=torch.float32)
    arms = [*ARMS, patched(HALF), *controls(HALF, 4, about_layer=True).values()]
    plain, _ = trials(model, arms, Route("plain"), temperature)
    shared, _ = trials(model, arms, route_of(model), temperature)
    parted = [
        max(one.margin, other.margin)
        for one, other in zip(plain, shared, strict=True)
        if one.tokens != other.tokens
    ]
    assert all(margin < 1e-4 for margin in parted)
    assert len(parted) <= len(plain) / 20


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_are_decoded_plainly_and_it_is_said(name: str) -> None:
    found = route_of(tiny(name))
    assert found.kind == "plain"
    assert found.reason


def test_a_window_that_no_row_reaches_is_no_reason() -> None:
    model = tiny("mistral-window")
    model.config.sliding_window = 64
    found = route_of(model)
    assert found == Route("shared", within=64)
    assert found.of([RowPlan(0, 40)], 24) == "shared"
    assert found.of([RowPlan(0, 40), RowPlan(0, 41)], 24) == "plain"


def test_half_precision_is_decoded_plainly() -> None:
    assert route_of(tiny("llama", dtype=torch.bfloat16)).reason.startswith("bfloat16")


@pytest.mark.parametrize("scale", [1.02, float("nan")], ids=["off", "nan"])
def test_attention_that_errs_is_found_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """A wrong weight of the prompt's part: both routes then differ, so rows are decoded plainly."""
    real = shared_attention._over_prompts

    def wrong(*args: object) -> shared_attention._Part:
        part = real(*args)  # type: ignore[arg-type]
        return part._replace(out=part.out * scale)

    monkeypatch.setattr(shared_attention, "_over_prompts", wrong)
    found = route_of(tiny("llama"))
    assert found.kind == "plain"
    assert "differ" in found.reason or "finite" in found.reason


def test_a_model_that_asks_for_more_is_decoded_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    network = model.network
    real = network.forward

    @wraps(real)
    def with_a_cap(**given: object) -> object:
        return real(**given, softcap=3.0)

    monkeypatch.setattr(network, "forward", with_a_cap)
    found = route_of(model)
    assert found.kind == "plain"
    assert "softcap" in found.reason


def test_the_models_own_attention_is_put_back() -> None:
    model = tiny("llama")
    before = model.network.config._attn_implementation
    route_of(model)
    assert model.network.config._attn_implementation == before
    assert routes.AGREE["shared"].keys() == {torch.float64, torch.float32}


def test_prompts_of_a_shared_batch_do_not_grow_with_the_arms() -> None:
    """Arms of one layer: beside it every arm of a base reads the very same numbers."""
    from kv_claims.patch.build import build

    model, task = tiny("llama"), number_task(((20, 20),))
    runner = Runner(model, task, Sampling(4), Ledger())
    pair = task.pairs[0]
    arms = [patched(Patch("kv", "1", f"last({width})")) for width in range(1, 9)]
    runner.prefill([(pair, arm) for arm in arms])
    plans = [runner.rows.plan(arm, pair, 0, runner.store) for arm in [BASE, *arms]]
    slab = build(runner.store, plans, None, headroom=4, shared=True).slab
    assert [len(keys) for keys in slab.keys] == [1, 9, 1, 1]
    swap = runner.rows.plan(FULL_SWAP, pair, 0, runner.store)
    slab = build(runner.store, [*plans, swap], None, headroom=4, shared=True).slab
    assert [len(keys) for keys in slab.keys] == [2, 10, 2, 2]


@pytest.mark.parametrize("kind", ["plain", "shared"])
def test_rows_that_end_leave_the_batch_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With every eighth token a stop most rows end before the last step, at different steps."""
    model = tiny("llama")
    model.__dict__["stop_ids"] = frozenset(range(0, 97, 8))
    arms = [BASE, SOURCE, patched(HALF), *controls(HALF, 4, about_layer=True).values()]
    route = Route("plain") if kind == "plain" else Route("shared")
    left: list[int] = []
    real = Slab.narrowed

    def counted(self: Slab, rows: Sequence[int]) -> Slab:
        left.append(len(self.lengths) - len(rows))
        return real(self, rows)

    monkeypatch.setattr(Slab, "narrowed", counted)
    narrowed, _ = trials(model, arms, route, tokens=30)
    assert len(left) > 2
    monkeypatch.setattr(steps, "NARROW", -1.0)
    whole, _ = trials(model, arms, route, tokens=30)
    assert len({len(trial.tokens) for trial in whole}) > 5
    assert any(trial.geometry["centred/generated"] for trial in whole)
    for one, other in zip(whole, narrowed, strict=True):
        assert (one.tokens, one.stopped) == (other.tokens, other.stopped)
        assert_same_geometry(one, other)
        assert other.margin == pytest.approx(one.margin, abs=1e-7)
        assert other.oracle_error is None or other.oracle_error < 1e-5
