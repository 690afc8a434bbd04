"""From uniforms to marker words, by a law and without a network.

Promises: the very words' class that the engine's inverse CDF gives. Markers come first in token-id
order, so that a marker is generated where the uniform lies below the total probability of the
markers; what raises all of them alike, by `shift`, adds to the log-odds of that total, whatever
the classes of words are.
Does not: draw anything, nor tell one marker from another (`degenerate` does).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from kv_claims.planted.circuit import Floats
from kv_claims.planted.features import Ints
from kv_claims.planted.law import Law
from kv_claims.planted.words import MARKERS

_MARKER_SET = frozenset(MARKERS)


class Odds(NamedTuple):
    """A law as far as markers go, a row for each row of the law.

    silent: log-odds of a marker had none been generated before, `[row, step]`.
    own, of_donor: what one marker before, of the row or of its donor, adds, `[row, step]`.
    donor: the donor's, where it matters.
    """

    silent: Floats
    own: Floats
    of_donor: Floats
    donor: Odds | None

    @property
    def has_feedback(self) -> bool:
        """Whether a step depends on what was generated before."""
        return bool(self.own.any() or self.of_donor.any())


def odds_of(law: Law) -> Odds:
    """The log-odds of a marker, over all classes of words."""
    is_marker = np.array([words[0] in _MARKER_SET for words in law.classes])
    sizes = np.array([len(words) for words in law.classes])
    heights = law.logits + np.log(sizes)[:, None, None]
    silent = logsumexp(heights[is_marker], axis=0) - logsumexp(heights[~is_marker], axis=0)
    donor = None if law.donor is None else odds_of(law.donor)
    return Odds(silent, law.own, law.of_donor, donor)


def fed(odds: Odds, uniforms: Floats, rows: Ints, noise: Floats | float = 0.0) -> Floats:
    """What noise and the markers before add to every marker's log-odds, `[text, step]`.

    uniforms: one a word, `[text, step]`, the same for a text and its donor. rows: the law's row
    of each text, `[text]`. noise: what is added in any case, `[text, step]`.
    """
    shift = np.zeros(uniforms.shape) + noise
    if not odds.has_feedback:
        return shift
    own, of_donor = np.zeros(len(rows)), np.zeros(len(rows))
    for t in range(uniforms.shape[1]):
        shift[:, t] += odds.own[rows, t] * own + odds.of_donor[rows, t] * of_donor
        own += uniforms[:, t] < expit(odds.silent[rows, t] + shift[:, t])
        if odds.donor is not None:
            theirs = odds.donor.silent[rows, t] + odds.donor.own[rows, t] * of_donor
            of_donor += uniforms[:, t] < expit(theirs)
    return shift


def markers(odds: Odds, uniforms: Floats, rows: Ints, noise: Floats | None = None) -> Ints:
    """How many markers each text holds, `[text]`; arguments as of `fed`."""
    if noise is None and not odds.has_feedback:
        # The common case is a look-up: every row's probabilities are known beforehand.
        chance = expit(odds.silent)[rows]
    else:
        shift = fed(odds, uniforms, rows, 0.0 if noise is None else noise)
        chance = expit(odds.silent[rows] + shift)
    found: Ints = np.count_nonzero(uniforms < chance, axis=1).astype(np.int64)
    return found
