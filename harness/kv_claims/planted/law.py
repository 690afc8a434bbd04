"""From what a model has computed to the law of the words that it generates.

Promises: exact. Where generated words bring no trigger, every step's probabilities follow at once.
Where marker words do (`self-sustaining`), a step's signal is linear in the number of markers that
were generated before, in the row and, where it is patched at every step, in its donor: the law is
that of a chain over these two counts, with the same uniform for both.
Does not: average over noise (`truth`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from kv_claims.planted.catalog import Planted
from kv_claims.planted.circuit import Circuit, Floats
from kv_claims.planted.features import Prompts
from kv_claims.planted.pasting import Row
from kv_claims.planted.simulate import Fill, Trace, run
from kv_claims.planted.unknown import UnknownTruth
from kv_claims.planted.words import MARKERS, PLAIN

_SAME = 1e-12
_MARKER_SET = frozenset(MARKERS)


@dataclass(frozen=True)
class Law:
    """The law of the generated words of some rows.

    classes: words that are equally likely; see `word_classes`.
    logits: of each word of a class, with the temperature, had no marker been generated before,
        `[class, row, step]`; plain words that nothing raises stand at 0.
    own, of_donor: what one marker before, of the row or of its donor, adds to marker words,
        `[row, step]`. donor: the donor's law, where it matters.
    """

    classes: tuple[tuple[str, ...], ...]
    logits: Floats
    own: Floats
    of_donor: Floats
    donor: Law | None

    @property
    def has_feedback(self) -> bool:
        """Whether a step depends on what was generated before."""
        return bool(self.own.any() or self.of_donor.any())

    def given(self, shift: Floats | float = 0.0, step: int | slice = slice(None)) -> Floats:
        """Probability of each class with `shift` on marker words, `[class, row, step]`.

        shift: what was generated before (or noise) adds, `[row, step]`, or `[row]` for one step.
        """
        logits = self.logits[:, :, step]
        sizes, is_marker = np.array([(len(c), c[0] in _MARKER_SET) for c in self.classes]).T
        column = (-1, *[1] * (logits.ndim - 1))
        heights = logits + is_marker.reshape(column) * shift + np.log(sizes).reshape(column)
        weights = np.exp(heights - heights.max(0))
        found: Floats = weights / weights.sum(0)
        return found

    def probabilities(self) -> Floats:
        """Probability of each class, over what was generated before, `[class, row, step]`."""
        if not self.has_feedback:
            return self.given()
        markers = _chain(self)
        return np.stack([markers, 1 - markers])


def unpatched_law(
    planted: Planted, circuit: Circuit, prompts: Prompts, *, steps: int, temperature: float
) -> Law:
    """The law of prompts that go their own way."""
    trigger, value = circuit.at("trigger"), circuit.feedback
    silent = run(circuit, prompts)
    logits = _logits(planted, circuit, silent, prompts, steps, temperature)
    own = np.zeros(logits.shape[1:])
    if value:
        spoken = run(circuit, prompts.going_on(trigger, value))
        own = _slope(_logits(planted, circuit, spoken, prompts, steps, temperature), logits)
    return Law(word_classes(planted), logits, own, np.zeros_like(own), None)


def patched_law(
    planted: Planted,
    circuit: Circuit,
    row: Row,
    *,
    steps: int,
    temperature: float,
    fill: Fill | None = None,
) -> Law:
    """The law of patched rows. fill: what is written instead of the donor's vectors.

    Raises UnknownTruth for noise as long as vectors that follow what the donor generates: it has no
    law of this form.
    """

    def logits(own: float, donor: float, fill: Fill | None = None) -> Floats:
        trace = row.run(circuit, fill, own_feedback=own, donor_feedback=donor)
        return _logits(planted, circuit, trace, row.prompts, steps, temperature)

    value, silent = circuit.feedback, logits(0.0, 0.0, fill)
    own, of_donor, donor = np.zeros(silent.shape[1:]), np.zeros(silent.shape[1:]), None
    if value:
        if fill is not None and row.follows_donor:
            raise UnknownTruth(
                f"model {planted.name!r}: the truth of noise at every step is not known, as its "
                "length follows what the donor generates"
            )
        # Signals are linear, so that what a marker adds does not depend on what is pasted.
        pasted = logits(0.0, 0.0)
        own = _slope(logits(value, 0.0), pasted)
        if row.follows_donor:
            of_donor = _slope(logits(0.0, value), pasted)
    if of_donor.any():
        donor = unpatched_law(planted, circuit, row.donor, steps=steps, temperature=temperature)
    return Law(word_classes(planted), silent, own, of_donor, donor)


def word_classes(planted: Planted) -> tuple[tuple[str, ...], ...]:
    """Words by class and by what raises them: markers first, plain words that nothing raises last.

    With feedback there must be two classes as large as each other, on which `_chain` counts.
    """
    groups: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    for word in (*MARKERS, *PLAIN):
        raised = tuple(i for i, one in enumerate(planted.raises) if word in one.words)
        groups.setdefault((word in _MARKER_SET, raised), []).append(word)
    groups[False, ()] = groups.pop((False, ()))
    return tuple(map(tuple, groups.values()))


def _logits(
    planted: Planted,
    circuit: Circuit,
    trace: Trace,
    prompts: Prompts,
    steps: int,
    temperature: float,
) -> Floats:
    """Each class's logit at each step, `[class, row, step]`."""
    read = (prompts.tokens[:, None] - 1 + np.arange(steps))[None]
    final = trace.states[-1]
    seen = np.take_along_axis(final, np.broadcast_to(read, (len(final), *read.shape[1:])), -1)
    of_markers = planted.offset + planted.gain * seen[circuit.at("signal")]
    logits = []
    for words in word_classes(planted):
        logit = of_markers if words[0] in _MARKER_SET else np.zeros_like(of_markers)
        for one in planted.raises:
            if words[0] in one.words:
                logit = logit + one.rest + one.gain * seen[circuit.at(one.of)]
        logits.append(logit)
    return np.stack(logits) / temperature


def _slope(spoken: Floats, silent: Floats) -> Floats:
    """What one marker adds, from a run in which all generated words are markers.

    Step t has t words before it, and where attention is uniform all of them count alike.
    """
    count = np.maximum(np.arange(silent.shape[-1]), 1)
    slope: Floats = (spoken - silent)[0] / count
    slope[np.abs(slope) < _SAME] = 0.0
    return slope


def _chain(law: Law) -> Floats:
    """Probability of a marker at each step, `[row, step]`, summed over all counts before."""
    _, n_rows, steps = law.logits.shape
    own = np.arange(steps)[None, :, None] if law.own.any() else np.zeros((1, 1, 1))
    donors = np.arange(steps)[None, None, :] if law.of_donor.any() else np.zeros((1, 1, 1))
    weight = np.zeros((n_rows, own.shape[1], donors.shape[2]))
    weight[:, 0, 0] = 1.0
    found = np.zeros((n_rows, steps))
    for t in range(steps):
        at = (slice(None), t, None, None)
        chance = expit(law.logits[0][at] + law.own[at] * own + law.of_donor[at] * donors)
        found[:, t] = (weight * chance).sum((1, 2))
        chance_of_donor = np.zeros((1, 1, 1))
        if law.donor is not None:
            chance_of_donor = expit(law.donor.logits[0][at] + law.donor.own[at] * donors)
        weight = _step(weight, chance, chance_of_donor)
    return found


def _step(weight: Floats, own: Floats, donor: Floats) -> Floats:
    """The counts' joint law one word later. A marker follows where the uniform is below.

    own, donor: probabilities of a marker, given the counts. An axis of one count is not followed.
    """
    both = np.minimum(own, donor)
    if weight.shape[1] == 1:  # the row's own count does not matter
        own, both = np.zeros_like(donor), np.zeros_like(donor)
    if weight.shape[2] == 1:
        donor, both = np.zeros_like(own), np.zeros_like(own)
    after = weight * (1 - own - donor + both)
    after[:, 1:] += (weight * (own - both))[:, :-1]
    after[:, :, 1:] += (weight * (donor - both))[:, :, :-1]
    after[:, 1:, 1:] += (weight * both)[:, :-1, :-1]
    return after
