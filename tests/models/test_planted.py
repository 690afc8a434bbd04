"""Planted models do what their closed form says, word for word and patch for patch."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UsageError
from harness.judging.instrument import near_ties
from harness.models.load import LoadedModel, load_model
from harness.models.planted.build import build_planted, save_planted
from harness.models.planted.catalog import CATALOG, N_LAYERS
from harness.models.planted.prompts import planted_task
from harness.models.planted.truth import Donor, expected_means, true_transfer
from harness.models.planted.words import MARKERS, PLAIN, TRIGGERS
from harness.run.arms import BASE, SOURCE, Arm, controls, patched
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.spec import Patch
from harness.tasks.scorers import words_of

SAMPLING = Sampling(max_new_tokens=12)
CELLS = [
    Patch("kv", layers, positions)
    for layers in ("9", "12", "13", "12+13")
    for positions in ("last(16)", "last(32)")
]
OTHER_CELLS = [
    Patch("v", "all", "last(20)"),
    Patch("k", "all", "last(20)"),
    Patch("kv", "0:16", "first(25%)"),
    Patch("kv", "9+12", "first(10)"),
    Patch("kv", "12", "all"),
    Patch("kv", "all", "all"),
]


def test_word_classes_are_disjoint_and_large() -> None:
    assert len(MARKERS) == len(PLAIN) >= 100
    assert len(set(MARKERS) | set(PLAIN) | set(TRIGGERS)) == 2 * len(PLAIN) + len(TRIGGERS)
    assert all(words_of(word) == [word] for word in (*MARKERS, *PLAIN, *TRIGGERS))


def marker_share(model: LoadedModel, logits: torch.Tensor) -> torch.Tensor:
    """Probability that the next word is a marker, by the network itself, `[step]`."""
    markers = [model.encode(word)[0] for word in MARKERS]
    return torch.softmax(logits.double() / SAMPLING.temperature, -1)[:, markers].sum(-1)


def expected_by_network(model: LoadedModel, arm: Arm, n_pairs: int) -> float:
    """Mean of the network's own marker probabilities along generated rows, per 100 words.

    Probabilities do not depend on what was drawn, so there is no sampling noise in them.
    """
    assert model.planted is not None
    task = planted_task(model.planted, n_pairs)
    runner = Runner(model, task, SAMPLING, Ledger())
    from harness.run import runner as module

    seen = []
    real = module.decode

    def spy(*args: object, **options: object) -> object:
        n_rows = len(args[2])  # type: ignore[arg-type]
        decoded = real(*args, **{**options, "keep": range(n_rows)})  # type: ignore[arg-type]
        seen.extend(marker_share(model, decoded.logits[row]) for row in range(n_rows))
        return decoded

    module.decode = spy  # type: ignore[assignment]
    try:
        runner.run([arm], task.pairs, [0])
    finally:
        module.decode = real
    return float(100 * torch.stack(seen[:n_pairs]).mean())


@pytest.mark.parametrize("patch", [*CELLS[3:5], *OTHER_CELLS], ids=str)
@pytest.mark.parametrize("name", CATALOG)
def test_closed_form_equals_the_network(name: str, patch: Patch) -> None:
    model = load_model(f"planted:{name}", device="cpu")
    assert model.planted is not None
    task = planted_task(model.planted, 6)
    truth = expected_means(model.planted, patch, task, max_new_tokens=12, over="pairs")
    assert expected_by_network(model, patched(patch), 6) == pytest.approx(truth.patched, abs=2e-4)
    if patch is CELLS[3]:
        assert expected_by_network(model, BASE, 6) == pytest.approx(truth.base, abs=2e-4)
        assert expected_by_network(model, SOURCE, 6) == pytest.approx(truth.source, abs=2e-4)


@pytest.mark.parametrize("name", ["stored-at-layer", "distributed", "early-tokens"])
def test_noise_truth_equals_the_network(name: str) -> None:
    """The average over noise, which is normal only nearly, to a tenth of the margin's half."""
    model = load_model(f"planted:{name}", device="cpu")
    assert model.planted is not None
    patch = Patch("kv", "all", "last(32)")
    arm = controls(patch, N_LAYERS, about_layer=False)["noise"]
    truth = expected_means(
        model.planted, patch, planted_task(model.planted), donor="noise", max_new_tokens=12
    )
    found = expected_by_network(model, arm, 250)
    assert found == pytest.approx(truth.patched, abs=0.005 * (truth.source - truth.base) + 0.4)


@pytest.mark.parametrize("name", ["stored-at-layer", "distributed", "early-tokens"])
@pytest.mark.parametrize("patch", CELLS, ids=str)
def test_controls_stay_well_inside_the_margin(name: str, patch: Patch) -> None:
    planted = CATALOG[name]
    task = planted_task(planted)
    donors: tuple[Donor, ...] = ("noise", "unrelated-base")
    for donor in donors:
        assert abs(true_transfer(planted, patch, task, donor=donor)) < 0.05


def test_full_swap_transfers_all_and_keys_alone_nothing() -> None:
    for planted in CATALOG.values():
        task = planted_task(planted, 10)
        swap = true_transfer(planted, Patch("kv", "all", "all"), task)
        keys = true_transfer(planted, Patch("k", "all", "last(32)"), task)
        if planted.gain:
            assert (swap, keys) == (1.0, 0.0)
        else:
            assert math.isnan(swap)


def test_transfer_is_linear_in_the_signal_for_small_gains() -> None:
    """Twice the positions of a weak signal carry twice the transfer, whatever the model."""
    planted = CATALOG["distributed"]
    task = planted_task(planted, 10)
    one = true_transfer(planted, Patch("kv", "3", "last(8)"), task)
    two = true_transfer(planted, Patch("kv", "3", "last(16)"), task)
    assert two == pytest.approx(2 * one, rel=0.03)


def test_population_truth_is_the_mean_over_many_pairs() -> None:
    planted = CATALOG["early-tokens"]
    task = planted_task(planted, 3000)
    patch = Patch("kv", "9", "last(32)")
    population = true_transfer(planted, patch, task)
    assert true_transfer(planted, patch, task, over="pairs") == pytest.approx(population, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "known above 0 only"),
        ({"task": "another"}, "not drawn from the population"),
    ],
    ids=["greedy", "foreign-task"],
)
def test_truth_is_refused_where_it_is_not_known(change: dict[str, object], message: str) -> None:
    planted = CATALOG["stored-at-layer"]
    task = planted_task(planted if "task" not in change else CATALOG["inert"], 10)
    with pytest.raises(UsageError, match=message):
        true_transfer(
            planted,
            CELLS[0],
            task,
            temperature=float(change.get("temperature", 0.7)),  # type: ignore[arg-type]
        )


def test_tasks_are_stable_and_never_repeat_a_prompt() -> None:
    planted = CATALOG["stored-at-layer"]
    few, many = planted_task(planted, 20), planted_task(planted, 300)
    assert [pair.id for pair in few.pairs] == [pair.id for pair in many.pairs[:20]]
    texts = [prompt.text for prompt in (*many.sources, *many.bases)]
    assert len(set(texts)) == 600
    lengths = np.array([len(text.split()) for text in texts])
    assert (lengths.min(), lengths.max()) == (36, 44)


def test_a_model_is_built_in_well_under_a_second() -> None:
    # A bound for a broken build, ten times what it takes; speed itself is in benchmarks/.
    started = time.process_time()
    build_planted(CATALOG["distributed"])
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", CATALOG)
def test_a_saved_folder_is_an_ordinary_model(name: str, tmp_path: Path) -> None:
    save_planted(CATALOG[name], tmp_path)
    folder = load_model(str(tmp_path), device="cpu", dtype="float64")
    memory = load_model(f"planted:{name}", device="cpu")
    assert folder.planted is None
    text = planted_task(CATALOG[name], 1).pairs[0].source.text
    ids = folder.encode(text)
    assert ids == memory.encode(text)
    assert len(ids) == len(text.split())
    with torch.no_grad():
        found, wanted = (m.network(torch.tensor([ids])).logits for m in (folder, memory))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_generated_text_reads_as_words(stored: LoadedModel) -> None:
    assert stored.planted is not None
    task = planted_task(stored.planted, 4)
    trials = Runner(stored, task, SAMPLING, Ledger()).run([BASE, SOURCE], task.pairs, [0])
    for trial in trials:
        assert len(words_of(trial.text)) == len(trial.tokens) == 12
        assert set(trial.text.split()) <= set(MARKERS) | set(PLAIN)
    assert near_ties(trials, 0.0) == 0
