"""A user's model on a user's machine: trials a second at several batch sizes, and what follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import load_model
from kv_claims.models.task import task_for
from kv_claims.plugin.profiles import PROFILES
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.code import CodeFrom

SIZES = (1, 8, 32, 64, 128, 256, 512)
STEPS = 16


def measure(
    name: str,
    *,
    task_file: Path | None,
    chat: bool,
    device: str | None,
    dtype: str | None,
    max_new_tokens: int | None,
    temperature: float,
    n_pairs: int,
    arms: int,
    root: Path,
) -> dict[str, Any]:
    """Batch sizes and their speed, the best one, and estimates for studies of so many arms.

    root: of the project, whose code a task file may name. max_new_tokens: of a study; None for
        what each profile has.
    """
    sampling = Sampling(STEPS if max_new_tokens is None else max_new_tokens, temperature)
    model = load_model(name, device=device, dtype=dtype)
    if model.planted is not None:
        # As `pytest claims` does: sharing so small a matrix out costs more than it gives.
        torch.set_num_threads(1)
    code = CodeFrom(root) if task_file else None
    task = task_for(name, task_file, n_pairs, chat=chat, code=code)
    pairs = task.first_pairs(n_pairs)
    some = [BASE, SOURCE, *(patched(Patch("kv", str(k), "last(8)")) for k in range(model.n_layers))]
    some = some[:arms]
    runner = Runner(model, task, sampling, Ledger())
    runner.check(some, pairs)
    started = time.perf_counter()
    runner.prefill([(pair, arm) for pair in pairs for arm in some])
    a_prompt = (time.perf_counter() - started) / len(runner.store.tokens)
    works = [(pair, arm, 0) for pair in pairs for arm in some]
    speeds: dict[int, float] = {}
    for rows in SIZES:
        if rows > runner.rows_at_once() or rows > 2 * len(works):
            break
        seconds = _seconds(runner, works[:rows])
        speeds[rows] = min(rows, len(works)) * sampling.max_new_tokens / seconds
        if seconds > 60:
            break
    if not speeds:
        raise UsageError(f"bench: {name} fits no row into memory")
    best = max(speeds, key=lambda rows: speeds[rows])
    studies = {
        name: (one.pairs, one.seeds, max_new_tokens or one.max_new_tokens)
        for name, one in PROFILES.items()
    }
    estimates = {
        profile: 2 * n * a_prompt + n * seeds * arms * tokens / speeds[best]
        for profile, (n, seeds, tokens) in studies.items()
    }
    route = runner.route
    lines = [
        f"{model.name}, {model.dtype_name} on {model.device}, decoded by the {route.kind} route"
        + (f" ({route.reason})" if route.reason else ""),
        f"a prompt takes {1e3 * a_prompt:.1f} ms",
        "rows of a batch   tokens/s   trials/s of 50 tokens",
        *(f"{rows:15}   {speed:8.1f}   {speed / 50:8.2f}" for rows, speed in speeds.items()),
        f"best: --claims-batch-size {best}",
        f"one claim of {arms} arms takes about, checks and tables not counted:",
        *(
            f"  {profile:8} {_span(seconds):>8}  ({n} pairs, {seeds} seeds, {tokens} tokens)"
            for (profile, seconds), (n, seeds, tokens) in zip(
                estimates.items(), studies.values(), strict=True
            )
        ),
    ]
    return {
        "lines": lines,
        "model": model.name,
        "route": route._asdict(),
        "tokens_per_second": speeds,
        "best_batch_size": best,
        "seconds_a_prompt": a_prompt,
        "estimated_seconds": estimates,
    }


def _seconds(runner: Runner, works: list[Any]) -> float:
    """Seconds of a batch, its second time."""
    best = 0.0
    for _ in range(2):
        started = time.perf_counter()
        runner.decode_only(works)
        best = time.perf_counter() - started
    return best


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
