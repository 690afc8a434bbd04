"""Steps *decoding-small*, *decoding* and *neighbours*: how fast, by the project's own commands."""

from __future__ import annotations

import json
from importlib.util import find_spec

from kv_claims.benching.gpu.command import python
from kv_claims.benching.gpu.steps import Finding, Findings, Given

WANTED = 1.5
"""A step of decoding, in floors: what is wanted at most."""
NEIGHBOURS = {
    "transformers": "transformers",
    "nnsight": "nnsight",
    "transformer_lens": "transformer_lens",
}
"""Modules of `tests.benchmarks.peers`, and the package that each needs."""


def small(given: Given) -> Findings:
    """`bench --gpu --small`: says nothing about speed, but whether the static route is taken."""
    yield _bench(given, "a tiny model", ["--small", "--rounds", "1"], timed=False)


def full(given: Given) -> Findings:
    """`bench --gpu --rounds 2`, the 7B-shaped model; a tiny one where all is only tried."""
    more = ["--small"] if given.small else []
    yield _bench(given, "a 7B-shaped model", [*more, "--rounds", "2"], timed=not given.small)


def _bench(given: Given, name: str, options: list[str], *, timed: bool) -> Finding:
    stored = given.folder / "bench.json"
    ran = python(
        *("-m", "kv_claims", "bench", "--gpu", "--device", given.device, *options),
        *("--out", str(given.folder)),
        seconds=given.seconds - 20,
    )
    if ran.status != 0 or not stored.is_file():
        return Finding(name, False, [f"exit status {ran.status} after {ran.seconds} s"])
    found = json.loads(stored.read_text(encoding="utf-8"))
    route = found["route"]["kind"] == "static"
    ratios = [row["ratio"] for row in found["steps"]]
    good = route and (not timed or all(ratio and ratio <= WANTED for ratio in ratios))
    lines = found["lines"]
    return Finding(name, good, lines, found)


def neighbours(given: Given) -> Findings:
    """The reference work by the engine and by each neighbour in turn; who is not here is named.

    A process for each neighbour: one that breaks, or hangs, leaves the others theirs.
    """
    each = (given.seconds - 20) / len(NEIGHBOURS)
    for name, module in NEIGHBOURS.items():
        if find_spec(module) is None:
            yield Finding(name, None, [f"not here: no package {module}"])
            continue
        yield _beside(name, given, each)


def _beside(name: str, given: Given, seconds: float) -> Finding:
    folder = given.folder / name
    stored = folder / "peers.json"
    stored.unlink(missing_ok=True)
    ran = python(
        *("-m", "tests.benchmarks.peers", "--by", name, "--device", given.device),
        *(["--small", "--rounds", "1"] if given.small else ["--rounds", "2"]),
        *("--out", str(folder)),
        seconds=seconds,
    )
    if not stored.is_file():
        return Finding(name, False, [f"exit status {ran.status} after {ran.seconds} s"])
    found = json.loads(stored.read_text(encoding="utf-8"))
    return Finding(name, ran.status == 0, found["lines"], found)
