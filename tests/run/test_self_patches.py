"""What self-patches wrote is kept like trials: what is missing is made anew, and it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import Built, build
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import PromptStore
from kv_claims.run import self_patches
from kv_claims.run.arms import patched
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.self_patches import SelfPatches
from kv_claims.run.self_write import SelfWrite
from kv_claims.tasks.task import Task
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

ARMS = [
    patched(Patch("kv", "1+2", "last(4)")),
    patched(Patch("residual", "2", "last(2)")),
    patched(Patch("kv", "all", "last(4)", mode="append")),
    patched(Patch("k_proj", "1", "last(3)", active="every_step(held)")),
    patched((Patch("kv", "3", "last(4)"), Patch("v_proj", "1", "last(4)", active="every_step"))),
]
N = 6


def written(
    model: LoadedModel, folder: Path | None = None, *, task: Task | None = None, tokens: int = 4
) -> list[SelfWrite]:
    task = task or number_task()
    runner = Runner(model, task, Sampling(tokens), Ledger(folder), batch_size=2)
    return SelfPatches(runner).of(ARMS, task.first_pairs(N))


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return tiny("llama")


@pytest.fixture
def no_forward(monkeypatch: pytest.MonkeyPatch, llama: LoadedModel) -> pytest.MonkeyPatch:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(type(llama.network), "forward", never)
    return monkeypatch


def counted_rows(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[int]:
    """Rows of the batches written from now on; a kill comes before there are more than `most`."""
    rows: list[int] = []

    def counted(store: PromptStore, plans: list[RowPlan], *args: Any, **options: Any) -> Built:
        if most is not None and sum(rows) + len(plans) > most:
            raise KeyboardInterrupt
        rows.append(len(plans))
        return build(store, plans, *args, **options)

    monkeypatch.setattr(self_patches, "build", counted)
    return rows


def test_every_pair_of_every_arm_is_written_and_nothing_changes(llama: LoadedModel) -> None:
    found = written(llama)
    pairs = number_task().first_pairs(N)
    assert [(one.arm, one.pair, one.pair_index) for one in found] == [
        (arm.id, pair.id, pair.index) for arm in ARMS for pair in pairs
    ]
    assert len({one.key for one in found}) == len(found)
    # Layers x tensors: of the splice two of each; what is appended stands in all four layers.
    assert [one.fired for one in found[::N]] == [4, 1, 8, 1, 3]
    assert all(one.elements > 0 == one.beyond_rounding for one in found)
    assert all(one.store_unchanged for one in found)


@pytest.mark.usefixtures("no_forward")
def test_without_a_ledger_the_model_is_run(llama: LoadedModel) -> None:
    """So that the laws below can fail."""
    with pytest.raises(AssertionError, match="the model was run"):
        written(llama)


def test_what_the_ledger_has_is_found_without_a_forward_pass(
    llama: LoadedModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = written(llama, tmp_path)
    request.getfixturevalue("no_forward")
    assert written(llama, tmp_path) == first


def test_what_broke_off_goes_on_where_it_was(
    llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(llama)
    rows = counted_rows(monkeypatch, most=7)
    with pytest.raises(KeyboardInterrupt):
        written(llama, tmp_path)
    assert len(Ledger(tmp_path).self_patches) == sum(rows) == 6
    rest = counted_rows(monkeypatch)
    assert written(llama, tmp_path) == whole
    assert sum(rest) == len(whole) - 6


def test_a_line_that_cannot_be_read_is_named_and_its_write_alone_made_again(
    llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(llama, tmp_path)
    shard = tmp_path / "self-patches/main.jsonl"
    shard.write_text(shard.read_text().replace('"fired": 4', '"fired": 3', 1))
    rows = counted_rows(monkeypatch)
    (bad,) = Ledger(tmp_path).bad_lines
    assert "checksum" in bad.why
    assert (written(llama, tmp_path), rows) == (first, [1])


@pytest.mark.parametrize("what", ["weight", "prompt", "dtype", "tokens", "pair"])
def test_of_another_model_or_prompt_none_is_found(
    what: str, llama: LoadedModel, tmp_path: Path
) -> None:
    before = {one.key for one in written(llama, tmp_path)}
    model, task, tokens = llama, number_task(), 4
    if what == "weight":
        model = tiny("llama")
        with torch.no_grad():
            model.network.model.layers[3].mlp.up_proj.weight[0, 0] += 1e-3
    elif what == "dtype":
        model = tiny("llama", torch.float32)
    elif what == "tokens":
        tokens = 5
    else:
        first, *rest = task.sources if what == "prompt" else task.bases
        other = replace(first, text=f"{first.text} 7")
        side = "sources" if what == "prompt" else "bases"
        task = replace(task, **{side: (other, *rest)})
    after = {one.key for one in written(model, tmp_path, task=task, tokens=tokens)}
    assert not before & after
    assert len(Ledger(tmp_path).self_patches) == 2 * len(before)


def test_a_network_that_was_edited_meanwhile_is_refused_though_the_ledger_has_all(
    tmp_path: Path,
) -> None:
    model, task = tiny("llama"), number_task()
    runner = Runner(model, task, Sampling(4), Ledger(tmp_path))
    observed = SelfPatches(runner)
    observed.of(ARMS, task.first_pairs(N))
    with torch.no_grad():
        model.network.lm_head.weight.mul_(1.5)
    with pytest.raises(UsageError, match="was changed after this study was opened"):
        observed.of(ARMS, task.first_pairs(N))


def test_a_patch_that_does_not_fit_is_refused_before_a_prompt_is_run(
    llama: LoadedModel, no_forward: pytest.MonkeyPatch
) -> None:
    _ = no_forward
    task = number_task()
    too_wide = patched(Patch("kv", "1", "last(400)"))
    with pytest.raises(UsageError, match="last\\(400\\)"):
        SelfPatches(Runner(llama, task, Sampling(4), Ledger())).of([too_wide], task.first_pairs(N))
