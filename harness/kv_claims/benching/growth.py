"""How time and memory grow with the trials of a study: with its pairs, and with its arms.

Whole studies on the reference model (`kv_claims.run.runner`, checks against the oracle and geometry
included), each in a process of its own, so that a peak of memory is that study's own.
"""

from __future__ import annotations

import resource
import time
from multiprocessing import get_context
from typing import NamedTuple

from kv_claims.benching.reference import ARMS, LAYERS, Reference

PAIRS, MANY_ARMS = (32, 128, 320, 640, 1280), (8, 16, 32, 64)
WIDTHS = (16, 8, 4, 2, 12, 6, 3, 1)
NEW_TOKENS = 20


class Grown(NamedTuple):
    """A study, its CPU seconds without loading, and the peak of its process, MiB.

    start: the peak before it ran, model and libraries loaded.
    """

    pairs: int
    arms: int
    trials: int
    seconds: float
    start: float
    peak: float


def growth(tokens: int) -> dict[str, list[Grown]]:
    """Studies that grow in pairs, with 8 arms, and in arms, with 32 pairs."""
    return {
        "pairs": [alone(tokens, pairs, ARMS) for pairs in PAIRS],
        "arms": [alone(tokens, PAIRS[0], arms) for arms in MANY_ARMS],
    }


def alone(tokens: int, pairs: int, arms: int) -> Grown:
    """One study in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(study, (tokens, pairs, arms))


def study(tokens: int, pairs: int, arms: int, new_tokens: int = NEW_TOKENS) -> Grown:
    """One study in this process, on one thread."""
    import torch

    from kv_claims.claims.patch import Patch
    from kv_claims.run.arms import patched
    from kv_claims.run.ledger import Ledger
    from kv_claims.run.runner import Runner
    from kv_claims.run.sampling_settings import Sampling

    torch.set_num_threads(1)
    work = Reference(tokens, pairs=pairs)
    task = work.task()
    some = [
        patched(Patch("kv", str(arm % LAYERS), f"last({WIDTHS[arm // LAYERS]})"))
        for arm in range(arms)
    ]
    runner = Runner(work.model, task, Sampling(new_tokens, 0.0), Ledger())
    before, started = _peak(), time.process_time()
    trials = runner.run(some, task.pairs, [0])
    seconds = time.process_time() - started
    return Grown(pairs, arms, len(trials), seconds, before, _peak())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
