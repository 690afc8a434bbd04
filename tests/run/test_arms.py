"""Every kind of patch, on every architecture, against an oracle that shares none of its code."""

from __future__ import annotations

import pytest

from harness.models.load import LoadedModel
from harness.run.arms import BASE, SOURCE, Arm, canonical_arm, controls, patched
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.run.trial import Trial
from harness.spec import Patch
from tests.models.architectures import CONFIGS, tiny
from tests.run.test_runner import number_task

STEPS = 6
SITES = ("kv", "k", "v", "kv_proj", "k_proj", "v_proj", "residual")
TOLERANCE = 2e-5
"""transformers computes RoPE angles and RMSNorm in float32, whatever the dtype."""


def run(model: LoadedModel, *arms: Arm, seeds: int = 1, pairs: int = 3) -> dict[str, list[Trial]]:
    task = number_task()
    runner = Runner(model, task, Sampling(STEPS), Ledger())
    trials = runner.run([BASE, SOURCE, *arms], task.first_pairs(pairs), range(seeds))
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.arm, []).append(trial)
    return found


def moves_keys(patch: Patch) -> bool:
    return "k" in patch.tensors


PATCHES = [
    *(Patch(site, "1+3", "last(5)") for site in SITES),
    *(Patch(site, "2", "first(7)") for site in SITES),
    *(Patch(site, "all", "all", active="every_step") for site in SITES if site != "kv"),
    *(Patch(site, "1", "last(3)", active="every_step") for site in SITES),
    *(Patch(site, "1:3", "last(3)", active="every_step(held)") for site in SITES),
    *(Patch(site, "0", "first(25%)", active="every_step") for site in SITES),
    Patch("kv", "all", "last(4)", mode="append"),
    *(Patch(site, "1+2", "last(5)", mode="mix(0.3)") for site in ("kv", "k", "v")),
]


@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_an_arm_equals_the_oracle(name: str, patch: Patch) -> None:
    model = tiny(name)
    if name == "gpt2" and moves_keys(patch):
        pytest.skip("GPT-2's keys cannot be moved; the refusal has a test of its own")
    arm = patched(patch)
    found = run(model, arm, *controls(patch, 4, about_layer=True).values())
    trials = found[canonical_arm(arm, 4, model.n_kv_heads).id]
    for some in found.values():
        for trial in some:
            assert trial.oracle_error is None or trial.oracle_error < TOLERANCE, trial.arm
            assert trial.fired == trial.planned
            assert trial.fired_steps == trial.planned_steps
    assert all(trial.least_changed > 0 for trial in trials)
    assert sum(trial.oracle_error is not None for trial in trials) >= 2
    every_step = 0 if patch.active == "prompt" else STEPS - 1
    last_token = 0 if patch.is_splice or patch.positions.startswith("first") else 1
    per_step = len(patch.tensors) * (4 if patch.layers == "all" else len(arm_layers(patch)))
    assert trials[0].planned_steps == (every_step + last_token) * per_step
    assert patch.active == "prompt" or all(trial.changed_steps > 0 for trial in trials)


def arm_layers(patch: Patch) -> tuple[int, ...]:
    from harness.spec import resolve_layers

    return resolve_layers(patch.layers, 4)
