"""What is true of a planted model: expected outcomes and transfer, without running it.

Behavior. The model is run as a circuit of linear maps (`simulate`), which gives the probability of
every word at every step (`law`), so the expected lexicon score is an average of probabilities:
exact over the sampling, no simulation, and within about 1e-6 of the network (its RMSNorm is linear
to 1e-7). It is known for every patch, several at once, and every donor.

Of ablations the donor is what the engine's is: zeros, the mean over the task's own bases, another
base. Of directions see `constants`.

Noise as the donor is averaged over as well. Where the signal is linear in what is pasted and all
that matters, it is taken as normal with its exact variance (Gauss-Hermite), which is right to the
fourth cumulant. Elsewhere it is the mean over at least 2500 draws of the noise with a fixed seed;
the standard error is below 1% of the whole scale, and mostly below 0.1%. It is not known, and
refused with UnknownTruth, for anything but keys and values (noise on the stream is so long that
nothing is linear any more), for keys that queries with content read, and at every step of a model
with feedback.

Answers (`logit_diff` and the others, `loss`) are those of the task's own pairs; see `answers`.

Geometry (`pr@LAYER`, `rv`) follows from the tokens and the patch; see `geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from math import ceil
from typing import Literal, NamedTuple

import numpy as np

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, as_patches, donor_of, names_span
from kv_claims.errors import UsageError
from kv_claims.planted import answers, geometry
from kv_claims.planted.catalog import D_HEAD, LONGEST_PROMPT, Planted
from kv_claims.planted.circuit import Circuit, Floats, circuit_of
from kv_claims.planted.constants import constant_of
from kv_claims.planted.features import Cases, of_pairs, population
from kv_claims.planted.law import Law, patched_law, unpatched_law
from kv_claims.planted.pasting import (
    DONORS,
    OTHER_PROMPTS,
    Row,
    check,
    check_noise,
    extra_positions,
    may_stand_in,
    row_of,
)
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.simulate import Noise, no_vectors, run, squared_length
from kv_claims.planted.unknown import UnknownTruth
from kv_claims.tasks.task import Task

__all__ = [
    "DONORS",
    "Means",
    "Over",
    "UnknownTruth",
    "expected_means",
    "laws",
    "true_transfer",
]

Over = Literal["population", "pairs"]
_QUADRATURE_POINTS = 40
_NOISE_ROWS = 2500
_NOISE_SEED = 0


class Means(NamedTuple):
    """Expected outcomes of the three arms, in the outcome's unit."""

    base: float
    source: float
    patched: float


class Laws(NamedTuple):
    """The laws of the three arms; the variance of the patched logits over noise, if it is normal.

    variance: `[row, step]`; None where the law is that of each row.
    """

    base: Law
    source: Law
    patched: Law
    variance: Floats | None


def expected_means(
    planted: Planted,
    patches: Patch | Sequence[Patch],
    task: Task,
    *,
    donor: str | None = None,
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    over: Over = "population",
    outcome: str | Outcome = "behavior",
) -> Means:
    """Expected outcome of the base, the source and the patched (or control) arm.

    patches: one, or several of one arm. donor: None is the one that they name.
    over: 'population', the law that the planted task's pairs are drawn from (for geometry, which
        depends on the very words, all 300 pairs of the planted task stand for it), or 'pairs', the
        pairs that `task` holds; of answers there is no population but the task's pairs.
    outcome: 'behavior' (or 'score_lexicon'), 'pr@LAYER' or 'rv' over the prompt, uncentred, or one
        of the answers or continuation that the task puts behind its prompts.
    Raises UsageError for a population asked of a task that is not this model's own and for windows
    that do not fit; UnknownTruth, a UsageError too, wherever the truth is not known: another
    outcome, another scorer than the lexicon, a temperature of 0, and noise as said above.
    """
    patches = as_patches(patches)
    donor = donor or donor_of(patches)
    check(patches, donor)
    outcome = Outcome.parse(outcome) if isinstance(outcome, str) else outcome
    if over == "population" and task.name != f"planted:{planted.name}":
        raise UsageError(f"task {task.name!r} is not drawn from the population of {planted.name}")
    if outcome.is_geometry:
        if over == "population":
            task = _own_task(planted)
        return Means(*geometry.expected(planted, patches, task, donor, outcome))
    if outcome.behind is not None:
        return _of_answers(planted, patches, task, donor, outcome)
    if str(outcome) not in ("behavior", "score_lexicon"):
        raise UnknownTruth(
            f"outcome {outcome}: the truth is known for behavior and geometry and answers only"
        )
    if task.scorer.name != "lexicon":
        raise UnknownTruth(f"task {task.name!r}: the truth is known for the scorer 'lexicon' only")
    found = laws(
        planted,
        patches,
        task,
        donor=donor,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        over=over,
    )
    patched = _score(found.patched, task)
    if found.variance is not None:
        patched = _score_over_noise(found.patched, found.variance, task)
    return Means(_score(found.base, task), _score(found.source, task), patched)


def true_transfer(
    planted: Planted,
    patches: Patch | Sequence[Patch],
    task: Task,
    *,
    donor: str | None = None,
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    over: Over = "population",
    outcome: str | Outcome = "behavior",
) -> float:
    """The exact transfer (patched - base) / (source - base); NaN where source equals base."""
    base, source, patched = expected_means(
        planted,
        patches,
        task,
        donor=donor,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        over=over,
        outcome=outcome,
    )
    gap = source - base
    return (patched - base) / gap if abs(gap) > 1e-9 else float("nan")


def laws(
    planted: Planted,
    patches: Sequence[Patch],
    task: Task,
    *,
    donor: str,
    max_new_tokens: int,
    temperature: float,
    over: Over,
) -> Laws:
    """The laws of what the arms generate, a row for each pair (for noise, for each draw).

    Raises UsageError as `expected_means` does.
    """
    if temperature <= 0:
        raise UnknownTruth(f"temperature {temperature}: the truth is known above 0 only")
    circuit = circuit_of(planted)
    cases = _cases(planted, circuit, patches, task, donor, max_new_tokens, over)
    steps, heat = max_new_tokens, temperature
    base = unpatched_law(planted, circuit, cases.base, steps=steps, temperature=heat)
    source = unpatched_law(planted, circuit, cases.source, steps=steps, temperature=heat)
    if donor != "noise":
        constant = constant_of(planted, circuit, task, patches, donor)
        row = row_of(cases, patches, donor, constant)
        patched = patched_law(planted, circuit, row, steps=steps, temperature=heat)
        return Laws(base, source, patched, None)
    check_noise(planted, patches)
    if _is_normal(planted, patches):
        row = row_of(cases, patches, donor)
        patched = patched_law(planted, circuit, row, steps=steps, temperature=heat, fill=no_vectors)
        variance = _variance(circuit, row, steps) * (planted.gain / heat) ** 2
        return Laws(base, source, patched, variance)
    row = row_of(cases.repeated(ceil(_NOISE_ROWS / len(cases.base.tokens))), patches, donor)
    noise = Noise(_NOISE_SEED)
    patched = patched_law(planted, circuit, row, steps=steps, temperature=heat, fill=noise)
    return Laws(base, source, patched, None)


def _cases(
    planted: Planted,
    circuit: Circuit,
    patches: Sequence[Patch],
    task: Task,
    donor: str,
    steps: int,
    over: Over,
) -> Cases:
    if over == "population":
        if names_span([patches]):
            raise UnknownTruth("where a span lies is up to the task, and not to the population")
        room = steps + extra_positions(patches, LONGEST_PROMPT)
        return population(planted, circuit, room)
    longest = max(len(prompt.text.split()) for prompt in (*task.sources, *task.bases))
    needed = partial(may_stand_in, patches) if donor in OTHER_PROMPTS else None
    return of_pairs(planted, circuit, task, steps + extra_positions(patches, longest), needed)


def _is_normal(planted: Planted, patches: Sequence[Patch]) -> bool:
    """Whether noise moves every logit alike, and by a sum over positions and layers."""
    channels = [channel for reading in planted.readings for channel in reading.channels]
    return (
        not planted.raises
        and not planted.marker_trigger
        and not any(reading.match for reading in planted.readings)
        and all(channel.to in (None, "signal") for channel in channels)
        and all(patch.active == "prompt" for patch in patches)
    )


def _variance(circuit: Circuit, row: Row, steps: int) -> Floats:
    """Variance of the signal over noise, `[row, step]`.

    A component of a direction that is uniform on the sphere has mean square 1 / D_HEAD.
    """
    donor = run(circuit, row.donor)
    pos = row.prompts.positions
    total = np.zeros(row.prompts.features.shape[1:])
    for paste in row.pastes:
        for index in paste.layers if "v" in paste.tensors else ():
            layer = circuit.layers[index]
            if not layer.writes:
                continue
            square = squared_length(donor.values[index], layer.unseen)
            taken = np.take_along_axis(square, paste.taken, axis=-1) * paste.written
            weight = paste.alpha * layer.writes[0][2]
            total += weight**2 / D_HEAD * np.cumsum(taken, -1) / (pos + 1) ** 2
    read = row.prompts.tokens[:, None] - 1 + np.arange(steps)
    variance: Floats = np.take_along_axis(total, read, axis=-1)
    return variance


def _of_answers(
    planted: Planted,
    patches: Sequence[Patch],
    task: Task,
    donor: str,
    outcome: Outcome,
) -> Means:
    """Means over the task's pairs of what each arm makes of the texts behind its prompts."""
    texts = answers.texts_of(task, outcome)
    found = laws(
        planted,
        patches,
        task,
        donor=donor,
        max_new_tokens=answers.longest(texts),
        temperature=1.0,
        over="pairs",
    )

    def mean(law: Law, noise: Floats | None = None) -> float:
        return float(answers.values(law, texts, outcome, noise).mean())

    patched = 0.0
    if found.variance is None:
        patched = mean(found.patched)
    else:
        spread = np.sqrt(found.variance)
        for node, weight in zip(*_quadrature(), strict=True):
            patched += weight * mean(found.patched, node * spread)
    return Means(mean(found.base), mean(found.source), patched)


def _score(law: Law, task: Task) -> float:
    """100 * the expected share of lexicon words among the generated words."""
    return _lexicon_words(law.probabilities(), law, task)


def _score_over_noise(law: Law, variance: Floats, task: Task) -> float:
    nodes, weights = _quadrature()
    spread = np.sqrt(variance)
    mean = sum(
        weight * law.given(node * spread) for node, weight in zip(nodes, weights, strict=True)
    )
    return _lexicon_words(np.asarray(mean), law, task)


def _lexicon_words(probabilities: Floats, law: Law, task: Task) -> float:
    in_class = np.array(
        [len(task.lexicon.intersection(words)) / len(words) for words in law.classes]
    )
    return float(100 * np.mean(np.tensordot(in_class, probabilities, 1)))


@lru_cache(maxsize=16)
def _own_task(planted: Planted) -> Task:
    return planted_task(planted)


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Nodes and weights with which a sum is a mean over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_POINTS)
    return nodes, weights / weights.sum()
