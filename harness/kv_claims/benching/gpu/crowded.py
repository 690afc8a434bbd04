"""Steps *two-processes* and *too-large-a-batch*: a card that is shared, and one that is too small.

What must hold in both: every trial comes back, with the tokens that it has when it runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from kv_claims.benching.gpu.claims import FILE, ended, mib, start
from kv_claims.benching.gpu.evidence import spent_of
from kv_claims.benching.gpu.steps import Finding, Findings, Given
from kv_claims.claims.patch import Patch
from kv_claims.models.load import load_model
from kv_claims.models.mini import NAME as MINI
from kv_claims.patch.store import bytes_a_position
from kv_claims.planted.prompts import planted_task
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial


def two_processes(given: Given) -> Findings:
    """The same claims alone, and then twice at once: float64, so that tokens must be the same."""
    few = ["--pairs", "10", "--max-new-tokens", "8"]
    arguments = [FILE, "--device", given.device, "--dtype", "float64"]
    arguments += ["-k", "L18" if not given.small else "L18 and w16", *(few if given.small else [])]
    limit = given.seconds / 2 - 20
    folders = {name: given.folder / name for name in ("alone", "first", "second")}
    ran = {"alone": ended(folders["alone"], start(folders["alone"], arguments, MINI), limit)}
    both = {name: start(folders[name], arguments, MINI) for name in ("first", "second")}
    ran |= {name: ended(folders[name], one, limit) for name, one in both.items()}
    tokens = {name: _tokens(folder) for name, folder in folders.items()}
    wanted = tokens["alone"]
    lines, good = [], bool(wanted)
    for name, (status, measured) in ran.items():
        equal = sum(tokens[name].get(trial) == said for trial, said in wanted.items())
        lines.append(
            f"{name}: exit status {status}, {len(tokens[name])} trials, {equal} with the tokens of "
            f"the run alone, {measured['seconds']:.0f} s, memory {mib(measured.get('gpu_bytes'))}"
        )
        good = good and status in (0, 1) and tokens[name] == wanted
    data = {
        name: {**measured, "status": status, "spent": spent_of(folders[name])}
        for name, (status, measured) in ran.items()
    }
    yield Finding("two runs at once", good, lines, data)


def _tokens(run: Path) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Tokens of each trial of a stored run."""
    import pandas as pd

    path = run / "trials.parquet"
    if not path.is_file():
        return {}
    rows = pd.read_parquet(path, columns=["model", "pair", "arm", "seed", "tokens"])
    return {tuple(key): tuple(said) for *key, said in rows.to_numpy().tolist()}


PAIRS, TOKENS = 200, 50
SMALL_PAIRS, SMALL_TOKENS, SMALL_ROWS = 12, 8, 10
_SHARE = 4
"""Memory is left for so small a part of what the whole batch's caches take."""


def too_large(given: Given) -> Findings:
    """All trials in one batch, where memory holds a part of it."""
    pairs, tokens = (SMALL_PAIRS, SMALL_TOKENS) if given.small else (PAIRS, TOKENS)
    model = load_model("planted:stored-at-layer", device=given.device)
    assert model.planted is not None
    task = planted_task(model.planted, n_pairs=pairs)
    arms = [BASE, SOURCE, patched(Patch("kv", "18/32", "last(16)"))]
    arms.append(patched(Patch("kv", "25/32", "last(16)")))

    def trials(rows: int) -> list[Trial]:
        one = Runner(model, task, Sampling(tokens), Ledger(), rows)
        return one.run(arms, task.first_pairs(pairs), [0])

    asked = len(arms) * pairs
    wanted = trials(32)
    longest = max(trial.prompt_tokens for trial in wanted) + tokens
    needed = asked * longest * bytes_a_position(model)
    with _short_of_memory(model.device, needed // _SHARE), _batches_tried() as tried:
        found = trials(asked)
    equal = sum(one.tokens == other.tokens for one, other in zip(wanted, found, strict=True))
    how = "the allocator's own limit" if model.device.type == "cuda" else "simulated: no GPU"
    lines = [
        f"asked for {asked} rows at once, whose caches take {mib(needed)}; memory for "
        f"{mib(needed // _SHARE)} ({how})",
        f"batches tried: {', '.join(map(str, tried))}",
        f"{len(found)} of {asked} trials came back, {equal} with the tokens of small batches",
    ]
    halved = tried[0] >= asked and min(tried) < asked
    yield Finding(
        "a batch that does not fit",
        halved and equal == asked,
        lines,
        {"asked": asked, "tried": tried, "equal": equal, "simulated": how.startswith("sim")},
    )


@contextmanager
def _batches_tried() -> Iterator[list[int]]:
    """The numbers of rows that were built, also of batches that then failed."""
    tried: list[int] = []
    with _before_building(tried.append):
        yield tried


@contextmanager
def _short_of_memory(device: torch.device, left: int) -> Iterator[None]:
    """While this is open, about so many bytes more can be taken.

    On a GPU by the allocator's limit for this process, so that it is torch itself that fails. On a
    CPU the error is raised in its stead, for batches of more than `SMALL_ROWS` rows.
    """
    if device.type != "cuda":
        with _before_building(_fail):
            yield
        return
    torch.cuda.empty_cache()
    _, whole = torch.cuda.mem_get_info(device)
    share = (torch.cuda.memory_reserved(device) + left) / whole
    torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _fail(rows: int) -> None:
    if rows > SMALL_ROWS:
        raise torch.OutOfMemoryError("simulated: no memory for so many rows")


@contextmanager
def _before_building(hear: Callable[[int], None]) -> Iterator[None]:
    """While this is open, the number of a batch's rows is heard before the batch is built."""
    name = "kv_claims.run.runner.build"
    real = getattr(import_module("kv_claims.run.runner"), "build")  # noqa: B009 (not its own)

    def heard(store: Any, plans: Any, *args: Any, **more: Any) -> Any:
        hear(len(plans))
        return real(store, plans, *args, **more)

    with mock.patch(name, heard):
        yield
