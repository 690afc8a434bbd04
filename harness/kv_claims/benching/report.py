"""The reference work, timed and held against its limit, as lines, JSON and a figure."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from kv_claims.benching.growth import growth
from kv_claims.benching.limit import limit_of, measure_machine
from kv_claims.benching.reference import Reference
from kv_claims.benching.timing import in_turn
from kv_claims.models.load import load_model
from kv_claims.tasks.task import Task


def reference(
    tokens: int, rounds: int, *, with_growth: bool = False, on: tuple[str, Task] | None = None
) -> dict[str, Any]:
    """Time the ways to do the reference work in turn, on one thread.

    on: the name of a model, and the task of which its prompts are made; None for the reference's.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if on is None:
            return _reference(Reference(tokens), rounds, with_growth)
        name, task = on
        texts = [prompt.text for prompt in (*task.bases, *task.sources)]
        work = Reference(tokens, model=load_model(name), texts=texts)
        return _reference(work, rounds, with_growth)
    finally:
        torch.set_num_threads(threads)


def _reference(work: Reference, rounds: int, with_growth: bool) -> dict[str, Any]:
    tokens = work.tokens
    same = work.engine() == work.engine("plain")
    few = 4
    timed = in_turn(
        {
            "bare": work.bare_loop,
            "plain": lambda: work.engine("plain"),
            "engine": work.engine,
            "one": lambda: work.one_at_a_time(few),
        },
        rounds,
    )
    config = work.model.config
    machine = measure_machine(config.hidden_size, config.intermediate_size)
    limit = limit_of(work, machine)
    ratio = timed.ratio("bare", "engine")
    best = {name: min(seconds) for name, seconds in timed.seconds.items()}
    by_one = timed.ratio("one", "engine")._asdict()
    by_one = {name: value * work.trials / few for name, value in by_one.items()}
    lines = [
        f"reference work on {work.model.name}: {work.trials} trials, {tokens}-token prompts, "
        f"{work.new_tokens} tokens, one thread, CPU seconds, "
        f"best of {rounds}, medians of ratios within a round",
        f"engine, shared prompts       {best['engine']:7.2f} s  {work.trials / best['engine']:6.1f}"
        f" trials/s  {ratio.median:.2f} x the bare loop ({ratio.least:.2f} to {ratio.most:.2f})",
        f"engine, plain route           {best['plain']:7.2f} s  {work.trials / best['plain']:6.1f}"
        f" trials/s  {timed.ratio('bare', 'plain').median:.2f} x",
        f"unpatched bare decode loop   {best['bare']:7.2f} s  {work.trials / best['bare']:6.1f}"
        " trials/s  1.00 x",
        f"one trial at a time          {best['one'] * work.trials / few:7.2f} s "
        f" {few / best['one']:6.1f} trials/s; the engine is {by_one['median']:.1f} x as fast",
        f"limit here: {limit.total:.2f} s (prefill {limit.prefill:.2f}; decode "
        f"{limit.decode_macs:.2f} of multiply-adds at {machine.macs / 1e9:.0f} G/s, "
        f"{limit.decode_bytes:.2f} of bytes at {machine.bytes / 1e9:.1f} GB/s); "
        f"the engine takes {best['engine'] / limit.total:.2f} of it",
        f"tokens of both routes are {'the same' if same else 'NOT the same'}",
    ]
    result: dict[str, Any] = {
        "model": work.model.name,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "prompt_tokens": tokens,
        "rounds": rounds,
        "cpu_seconds": timed.seconds,
        "ratio": ratio._asdict(),
        "ratio_to_one_at_a_time": by_one,
        "limit": {**limit._asdict(), "total": limit.total, **machine._asdict()},
        "same_tokens": same,
    }
    if with_growth:
        grown = growth(tokens)
        result["growth"] = {name: [one._asdict() for one in some] for name, some in grown.items()}
        for name, some in grown.items():
            lines.append(f"growth in {name}: pairs, arms, trials, CPU s, MiB at first, at most")
            lines += [
                f"{one.pairs:6} {one.arms:5} {one.trials:7} {one.seconds:8.1f} {one.start:6.0f} "
                f"{one.peak:6.0f}"
                for one in some
            ]
    return {"lines": lines, **result}


def write(result: dict[str, Any], out: Path) -> list[Path]:
    """bench.json, and a figure of the growth where it was measured."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "bench.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if "growth" not in result:
        return [path]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    time_axes, memory_axes = figure.subplots(1, 2)
    for name, some in result["growth"].items():
        trials = [one["trials"] for one in some]
        time_axes.plot(trials, [one["seconds"] for one in some], marker="o", label=f"more {name}")
        memory_axes.plot(trials, [one["peak"] for one in some], marker="o", label=f"more {name}")
    for axes, what in ((time_axes, "CPU seconds"), (memory_axes, "peak MiB of the process")):
        axes.set(xlabel="trials", ylabel=what, xlim=(0, None), ylim=(0, None))
        axes.legend()
    figure.tight_layout()
    figure.savefig(out / "growth.svg")
    return [path, out / "growth.svg"]
