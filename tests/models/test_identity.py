"""A network's hash is of what is in memory: whatever is edited there is another model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models import identity
from kv_claims.models.identity import foreign, stamp, weights_sha
from kv_claims.models.load import LoadedModel
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.scripting import run_study
from kv_claims.tasks.task import Task
from tests.models.architectures import CONFIGS, tiny

Edit = Callable[[Any], object]


class _Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def _in_place(network: Any) -> None:
    with torch.no_grad():
        network.model.layers[1].self_attn.v_proj.weight[3, 5] += 1e-9


def _by_data(network: Any) -> None:
    network.model.layers[1].self_attn.v_proj.weight.data[3, 5] += 1e-9


def _another_parameter(network: Any) -> None:
    network.model.norm.weight = nn.Parameter(network.model.norm.weight + 1.0)


def _a_buffer(network: Any) -> None:
    network.model.rotary_emb.inv_freq.mul_(0.5)


def _an_epsilon(network: Any) -> None:
    network.model.layers[0].input_layernorm.variance_epsilon = 1e-2


def _another_class(network: Any) -> None:
    network.model.layers[0].mlp.act_fn = nn.GELU()


def _a_parametrization(network: Any) -> None:
    parametrize.register_parametrization(network.model.norm, "weight", _Double())


def _a_hook(network: Any) -> None:
    network.model.layers[0].register_forward_hook(lambda *_: None)


def _a_forward(network: Any) -> None:
    network.model.norm.forward = lambda x: x


EDITS: dict[str, Edit] = {
    "in-place": _in_place,
    "by-data": _by_data,
    "another-parameter": _another_parameter,
    "a-buffer": _a_buffer,
    "an-epsilon": _an_epsilon,
    "another-class": _another_class,
    "training": lambda network: network.train(),
    "configuration": lambda network: setattr(network.config, "sliding_window", 4),
    "another-dtype": lambda network: network.to(torch.bfloat16),
    "a-parametrization": _a_parametrization,
    "a-hook": _a_hook,
    "a-forward": _a_forward,
}


@pytest.fixture
def network() -> Any:
    return tiny("llama").network


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_whatever_is_edited_in_memory_is_another_model(edit: Edit, network: Any) -> None:
    before, glanced = weights_sha(network), stamp(network)
    edit(network)
    assert weights_sha(network) != before
    assert stamp(network) != glanced


def test_a_copy_is_the_same_model(network: Any) -> None:
    assert weights_sha(copy.deepcopy(network)) == weights_sha(network)


@pytest.mark.parametrize("name", CONFIGS)
def test_running_a_model_does_not_change_it(name: str) -> None:
    network = tiny(name).network
    before, glanced = weights_sha(network), stamp(network)
    # Beyond the length at which frequencies of some models change.
    with torch.no_grad():
        network(input_ids=torch.ones(1, 200, dtype=torch.long) if name != "gpt2" else _SHORT)
    assert weights_sha(network) == before
    assert stamp(network) == glanced


_SHORT = torch.ones(1, 8, dtype=torch.long)


@pytest.mark.parametrize(
    "name", ["transformers_version", "_name_or_path", "eos_token_id", "pad_token_id", "dtype"]
)
def test_what_decides_no_number_is_not_hashed(name: str, network: Any) -> None:
    before = weights_sha(network)
    setattr(network.config, name, torch.float16 if name == "dtype" else 7)
    assert weights_sha(network) == before


def test_a_large_tensor_is_hashed_whole_and_glanced_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_CHUNK", 1000)
    layer = nn.Linear(1024, 1024, bias=False)
    before, glanced = weights_sha(layer), stamp(layer)
    # Between two pieces, and past torch's count of writes: the one thing that a glance may miss.
    layer.weight.data.view(-1)[30_000] += 1.0
    assert weights_sha(layer) != before
    assert stamp(layer) == glanced
    layer.weight.data.view(-1)[-1] += 1.0
    assert stamp(layer) != glanced
    glanced = stamp(layer)
    with torch.no_grad():
        layer.weight.view(-1)[30_000] += 1.0
    assert stamp(layer) != glanced


def test_a_network_that_is_not_in_memory_has_no_hash() -> None:
    with pytest.raises(UsageError, match="is not in memory"):
        weights_sha(nn.Linear(2, 2, device="meta"))


def test_hooks_of_the_libraries_are_not_foreign(network: Any) -> None:
    assert foreign(network) == []
    network.model.norm.register_forward_hook(nn.functional.relu)
    assert foreign(network) == []
    network.model.norm.register_forward_pre_hook(_a_forward)
    assert [one.rpartition(".")[2] for one in foreign(network)] == ["_a_forward"]


@pytest.fixture
def unhooked() -> Iterator[None]:
    yield
    nn.modules.module._global_forward_hooks.clear()


@pytest.mark.usefixtures("unhooked")
def test_hooks_on_every_module_are_seen(network: Any) -> None:
    before = weights_sha(network)
    nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert weights_sha(network) != before


def _study(model: LoadedModel, task: Task, ledger: Path | None) -> list[str]:
    arms = {"p": Patch("kv", layers="all", positions="last(4)")}
    found = run_study(model, task, arms, pairs=4, max_new_tokens=6, ledger=ledger)
    return list(found["text"])


def test_weights_edited_between_two_studies_of_one_ledger_give_new_trials(
    stored_task: Task, stored: LoadedModel, tmp_path: Path
) -> None:
    model = copy.deepcopy(stored)
    first = _study(model, stored_task, tmp_path)
    assert _study(model, stored_task, tmp_path) == first
    lines = (tmp_path / "main.jsonl").read_text().count("\n")
    model.network.lm_head.weight.data.copy_(model.network.lm_head.weight.flip(0))
    second = _study(model, stored_task, tmp_path)
    assert second != first
    assert second == _study(model, stored_task, None)
    assert (tmp_path / "main.jsonl").read_text().count("\n") == 2 * lines


def test_weights_edited_during_a_study_end_it(stored_task: Task, stored: LoadedModel) -> None:
    model = copy.deepcopy(stored)
    runner = Runner(model, stored_task, Sampling(4, 0.7), Ledger())
    from kv_claims.run.arms import BASE

    pairs = stored_task.first_pairs(2)
    runner.run([BASE], pairs, [0])
    model.network.model.norm.weight.data.mul_(1.5)
    with pytest.raises(UsageError, match="changed after this study was opened"):
        runner.run([BASE], pairs, [0])


def test_trials_of_a_network_with_hooks_are_not_kept(
    stored_task: Task, stored: LoadedModel, tmp_path: Path
) -> None:
    model = copy.deepcopy(stored)
    model.network.model.norm.register_forward_hook(lambda *_: None)
    with pytest.raises(UsageError, match=r"hooks \(model.norm: .*cannot be hashed.*no ledger"):
        _study(model, stored_task, tmp_path)
    assert len(_study(model, stored_task, None)) == 12
