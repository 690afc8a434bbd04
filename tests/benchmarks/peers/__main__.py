"""The reference work by neighbours, timed in turn with the engine: `make bench-peers`.

Runs in an environment of its own, `.venv-peers/`, where the neighbours are installed in the
versions of `tests/benchmarks/peers-constraints.txt`. Not tests: nothing that pytest collects
imports a neighbour. `ways`, `agreement` and `report` need none and have tests (`tests/benching`).

The tokens of the last timed round are compared. Exit status 1 says that some way generated others
than near ties explain, or that a patch changed nothing.
"""

from __future__ import annotations

import argparse
import logging
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import import_module, metadata
from pathlib import Path

import torch
import transformers

from kv_claims.benching.reference import Reference
from kv_claims.benching.timing import Timed, in_turn
from tests.benchmarks.peers import by_engine
from tests.benchmarks.peers.agreement import Plain, compare
from tests.benchmarks.peers.report import Result, lines_of, ratio, write
from tests.benchmarks.peers.ways import Found, Meaning, Way

BY = ("nnsight", "transformer_lens", "pyvene")
"""Who stands beside the engine, unless `--by` names others: `by_NAME` are the modules."""
PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "pyvene")
LEADER: dict[Meaning, str] = {
    "unpatched": by_engine.BARE,
    "splice": by_engine.ENGINE,
    "in-prefill": by_engine.IN_PROMPT,
}
"""The way whose tokens the others of a meaning are held against."""


def kept(way: Way, found: dict[str, Found]) -> Callable[[], None]:
    """Runs a way and keeps its tokens, so that what is compared is what was timed."""

    def run() -> None:
        found[way.name] = way.run()

    return run


def results_of(
    work: Reference, ways: Sequence[Way], found: dict[str, Found], timed: Timed
) -> list[Result]:
    """Every way, with its ratios and its tokens held against the leader's of its meaning."""
    plain, trials = Plain(work), {name: len(tokens) for name, tokens in found.items()}
    bare = found[by_engine.BARE]
    results = []
    for way in ways:
        leader, tokens = LEADER[way.meaning], found[way.name]
        results.append(
            Result(
                way.name,
                way.by,
                way.meaning,
                len(tokens),
                [s * work.trials / len(tokens) for s in timed.seconds[way.name]],
                ratio(timed, way.name, by_engine.ENGINE, trials),
                ratio(timed, way.name, leader, trials) if way.meaning != "unpatched" else None,
                compare(tokens, found[leader], plain.logits(way.meaning)),
                sum(list(row) != list(bare[trial]) for trial, row in tokens.items()),
            )
        )
    return results


def _clock(device: torch.device) -> tuple[Callable[[], float], str]:
    """What time is taken by: of the CPU, or on a GPU of the clock, once all is done."""
    if device.type != "cuda":
        return time.process_time, "CPU seconds"

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished, "seconds on the clock"


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _versions() -> Iterator[tuple[str, str]]:
    """Of those that are here."""
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("--small", action="store_true", help="4 pairs, 8 tokens: to try it")
    parser.add_argument("--rounds", type=int, default=3, help="after one that does not count")
    parser.add_argument("--few", type=int, default=4, help="trials of ways with a trial at a time")
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--by", default=",".join(BY), metavar="A,B", help="%(default)s")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.few < 1:
        parser.error("expected --rounds and --few of 1 or more")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    # Hints to users of the neighbours, one a call, that say nothing of the work.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()

    size = {"pairs": 4, "new_tokens": 8} if options.small else {}
    work = Reference(**size, device=options.device)
    few = min(options.few, work.trials)
    modules = [
        by_engine,
        *(import_module(f"{__package__}.by_{by}") for by in options.by.split(",")),
    ]
    ways = [way for by in modules for way in by.ways(work, few)]
    found: dict[str, Found] = {}
    clock, clocked = _clock(work.device)
    timed = in_turn({way.name: kept(way, found) for way in ways}, options.rounds, clock)
    results = results_of(work, ways, found, timed)

    versions = dict(_versions())
    about = {
        "date": date.today().isoformat(),
        "machine": _machine(work.device),
        "versions": versions,
        "trials": work.trials,
        "prompt_tokens": work.tokens,
        "new_tokens": work.new_tokens,
        "rounds": options.rounds,
    }
    lines = [
        f"reference work: {work.trials} trials, {work.tokens}-token prompts, {work.new_tokens} "
        f"tokens, one thread, {clocked}, best of {options.rounds}; ratios within a round: "
        "median (range)",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        *lines_of(results, work.trials),
    ]
    print("\n".join(lines))
    for path in write(results, lines, about, options.out):
        print(f"wrote {path}")
    return int(any(result.failure for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
