"""How fast the parts are: `make bench`. In `make test` they run once, to see that they work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kv_claims import Region, judge
from kv_claims.benching.reference import Reference
from kv_claims.claims.patch import Patch
from kv_claims.claims.positions import resolve_window
from kv_claims.evidence.stored import load_run
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import rotation_of
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.report.render import render_reports
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, patched
from kv_claims.run.geometry import geometry_of
from kv_claims.run.ledger import Ledger
from kv_claims.run.routes import Kind
from kv_claims.run.runner import Runner
from kv_claims.run.sampling import choose
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.table import trials_frame
from kv_claims.tasks.task import Task

Benchmark = Callable[..., Any]


def test_prefill_of_80_prompts(
    benchmark: Benchmark, stored: LoadedModel, stored_task: Task
) -> None:
    prompts = [
        stored.encode(p.text) for pair in stored_task.pairs for p in (pair.source, pair.base)
    ]

    def prefill() -> PromptStore:
        store = PromptStore(stored)
        store.add(prompts)
        return store

    assert len(benchmark(prefill).tokens) == 80


def test_splice_of_400_rows(benchmark: Benchmark, stored: LoadedModel, stored_task: Task) -> None:
    store = PromptStore(stored)
    plans = []
    for pair in stored_task.pairs:
        source, base = stored.encode(pair.source.text), stored.encode(pair.base.text)
        store.add([source, base])
        window = resolve_window("last(32)", len(source), len(base))
        write = Write(store.index(source), "kv", (9, 12), window)
        plans.append(RowPlan(store.index(base), len(base), (write,)))
    rotation = rotation_of(stored.network)
    built = benchmark(build, store, plans * 10, rotation, headroom=50)
    assert all(footprint.changed for footprint in built.footprints)


@pytest.mark.parametrize("kind", ["shared", "plain"])
def test_decode_of_128_rows(benchmark: Benchmark, kind: Kind) -> None:
    work = Reference(24, pairs=16, new_tokens=10)
    assert len(benchmark(lambda: work.engine(kind))) == 128


@pytest.mark.parametrize("temperature", [0.7, 0.0], ids=["sampled", "greedy"])
def test_sampling_of_512_rows(benchmark: Benchmark, temperature: float) -> None:
    logits = torch.randn(512, 1000, generator=torch.Generator().manual_seed(0))
    uniform = torch.full((512,), 0.5, dtype=torch.float64)
    assert len(benchmark(choose, logits, uniform, temperature).tokens) == 512


def test_geometry_of_40_rows(benchmark: Benchmark, stored: LoadedModel, stored_task: Task) -> None:
    store = PromptStore(stored)
    prompts = [stored.encode(pair.base.text) for pair in stored_task.pairs]
    store.add(prompts)
    plans = [RowPlan(store.index(prompt), len(prompt)) for prompt in prompts]
    slab = build(store, plans, None, headroom=20, shared=True).slab
    assert len(benchmark(geometry_of, slab, [20] * len(plans))) == 40


@pytest.mark.parametrize("pairs", [10, 20, 40])
def test_study_of_three_arms(
    benchmark: Benchmark, stored: LoadedModel, stored_task: Task, pairs: int
) -> None:
    arms = [BASE, SOURCE, patched(Patch("kv", "12", "last(32)"))]

    def study() -> int:
        runner = Runner(stored, stored_task, Sampling(20), Ledger())
        return len(runner.run(arms, stored_task.first_pairs(pairs), [0]))

    assert benchmark(study) == 3 * pairs


def test_table_of_120_trials(benchmark: Benchmark, stored: LoadedModel, stored_task: Task) -> None:
    runner = Runner(stored, stored_task, Sampling(20), Ledger())
    trials = runner.run([BASE, SOURCE, FULL_SWAP], stored_task.pairs, [0])
    assert len(benchmark(trials_frame, trials, stored_task)) == 120


def test_verdict_on_200_pairs(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1, 1, 200)
    scores = {"base": base, "source": base + 5 + rng.normal(0, 1, 200), "patched": base + 4}
    frame = pd.DataFrame(
        [
            {"pair": pair, "arm": arm, "seed": 0, "score": score}
            for arm, some in scores.items()
            for pair, score in enumerate(some)
        ]
    )
    assert benchmark(judge, frame, Region(0.7, 0.9)).word == "supported"


def test_report_of_a_claim_of_each_kind(benchmark: Benchmark, a_run: Path) -> None:
    run = load_run(a_run)
    assert set(benchmark(render_reports, run)) == {"report.md", "report.html"}
