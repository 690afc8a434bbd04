"""Ways to do the reference work, as data: what is patched when, and in which batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from kv_claims.benching.reference import ARMS, LAYERS, Reference, Tokens

Meaning = Literal["unpatched", "splice", "in-prefill"]
"""When the source is pasted: never; into the cache, once the prompt is prefilled; or while the
prompt is computed, so that later positions and layers see it (`kv_claims.claims.patch`)."""
Found = Mapping[int, Sequence[int]]
"""Generated tokens by the number of the trial: a base's arms in turn."""


class Way(NamedTuple):
    """A way to do the work, or its first trials.

    by: whose code runs. run: does it, prompts and all, and returns the tokens of the trials done.
    """

    name: str
    by: str
    meaning: Meaning
    run: Callable[[], Found]


class Rows(NamedTuple):
    """Trials of one batch, each patched in one layer.

    bases: `[row, token]`. sources: each prompt once, `[source, token]`. donor, layer: of each row.
    slots: the positions patched, the same in source and base.
    """

    trials: Sequence[int]
    bases: torch.Tensor
    sources: torch.Tensor
    donor: torch.Tensor
    layer: torch.Tensor
    slots: slice

    def by_layer(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each layer that is patched, its rows, and the source of each of them."""
        for layer in sorted(set(self.layer.tolist())):
            rows = (self.layer == layer).nonzero().flatten()
            yield layer, rows, self.donor[rows]


def rows_of(work: Reference, trials: Sequence[int]) -> Rows:
    """These trials of the work as one batch."""
    pairs = [trial // ARMS for trial in trials]
    unique = sorted(set(pairs))
    window = work.window().base_slots
    return Rows(
        trials,
        work.ids([work.bases[pair] for pair in pairs]),
        work.ids([work.sources[pair] for pair in unique]),
        torch.tensor([unique.index(pair) for pair in pairs], device=work.device),
        torch.tensor([trial % ARMS % LAYERS for trial in trials], device=work.device),
        slice(window.start, window.stop),
    )


class Cut(NamedTuple):
    """The work in batches. name: says how, in a table."""

    name: str
    batches: list[Rows]


def at_once(work: Reference) -> Cut:
    return Cut(f"{work.trials} rows at once", [rows_of(work, range(work.trials))])


def arm_by_arm(work: Reference) -> Cut:
    """A batch for each arm: every pair, patched in one layer."""
    return Cut(
        f"{len(work.bases)} rows at a time",
        [rows_of(work, range(arm, work.trials, ARMS)) for arm in range(ARMS)],
    )


def a_few(work: Reference, count: int) -> Cut:
    """So many trials one at a time, of as many pairs as can be. The rest is left undone."""
    apart = work.trials // count
    # One more, as the next pair's trial would be of the same arm.
    trials = [(number * apart + number) % work.trials for number in range(count)]
    return Cut("a trial at a time", [rows_of(work, [trial]) for trial in trials])


def in_batches(
    name: str, by: str, meaning: Meaning, cut: Cut, generate: Callable[[Rows], torch.Tensor]
) -> Way:
    """The way that runs every batch in turn. generate: tokens `[row, step]` of a batch."""

    def run() -> Found:
        return {
            trial: tokens
            for rows in cut.batches
            for trial, tokens in zip(rows.trials, generate(rows).tolist(), strict=True)
        }

    return Way(f"{name}, {cut.name}", by, meaning, run)


def in_order(tokens: Tokens) -> Found:
    """Tokens of all trials, as they come from `Reference`."""
    return dict(enumerate(tokens))


def greedy(
    step: Callable[[torch.Tensor], torch.Tensor],
    ids: torch.Tensor,
    steps: int,
    *,
    prompt: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The likeliest token of each row, fed again, so many times: `[row, step]`.

    step: logits `[row, token, vocab]` of ids `[row, token]`; it keeps its own cache.
    prompt: runs the first step instead, where something is patched in it.
    """
    found = []
    for _ in range(steps):
        ids = (prompt or step)(ids)[:, -1].argmax(-1)[:, None]
        prompt = None
        found.append(ids)
    return torch.cat(found, 1)
