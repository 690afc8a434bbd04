"""The reference work, timed and held against its limit, as lines, JSON and a figure."""

from __future__ import annotations

import json
import platform
import resource
from datetime import date
from pathlib import Path
from typing import Any

import torch

from harness.benching.limit import limit_of, measure_machine
from harness.benching.reference import Reference
from harness.benching.timing import in_turn


def reference(tokens: int, rounds: int, *, growth: bool = False) -> dict[str, Any]:
    """Time the ways to do the reference work in turn, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _reference(tokens, rounds, growth)
    finally:
        torch.set_num_threads(threads)


def _reference(tokens: int, rounds: int, growth: bool) -> dict[str, Any]:
    work = Reference(tokens)
    same = work.engine() == work.engine(shared=False)
    few = 4
    timed = in_turn(
        {
            "bare": work.bare_loop,
            "plain": lambda: work.engine(shared=False),
            "engine": work.engine,
            "one": lambda: work.one_at_a_time(few),
        },
        rounds,
    )
    machine = measure_machine()
    limit = limit_of(work, machine)
    ratio = timed.ratio("bare", "engine")
    best = {name: min(seconds) for name, seconds in timed.seconds.items()}
    by_one = timed.ratio("one", "engine")._asdict()
    by_one = {name: value * work.trials / few for name, value in by_one.items()}
    lines = [
        f"reference work: {work.trials} trials, {tokens}-token prompts, {work.new_tokens} tokens, "
        f"one thread, CPU seconds, best of {rounds}, medians of ratios within a round",
        f"engine, shared prompts       {best['engine']:7.2f} s  {work.trials / best['engine']:6.1f}"
        f" trials/s  {ratio.median:.2f} x the bare loop ({ratio.least:.2f} to {ratio.most:.2f})",
        f"engine, plain road           {best['plain']:7.2f} s  {work.trials / best['plain']:6.1f}"
        f" trials/s  {timed.ratio('bare', 'plain').median:.2f} x",
        f"unpatched bare decode loop   {best['bare']:7.2f} s  {work.trials / best['bare']:6.1f}"
        " trials/s  1.00 x",
        f"one trial at a time          {best['one'] * work.trials / few:7.2f} s "
        f" {few / best['one']:6.1f} trials/s; the engine is {by_one['median']:.1f} x as fast",
        f"limit here: {limit.total:.2f} s (prefill {limit.prefill:.2f}; decode "
        f"{limit.decode_macs:.2f} of multiply-adds at {machine.macs / 1e9:.0f} G/s, "
        f"{limit.decode_bytes:.2f} of bytes at {machine.bytes / 1e9:.1f} GB/s); "
        f"the engine takes {best['engine'] / limit.total:.2f} of it",
        f"tokens of both roads are {'the same' if same else 'NOT the same'}",
    ]
    result: dict[str, Any] = {
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
    if growth:
        result["growth"] = _growth(tokens)
        lines += ["trials   CPU s   peak MiB of the process"]
        lines += [f"{n:6}  {s:6.1f}   {m:6.0f}" for n, s, m in result["growth"]]
    return {"lines": lines, **result}


def _growth(tokens: int) -> list[tuple[int, float, float]]:
    """Trials, CPU seconds and the process's largest memory so far, MiB, in batches of 256 rows."""
    import time

    found = []
    for pairs in (32, 64, 128, 256, 512, 1280):
        work = Reference(tokens, pairs=pairs, new_tokens=20)
        started = time.process_time()
        work.engine(rows=256)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append((work.trials, seconds, peak))
    return found


def write(result: dict[str, Any], out: Path) -> list[Path]:
    """bench.json, and a figure of the growth where it was measured."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "bench.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if "growth" not in result:
        return [path]
    from matplotlib.figure import Figure

    trials, seconds, peak = zip(*result["growth"], strict=True)
    figure = Figure(figsize=(8, 3))
    for axes, what, name in zip(
        figure.subplots(1, 2),
        (seconds, peak),
        ("CPU seconds", "peak MiB of the process"),
        strict=True,
    ):
        axes.plot(trials, what, marker="o")
        axes.set(xlabel="trials", ylabel=name, xlim=(0, None), ylim=(0, None))
    figure.tight_layout()
    figure.savefig(out / "growth.svg")
    return [path, out / "growth.svg"]
