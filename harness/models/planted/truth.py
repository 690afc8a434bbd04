"""What is true of a planted model: expected scores and transfer, in closed form.

The signal at step t of a row with a prompt of T tokens is

    m_t = sum over layers of share[layer] * triggers[layer] / (T + t),

because attention averages uniformly over the T + t positions and generated words carry no
trigger. A marker word follows with probability sigmoid((offset + gain * m_t) / temperature)
(both classes have as many words), so the expected lexicon score is an average of sigmoids: exact
over the sampling, no simulation. It agrees with the network to about 1e-6, the linearity of
RMSNorm.

For the noise control the average is over the noise as well. The pasted values' trigger component
is then a sum of independent components of uniform directions; it is taken as normal with its
exact variance (Gauss-Hermite), which is right to the fourth cumulant.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from harness.errors import UsageError
from harness.models.planted.catalog import (
    CONTENT,
    D_HEAD,
    LONGEST_PROMPT,
    N_LAYERS,
    SHORTEST_PROMPT,
    Planted,
)
from harness.models.planted.words import MARKERS, PLAIN, TRIGGERS
from harness.spec import Patch, resolve_layers, resolve_window
from harness.tasks.task import Task

Floats = npt.NDArray[np.float64]
Donor = Literal["source", "unrelated-base", "noise"]
_QUADRATURE_POINTS = 40
_TRIGGER_SET = frozenset(TRIGGERS)


class Shape(NamedTuple):
    """What the truth needs to know of a pair: where its triggers are.

    source, base: 1 where the token is a trigger word, shape `[pos]`.
    source_norms: squared norm of each source value, for the noise control; shape `[pos]`.
    """

    source: Floats
    base: Floats
    source_norms: Floats


class Row(NamedTuple):
    """A row as the model sees it: prompt length, triggers and their variance, `[layer]`."""

    tokens: int
    triggers: Floats
    variance: Floats


class Means(NamedTuple):
    """Expected scores of the three arms, in the task's unit."""

    base: float
    source: float
    patched: float


def expected_means(
    planted: Planted,
    patch: Patch,
    task: Task,
    *,
    donor: Donor = "source",
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    over: Literal["population", "pairs"] = "population",
) -> Means:
    """Expected lexicon scores of base, source and patched (or control) arm.

    over: 'population', the law that the planted task's pairs are drawn from, or 'pairs', the
        pairs that `task` holds.
    Raises UsageError for another scorer than the lexicon, a temperature of 0, or a population
    asked of a task that is not this model's own.
    """
    if task.scorer.name != "lexicon":
        raise UsageError(f"task {task.name!r}: the truth is known for the scorer 'lexicon' only")
    if temperature <= 0:
        raise UsageError(f"temperature {temperature}: the truth is known above 0 only")
    if over == "population" and task.name != f"planted:{planted.name}":
        raise UsageError(f"task {task.name!r} is not drawn from the population of {planted.name}")
    shapes = list(_population(planted) if over == "population" else _shapes_of(task))
    rows = [_rows(shape, patch, donor) for shape in shapes]
    scores = (
        np.array(
            [_expected_score(planted, row[arm], task, max_new_tokens, temperature) for row in rows]
        )
        for arm in range(3)
    )
    return Means(*(float(np.mean(score)) for score in scores))


def true_transfer(
    planted: Planted,
    patch: Patch,
    task: Task,
    *,
    donor: Donor = "source",
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    over: Literal["population", "pairs"] = "population",
) -> float:
    """The exact transfer (patched - base) / (source - base); NaN where source equals base."""
    base, source, patched = expected_means(
        planted,
        patch,
        task,
        donor=donor,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        over=over,
    )
    gap = source - base
    return (patched - base) / gap if abs(gap) > 1e-9 else float("nan")


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Nodes and weights with which a sum is a mean over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_POINTS)
    return nodes, weights / weights.sum()


def _population(planted: Planted) -> Iterator[Shape]:
    """Every (source length, base length), equally likely; triggers depend on lengths only."""
    lengths = range(SHORTEST_PROMPT, LONGEST_PROMPT + 1)
    norms = _mean_value_norms()
    for n_source, n_base in product(lengths, lengths):
        source = (np.arange(n_source) < planted.n_triggers(n_source)).astype(float)
        yield Shape(source, np.zeros(n_base), np.where(source > 0, *norms))


def _shapes_of(task: Task) -> Iterator[Shape]:
    norms = _mean_value_norms()
    for pair in task.pairs:
        source, base = (
            np.array([word in _TRIGGER_SET for word in prompt.text.split()], dtype=float)
            for prompt in (pair.source, pair.base)
        )
        yield Shape(source, base, np.where(source > 0, *norms))


def _mean_value_norms() -> tuple[float, float]:
    """Mean squared norm of V for a trigger and for any other word.

    The content components are uniform on [-c, c], with mean square c**2 / 3.
    """
    content = (D_HEAD - 1) * CONTENT**2 / 3
    return 1.0 + content, content


def _rows(shape: Shape, patch: Patch, donor: Donor) -> tuple[Row, Row, Row]:
    n_source, n_base = len(shape.source), len(shape.base)
    zero = np.zeros(N_LAYERS)
    base = Row(n_base, np.full(N_LAYERS, shape.base.sum()), zero)
    source = Row(n_source, np.full(N_LAYERS, shape.source.sum()), zero)
    if donor == "source" and patch.is_full_swap(N_LAYERS):
        return base, source, source
    layers = list(resolve_layers(patch.layers, N_LAYERS))
    window = resolve_window(patch.positions, n_source, n_base)
    if patch.site == "k":
        return base, source, base
    taken = slice(window.source_slots.start, window.source_slots.stop)
    given = slice(window.base_slots.start, window.base_slots.stop)
    triggers, variance = base.triggers.copy(), zero.copy()
    triggers[layers] -= shape.base[given].sum()
    if donor == "source":
        triggers[layers] += shape.source[taken].sum()
    if donor == "noise":
        variance[layers] = shape.source_norms[taken].sum() / D_HEAD
    return base, source, Row(n_base, triggers, variance)


def _expected_score(
    planted: Planted, row: Row, task: Task, max_new_tokens: int, temperature: float
) -> float:
    """100 * the expected share of lexicon words among the generated words."""
    shares = np.array(planted.shares)
    positions = row.tokens + np.arange(max_new_tokens)
    scale = planted.gain / temperature / positions
    mean = planted.offset / temperature + scale * (shares @ row.triggers)
    deviation = scale * np.sqrt(shares**2 @ row.variance)
    marker = expit(mean)
    if deviation.any():
        nodes, weights = _quadrature()
        marker = expit(mean[:, None] + deviation[:, None] * nodes) @ weights
    in_markers = len(task.lexicon.intersection(MARKERS)) / len(MARKERS)
    in_plain = len(task.lexicon.intersection(PLAIN)) / len(PLAIN)
    return float(100 * np.mean(marker * in_markers + (1 - marker) * in_plain))
