"""Prompts as numbers: what each position brings into the planted dimensions.

For the truth alone. Promises: the population is the very law that `prompts.planted_task` draws
from (every length equally likely, sources and bases independently, and styles where there are
any); the given pairs are read word by word, as is the unrelated base that the control takes.
Does not: know patches beyond the room that they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_claims.claims.positions import Extent
from kv_claims.errors import UsageError
from kv_claims.planted.catalog import (
    LONGEST_PROMPT,
    N_STYLES,
    SHORTEST_PROMPT,
    UNKNOWN,
    Planted,
    style_of,
)
from kv_claims.planted.circuit import Circuit, Floats
from kv_claims.planted.words import STYLED, TRIGGERS
from kv_claims.tasks.task import Prompt, Task

Ints = npt.NDArray[np.int64]
Spans = tuple[tuple[str, range], ...]
Needed = Callable[[Extent, Extent, Extent], bool]
"""Of a source, a base and another prompt."""


class Prompts(NamedTuple):
    """Prompts in one block, each from position 0 on, with room behind.

    tokens: their lengths T, `[row]`. features: `[dim, row, pos]`; behind the prompt what every
    word brings. spans: those of each row, `[row]`; none where no row has any.
    """

    tokens: Ints
    features: Floats
    spans: tuple[Spans, ...] = ()

    @property
    def extents(self) -> list[Extent]:
        """Each prompt as positions see it."""
        spans = self.spans or ((),) * len(self.tokens)
        return [Extent(n, some) for n, some in zip(self.tokens.tolist(), spans, strict=True)]

    @property
    def positions(self) -> Ints:
        """0, 1, 2 ... to the end of the block."""
        return np.arange(self.features.shape[-1])

    def repeated(self, times: int) -> Prompts:
        """Every prompt so many times, one beside the other."""
        spans = tuple(some for some in self.spans for _ in range(times))
        features = np.repeat(self.features, times, axis=1)
        return Prompts(np.repeat(self.tokens, times), features, spans)

    def going_on(self, dim: int, value: float) -> Prompts:
        """With a value in one dimension at every position behind the prompt."""
        if not value:
            return self
        features = self.features.copy()
        features[dim] += value * (self.positions >= self.tokens[:, None])
        return self._replace(features=features)

    def parted(self, width: int) -> Prompts:
        """With `width` empty positions before the last token of each prompt."""
        last, pos = self.tokens[:, None] - 1, self.positions
        empty = len(pos) - 1  # behind the prompt, so 0
        taken = np.where(pos < last, pos, np.where(pos == last + width, last, empty))
        taken = np.broadcast_to(taken, self.features.shape)
        return Prompts(self.tokens + width, np.take_along_axis(self.features, taken, axis=-1))


class Cases(NamedTuple):
    """Pairs, each with the base that is the donor in the control 'unrelated-base'."""

    source: Prompts
    base: Prompts
    unrelated: Prompts

    def repeated(self, times: int) -> Cases:
        """Every pair so many times, one beside the other."""
        return Cases(*(prompts.repeated(times) for prompts in self))


@lru_cache(maxsize=16)
def population(planted: Planted, circuit: Circuit, room: int) -> Cases:
    """Every pair of lengths, equally likely (and of styles that differ in every way).

    room: empty positions behind the longest prompt, at least 1. Unrelated bases are as long as the
    longest; their length changes nothing, as all their words are alike.
    """
    lengths = range(SHORTEST_PROMPT, LONGEST_PROMPT + 1)
    # By symmetry only the bits in which two styles differ matter, so bases keep one style.
    styles = range(N_STYLES) if planted.styled else range(1)
    cases = list(product(lengths, lengths, styles))

    def block(rows: Iterable[tuple[int, str, list[bool]]]) -> Prompts:
        found = [
            [_features(circuit, word, is_trigger) for is_trigger in marked[:n]]
            for n, word, marked in rows
        ]
        return _block(circuit, found, LONGEST_PROMPT + room)

    none = [False] * LONGEST_PROMPT
    return Cases(
        source=block((n, TRIGGERS[style], planted.is_trigger(n)) for n, _, style in cases),
        base=block((n, STYLED[0], none) for _, n, _ in cases),
        unrelated=block((LONGEST_PROMPT, STYLED[style], none) for _, _, style in cases),
    )


def reference(planted: Planted, circuit: Circuit, task: Task) -> Prompts:
    """The task's bases, word by word, over which means are taken."""
    return _read(planted, circuit, task, 1, task.bases)


def of_pairs(
    planted: Planted,
    circuit: Circuit,
    task: Task,
    room: int,
    needed: Needed | None = None,
) -> Cases:
    """The task's own pairs, word by word.

    needed: whether a prompt may be the unrelated base of a source and a base; None where none is
        asked for (the source's prompt then stands in its place).
    Raises UsageError where no other base may.
    """
    sources, bases = _sides(planted, circuit, task, room)
    if needed is None:
        return Cases(sources, bases, sources)
    pairs = zip(_candidates(task), sources.extents, bases.extents, strict=True)
    others = [_first_of(some, partial(needed, *both), task) for some, *both in pairs]
    return Cases(sources, bases, _read(planted, circuit, task, room, others))


@lru_cache(maxsize=16)
def _sides(planted: Planted, circuit: Circuit, task: Task, room: int) -> tuple[Prompts, Prompts]:
    sources = [pair.source for pair in task.pairs]
    bases = [pair.base for pair in task.pairs]
    return (
        _read(planted, circuit, task, room, sources),
        _read(planted, circuit, task, room, bases),
    )


@lru_cache(maxsize=16)
def _candidates(task: Task) -> list[list[Prompt]]:
    """For each pair, the bases that may stand in as unrelated, best first."""
    return [list(task.unrelated(pair)) for pair in task.pairs]


def _first_of(candidates: Sequence[Prompt], may_be: Callable[[Extent], bool], task: Task) -> Prompt:
    for prompt in candidates:
        if may_be(_extent(prompt)):
            return prompt
    raise UsageError(
        f"task {task.name!r}: no other base has the positions that the control 'unrelated-base' "
        "needs"
    )


def _extent(prompt: Prompt) -> Extent:
    """A prompt as positions see it: a token a word."""
    words = prompt.text.split()
    spans = ((name, part.split()) for name, part in prompt.spans)
    return Extent(len(words), tuple((name, _place(words, part)) for name, part in spans))


def _place(words: Sequence[str], part: Sequence[str]) -> range:
    starts = range(len(words) - len(part) + 1)
    start = next(k for k in starts if list(words[k : k + len(part)]) == list(part))
    return range(start, start + len(part))


def _read(
    planted: Planted, circuit: Circuit, task: Task, room: int, prompts: Sequence[Prompt]
) -> Prompts:
    # One width for all blocks, as positions of one are looked up in another.
    width = room + max(len(prompt.text.split()) for prompt in (*task.sources, *task.bases))
    table = _table(planted, circuit)
    unknown = table[UNKNOWN]
    rows = [[table.get(word, unknown) for word in prompt.text.split()] for prompt in prompts]
    spans = tuple(_extent(prompt).spans for prompt in prompts)
    return _block(circuit, rows, width)._replace(spans=spans)


@lru_cache(maxsize=32)
def _table(planted: Planted, circuit: Circuit) -> dict[str, list[float]]:
    """What each word of the vocabulary brings, in the order of the circuit's dimensions."""
    table = {
        word: [planted.word_value(word, dim) for dim in circuit.planted_dims]
        for word in planted.words
    }
    if circuit.content_dims:
        # The content comes from torch, which nothing else here needs.
        from kv_claims.planted.embedding import content_table

        content = content_table(len(planted.words))
        for row, values in enumerate(table.values()):
            values += content[row, circuit.content_dims].tolist()
    return table


def _features(circuit: Circuit, styled: str, is_trigger: bool) -> list[float]:
    """What a word of the population brings: the style of a word, and a trigger or none."""
    found = dict.fromkeys(circuit.planted_dims, 0.0)
    found["trigger"] = float(is_trigger)
    if circuit.standing:
        found["note"] = circuit.standing
    for dim in found:
        if dim.startswith("style."):
            found[dim] = style_of(styled, int(dim[-1]))
    return list(found.values())


def _block(circuit: Circuit, rows: Sequence[Sequence[Sequence[float]]], width: int) -> Prompts:
    features = np.zeros((circuit.n_dims, len(rows), width))
    if circuit.standing:
        features[circuit.at("note")] = circuit.standing
    for index, row in enumerate(rows):
        features[:, index, : len(row)] = np.array(row).T
    features.flags.writeable = False
    return Prompts(np.array([len(row) for row in rows]), features)
