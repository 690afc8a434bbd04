"""Each instrument check is seen to fail: the defect goes into the real pipeline, not into a mock.

And the reverse: without the defect every check passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.claim import Claim, Region
from harness.evidence import Evidence
from harness.judging.checks import INSTRUMENT_CHECKS
from harness.models.load import LoadedModel
from harness.models.rotary import Rotation
from harness.patch import splice, store
from harness.run import runner
from harness.run.arms import FULL_SWAP, Arm
from harness.run.ledger import Ledger
from harness.run.rows import Rows
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.run.trial import Trial
from harness.spec import Patch
from harness.study import ModelStudy
from harness.tasks.task import Pair, Task
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

CLAIM = Claim("c", says="s", cites="c", transfer=Region(0.7, 0.9), about="layer")
PATCH = Patch("kv", "1", "last(6)")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny("llama")


def judged(model: LoadedModel, task: Task | None = None) -> Evidence:
    made = Runner(model, task or number_task(), Sampling(6), Ledger())
    return ModelStudy(made, n_pairs=12, n_seeds=1).judge(CLAIM, "cell", PATCH)[0]


def failed(evidence: Evidence) -> set[str]:
    """Names of the instrument checks that did not pass."""
    names = {check["name"] for check in evidence.checks if check["passed"] is not True}
    return names & set(INSTRUMENT_CHECKS)


def test_without_a_defect_every_check_passes(model: LoadedModel) -> None:
    evidence = judged(model)
    assert failed(evidence) == set()
    assert {check["name"] for check in evidence.checks} >= set(INSTRUMENT_CHECKS)


def self_patch_that_changes(patch: pytest.MonkeyPatch) -> None:
    """A rotation that is not exact at 0."""
    real = Rotation.__call__

    def inexact(self: Rotation, keys: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return real(self, keys, shift + 0.01)

    patch.setattr(Rotation, "__call__", inexact)


def last_token_twice(patch: pytest.MonkeyPatch) -> None:
    """The store caches the whole prompt: the last token is then fed on top of itself."""
    real = store.PromptStore._prefill

    def whole(self: store.PromptStore, prompts: list[tuple[int, ...]]) -> Any:
        # One token more is prefilled; the oldest slot goes, so that the lengths still look right.
        found = real(self, [(*prompt, prompt[-1]) for prompt in prompts])
        return {name: [tensor[:, :, 1:] for tensor in some] for name, some in found.items()}

    patch.setattr(store.PromptStore, "_prefill", whole)


def keys_not_rotated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rotation, "__call__", lambda _self, keys, _shift: keys)


def hook_that_never_fires(patch: pytest.MonkeyPatch) -> None:
    """A guard that no batch passes, like the seed's 'at least 16 rows': nothing is written."""
    patch.setattr(splice, "_alike", lambda _plans: [])


def write_that_misses(patch: pytest.MonkeyPatch) -> None:
    """The write goes into a copy of the cache: the counts look right, the generation is not."""
    real = splice._write

    def into_a_copy(slab: splice.Slab, *args: Any) -> Any:
        keys, values = ([t.clone() for t in some] for some in (slab.keys, slab.values))
        return real(splice.Slab(keys, values, slab.slots, slab.lengths), *args)

    patch.setattr(splice, "_write", into_a_copy)


def write_into_the_store(patch: pytest.MonkeyPatch) -> None:
    """An arm that decodes on the prefilled tensors themselves."""
    real = splice._copy

    def aliased(layer: torch.Tensor, *args: Any) -> torch.Tensor:
        layer[:, :, -1:].mul_(1.0)
        return real(layer, *args)

    patch.setattr(splice, "_copy", aliased)


def control_that_is_the_patch(patch: pytest.MonkeyPatch) -> None:
    """'Noise' that returns what it was given."""
    patch.setattr(splice, "noise_like", lambda vectors, _stream: vectors)


def other_token_in_the_full_swap(patch: pytest.MonkeyPatch) -> None:
    """The base's last token is fed after the source's cache."""
    real = Rows.last_token

    def base_token(self: Rows, arm: Arm, pair: Pair) -> int:
        return self.tokens(pair.base)[-1] if arm == FULL_SWAP else real(self, arm, pair)

    patch.setattr(Rows, "last_token", base_token)


def changed_trials(change: Callable[[Trial], Trial | None]) -> Callable[[pytest.MonkeyPatch], None]:
    """A run whose trials come back changed, or not at all."""

    def inject(patch: pytest.MonkeyPatch) -> None:
        real = runner.Runner.run

        def run(self: Runner, *args: Any, **options: Any) -> list[Trial]:
            return [new for t in real(self, *args, **options) if (new := change(t)) is not None]

        patch.setattr(runner.Runner, "run", run)

    return inject


DEFECTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "self-patch": ("self-patch", self_patch_that_changes),
    "duplicate-last-token": ("duplicate-last-token", last_token_twice),
    "unrotated-keys": ("unrotated-keys", keys_not_rotated),
    "hook-never-fired": ("hook-never-fired", hook_that_never_fires),
    "write-that-misses": ("unrotated-keys", write_that_misses),
    "cache-aliasing": ("cache-aliasing", write_into_the_store),
    "vacuous-control": ("vacuous-control", control_that_is_the_patch),
    "full-swap": ("full-swap", other_token_in_the_full_swap),
    "silent-n": (
        "silent-n",
        changed_trials(lambda t: None if t.pair_index == 3 and t.arm.startswith("noise") else t),
    ),
    "prompt-drift": ("prompt-drift", changed_trials(lambda t: replace(t, base_sha="0" * 64))),
    "prompt-scored": (
        "prompt-scored",
        changed_trials(lambda t: replace(t, text="the prompt itself " + t.text)),
    ),
    "degenerate-text": (
        "degenerate-text",
        changed_trials(lambda t: replace(t, text="and so on " * 20)),
    ),
}


def test_every_check_has_a_defect_here() -> None:
    assert {name for name, _ in DEFECTS.values()} == set(INSTRUMENT_CHECKS)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_makes_the_verdict_invalid_by_name(
    defect: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, inject = DEFECTS[defect]
    inject(monkeypatch)
    evidence = judged(model)
    assert name in failed(evidence)
    assert evidence.verdict == "invalid"
    assert name in evidence.reason
