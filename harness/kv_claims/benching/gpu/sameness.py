"""Step *sameness*: do tokens depend on which rows stand in a batch, on the run, on the route?

Rows of mini (and of the model asked for) are decoded in batches of several sizes, twice each, and
held against the largest batch's first run. Where two rows part, their sampling margins there say
whether it was a near tie. docs/sameness.md says what is promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kv_claims.benching.gpu.real_model import real_model
from kv_claims.benching.gpu.steps import Finding, Findings, Given
from kv_claims.claims.patch import Patch
from kv_claims.models.load import load_model
from kv_claims.models.mini import NAME as MINI
from kv_claims.models.task import task_for
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.decode import decode
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling import choose, uniforms
from kv_claims.run.sampling_settings import Sampling

NEAR = 1e-4
"""A uniform this close to an edge of the CDF is a near tie (docs/sameness.md, float32)."""
BATCHES, PAIRS, TOKENS = (1, 7, 64), 22, 30
SMALL_BATCHES, SMALL_PAIRS, SMALL_TOKENS = (1, 3, 9), 3, 8
DTYPES = ("float64", "float32", "bfloat16")


class Said(NamedTuple):
    """What rows said: tokens of each, and the logits that they were drawn from, `step vocab`."""

    tokens: list[list[int]]
    logits: list[torch.Tensor]


class Against(NamedTuple):
    """Rows against the same rows otherwise decoded.

    equal: rows with equal tokens. largest: of differences of logits up to where tokens part,
    relative to the row's largest logit. near: rows that part at a near tie. margins: the
    larger sampling margin where each part.
    """

    rows: int
    equal: int
    largest: float
    near: int
    margins: list[float]


def run(given: Given) -> Findings:
    names = [MINI]
    if given.model is not None:
        names.append(real_model(given.model).name)
    for name in names:
        for dtype in DTYPES:
            yield _of(name, dtype, given)


def _of(name: str, dtype: str, given: Given) -> Finding:
    batches = SMALL_BATCHES if given.small else BATCHES
    rows = _Rows(name, dtype, given)
    route = rows.runner.route.kind
    wanted = rows.said(max(batches), route)
    found: dict[str, Against] = {}
    for size in sorted(batches, reverse=True):
        for number in (1, 2):
            if (size, number) != (max(batches), 1):
                said = rows.said(size, route)
                found[f"batch {size}, run {number}"] = against(wanted, said, rows.luck)
    found[f"batch {max(batches)}, plain route"] = against(
        wanted, rows.said(max(batches), "plain"), rows.luck
    )
    whole = all(one.equal == one.rows for one in found.values())
    explained = all(one.equal + one.near == one.rows for one in found.values())
    lines = [f"{route} route; held against batch {max(batches)}, run 1"]
    lines += [
        f"{what:22} {one.equal:4} of {one.rows} rows equal, {one.near} part at a near tie, "
        f"logits apart by {one.largest:.1e}"
        for what, one in found.items()
    ]
    good = {"float64": whole, "float32": explained}.get(dtype)
    data: dict[str, Any] = {"route": route, **{what: one._asdict() for what, one in found.items()}}
    return Finding(f"{Path(name).name}, {dtype}", good, lines, data)


class _Rows:
    """Base, source and patched rows of a model's own task."""

    def __init__(self, name: str, dtype: str, given: Given) -> None:
        model = load_model(name, device=given.device, dtype=dtype)
        task = task_for(name, None)
        pairs, tokens = (SMALL_PAIRS, SMALL_TOKENS) if given.small else (PAIRS, TOKENS)
        self.runner = Runner(model, task, Sampling(tokens), Ledger())
        arms = (BASE, SOURCE, patched(Patch("kv", layers="1/2", positions="last(8)")))
        rows = [
            (pair, self.runner.canonical(arm)) for pair in task.first_pairs(pairs) for arm in arms
        ]
        self.runner.check([arm for _, arm in rows], [pair for pair, _ in rows])
        self.runner.prefill(rows)
        self._plans = [self.runner.rows.plan(arm, pair, 0, self.runner.store) for pair, arm in rows]
        self._first = [self.runner.rows.last_token(arm, pair) for pair, arm in rows]
        self.luck = torch.stack([uniforms(pair.id, 0, tokens) for pair, _ in rows])

    def said(self, size: int, route: str) -> Said:
        """Decode the rows in batches of this size."""
        runner, said = self.runner, Said([], [])
        memory = Memory() if route == "static" else None
        for start in range(0, len(self._plans), size):
            batch = slice(start, start + size)
            plans = self._plans[batch]
            slab = build(
                runner.store,
                plans,
                runner.rows.rotation,
                headroom=runner.sampling.max_new_tokens,
                shared=route == "shared",
                memory=memory,
            ).slab
            decoded = decode(
                runner.model,
                slab,
                self._first[batch],
                self.luck[batch],
                runner.sampling,
                keep=range(len(plans)),
            )
            said.tokens.extend(decoded.tokens)
            said.logits.extend(decoded.logits[row] for row in range(len(plans)))
        return said


def against(wanted: Said, found: Said, luck: torch.Tensor) -> Against:
    """Hold rows against others; luck: the uniforms of each, `row step`."""
    equal, largest, margins = 0, 0.0, []
    for row, (one, other) in enumerate(zip(wanted.tokens, found.tokens, strict=True)):
        step = _parting(one, other)
        both = wanted.logits[row], found.logits[row]
        # Up to the token that parts, both were fed the same.
        same = min(len(both[0]), len(both[1])) if step is None else step + 1
        first, second = (logits[:same].double() for logits in both)
        scale = first.abs().max().clamp(min=1e-30)
        largest = max(largest, float((first - second).abs().max() / scale))
        if step is None:
            equal += 1
            continue
        margins.append(
            max(
                float(choose(logits[step : step + 1], luck[row, step : step + 1], 0.7).margin)
                for logits in both
            )
        )
    near = sum(margin <= NEAR for margin in margins)
    return Against(len(wanted.tokens), equal, largest, near, margins)


def _parting(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The step at which two rows first say another token; None where they say the same."""
    for step, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return step
    assert len(one) == len(other), "a stop token ends a row, and it is a token"
    return None
