"""Geometry of a trial, against the outputs of `v_proj` hooked by hand in a plain forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch
from kv_claims.measure.geometry import VARIANTS, participation_ratio
from kv_claims.models.load import LoadedModel
from kv_claims.patch.slab import Slab
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.geometry import geometry_of
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.scores import geometry_score
from kv_claims.run.trial import Trial
from tests.device import placed
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

LENGTHS = ((17, 40), (24, 16), (15, 20))
"""Tokens of source and base; 15 is one less than a window."""
PATCH = Patch("v_proj", "1", "last(5)")
NAMES = {f"{variant}/{span}" for variant in VARIANTS for span in ("prompt", "generated")}


@torch.no_grad()
def values_of(model: LoadedModel, tokens: Sequence[int]) -> list[torch.Tensor]:
    """Outputs of every layer's v_proj over some tokens, `[pos, width]`, with no cache."""
    found: list[torch.Tensor] = []
    handles = [
        layer.self_attn.v_proj.register_forward_hook(lambda _m, _i, out: found.append(out[0]))
        for layer in model.network.model.layers
    ]
    model.network(input_ids=placed([list(tokens)]), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def ratios(values: list[torch.Tensor], stop: int, variant: str) -> list[float]:
    return [participation_ratio(layer[stop - 16 : stop], variant) for layer in values]


def trials_of(model: LoadedModel, tokens: int, *arms: object) -> tuple[Runner, list[Trial]]:
    task = number_task(LENGTHS)
    runner = Runner(model, task, Sampling(tokens), Ledger())
    return runner, runner.run(arms, task.first_pairs(3), range(2))


@pytest.mark.parametrize("arm", [BASE, SOURCE], ids=["base", "source"])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_it_is_that_of_the_values_hooked_by_hand(name: str, arm: object) -> None:
    model = tiny(name)
    runner, trials = trials_of(model, 20, arm)
    assert {trial.prompt_tokens >= 16 for trial in trials} >= {True}
    for trial in trials:
        prompt = runner.rows.start(arm, number_task(LENGTHS).pairs[trial.pair_index])
        # The last token was drawn, and never read.
        values = values_of(model, [*prompt, *trial.tokens[:-1]])
        assert set(trial.geometry) == NAMES
        for variant in VARIANTS:
            found = trial.geometry[f"{variant}/prompt"]
            if len(prompt) < 16:
                assert found is None
            else:
                assert found == pytest.approx(ratios(values, len(prompt), variant), rel=1e-5)
            end = len(prompt) + 19
            generated = trial.geometry[f"{variant}/generated"]
            assert generated == pytest.approx(ratios(values, end, variant), rel=1e-5)


def test_the_variants_and_spans_are_different_numbers() -> None:
    _, trials = trials_of(tiny("llama"), 20, BASE)
    for trial in trials:
        said = [tuple(found) for found in trial.geometry.values() if found]
        assert len(set(said)) == len(said)


@pytest.mark.parametrize(("tokens", "there"), [(16, False), (17, True)])
def test_a_window_of_generated_tokens_needs_sixteen_that_were_read(
    tokens: int, there: bool
) -> None:
    _, trials = trials_of(tiny("llama"), tokens, BASE)
    for trial in trials:
        assert (trial.geometry["uncentred/generated"] is not None) is there


def test_a_window_ends_where_its_own_row_stopped() -> None:
    """Rows of one batch stop at different steps; what they go on with is not measured."""
    model = replace(tiny("llama"))
    model.__dict__["stop_ids"] = frozenset(range(0, 97, 20))
    runner, trials = trials_of(model, 40, BASE, SOURCE)
    lengths = {len(trial.tokens) for trial in trials}
    assert len(lengths) > 2
    measured = 0
    for trial in trials:
        arm = BASE if trial.arm == "base" else SOURCE
        prompt = runner.rows.start(arm, number_task(LENGTHS).pairs[trial.pair_index])
        found = trial.geometry["uncentred/generated"]
        if len(trial.tokens) < 17:
            assert found is None
            continue
        measured += 1
        values = values_of(model, [*prompt, *trial.tokens[:-1]])
        end = len(prompt) + len(trial.tokens) - 1
        assert found == pytest.approx(ratios(values, end, "uncentred"), rel=1e-5)
    assert measured


def test_of_a_patched_row_it_is_that_of_what_was_pasted() -> None:
    """Measured where patched: the window holds the donor's rows, as FACTS 4 warns."""
    model = tiny("llama")
    runner, trials = trials_of(model, 4, BASE, SOURCE, patched(PATCH))
    by_arm = {(trial.arm, trial.pair_index, trial.seed): trial.geometry for trial in trials}
    pair = number_task(LENGTHS).pairs[1]
    source, base = (values_of(model, runner.rows.tokens(p)) for p in (pair.source, pair.base))
    pasted = torch.cat([base[1][:-5], source[1][-5:]])
    found = by_arm[patched(PATCH).id, 1, 0]["uncentred/prompt"]
    assert found[1] == pytest.approx(participation_ratio(pasted[-16:]), rel=1e-5)
    plain = by_arm["base", 1, 0]["uncentred/prompt"]
    assert found[0] == pytest.approx(plain[0], rel=1e-6)
    assert all(abs(found[layer] - plain[layer]) > 1e-4 for layer in (1, 2, 3))


def test_scores_read_their_layer_variant_and_span() -> None:
    _, trials = trials_of(tiny("llama"), 20, BASE)
    trial = next(t for t in trials if t.geometry["centred/prompt"])
    geometry = trial.geometry
    for text, wanted in {
        "pr@27/32": geometry["uncentred/prompt"][3],
        "pr@1": geometry["uncentred/prompt"][1],
        "pr-centred@2/generated": geometry["centred/generated"][2],
        "pr-unsquared@0": geometry["unsquared/prompt"][0],
        "rv": geometry["uncentred/prompt"][3] / geometry["uncentred/prompt"][0],
        "rv-centred/generated": geometry["centred/generated"][3] / geometry["centred/generated"][0],
    }.items():
        assert geometry_score(trial, Outcome.parse(text), 4) == pytest.approx(wanted), text


def test_a_window_that_does_not_fit_has_no_number() -> None:
    _, trials = trials_of(tiny("llama"), 4, SOURCE)
    short = [trial for trial in trials if trial.prompt_tokens == 15]
    assert short
    for trial in short:
        assert math.isnan(geometry_score(trial, Outcome.parse("pr@1"), 4))
        assert math.isnan(geometry_score(trial, Outcome.parse("rv/generated"), 4))


def slab_of(values: torch.Tensor) -> Slab:
    """One row of 20 prompt tokens, of which 19 are cached, one layer of one head."""
    tensor = values[None, None]
    return Slab([tensor.clone()], [tensor], slots=19, lengths=torch.tensor([20]))


@pytest.mark.parametrize(
    ("values", "uncentred", "centred"),
    [
        (torch.zeros(40, 8), None, None),
        (torch.ones(40, 8), 1.0, None),
        (torch.eye(40), 16.0, 15.0),
    ],
    ids=["zeros", "all-alike", "identity"],
)
def test_an_undefined_ratio_is_none_and_stops_no_other(
    values: torch.Tensor, uncentred: float | None, centred: float | None
) -> None:
    (found,) = geometry_of(slab_of(values.double()), [20])
    for span in ("prompt", "generated"):
        assert found[f"uncentred/{span}"] == [pytest.approx(uncentred) if uncentred else None]
        assert found[f"centred/{span}"] == [pytest.approx(centred) if centred else None]


def test_numbers_are_plain_and_of_nine_digits() -> None:
    values = torch.randn(40, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (found,) = geometry_of(slab_of(values), [20])
    ((ratio,),) = [found["uncentred/prompt"]]
    assert type(ratio) is float
    assert ratio == float(f"{ratio:.9g}")
    assert ratio == pytest.approx(participation_ratio(values[4:20]), rel=1e-8)
