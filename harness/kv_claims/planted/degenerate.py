"""How much of what a planted model generates is degenerate text, by its own law.

Monte Carlo of the law of words (`truth.laws`), with a fixed seed: the network is not run. What is
degenerate is decided by the same rule as for generated text, `kv_claims.measure.behavior`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Literal

import numpy as np

from kv_claims.claims.patch import Patch, as_patches, donor_of
from kv_claims.measure.behavior import repetition
from kv_claims.planted.catalog import Planted
from kv_claims.planted.circuit import Floats
from kv_claims.planted.counting import fed, odds_of
from kv_claims.planted.features import Ints
from kv_claims.planted.law import Law, word_classes
from kv_claims.planted.pasting import check
from kv_claims.planted.truth import Over, laws
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.tasks.task import Task

_SEED = 0
_WORDS = (*MARKERS, *PLAIN)
"""In token-id order, as the uniforms choose them."""
_MANY_WORDS = 20
"""Words of a class, all equally likely, among which a text does not repeat itself."""
_ANY = Patch("kv", "all", "all")


def expected_degenerate_share(
    planted: Planted,
    patches: Patch | Sequence[Patch],
    task: Task,
    *,
    arm: Literal["base", "source", "patched"] = "patched",
    donor: str | None = None,
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    over: Over = "population",
    texts: int = 400,
) -> float:
    """The probability that a generated text is degenerate, from at least `texts` texts.

    patches, donor: of the arm 'patched'; the other arms do not read them, and `patches` may then
        be empty. The standard error of the share is at most 0.5 / sqrt(texts). Where no word is
        likelier than 1 in 20, whatever the logits, it is 0 to far beyond any use of it.
    Raises UsageError as `truth.expected_means` does.
    """
    if min(map(len, word_classes(planted))) >= _MANY_WORDS:
        return 0.0
    is_patched = arm == "patched"
    asked = as_patches(patches) if is_patched else (_ANY,)
    donor = donor or donor_of(asked)
    check(asked, donor)
    found = laws(
        planted,
        asked,
        task,
        donor=donor if is_patched else "source",
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        over=over,
    )
    law: Law = getattr(found, arm)
    spread = np.sqrt(found.variance) if is_patched and found.variance is not None else None
    draw = np.random.default_rng(_SEED)
    judged: list[bool] = []
    for _ in range(ceil(texts / law.logits.shape[1])):
        words = _texts(law, draw, spread)
        written = [" ".join(_WORDS[i] for i in row) for row in words.tolist()]
        judged += [repetition(text).degenerate for text in written]
    return float(np.mean(judged))


def _texts(law: Law, draw: np.random.Generator, spread: Floats | None) -> Ints:
    """One text for each row: numbers of words, `[row, step]`.

    spread: of the logits over noise; one draw of the noise holds for a whole text.
    """
    _, n_rows, steps = law.logits.shape
    noise = np.zeros((n_rows, steps))
    if spread is not None:
        noise = draw.standard_normal((n_rows, 1)) * spread
    uniform = draw.random((n_rows, steps))
    shift = fed(odds_of(law), uniform, np.arange(n_rows), noise)
    words = np.zeros((n_rows, steps), dtype=np.int64)
    for t in range(steps):
        words[:, t] = _choose(law, law.given(shift[:, t], t), uniform[:, t])
    return words


def _choose(law: Law, of_class: Floats, uniform: Floats) -> Ints:
    """The word under each uniform, `[row]`, by the inverse CDF in token-id order."""
    classes = _class_of_word(law.classes)
    sizes = np.bincount(classes)
    below = np.cumsum((of_class / sizes[:, None])[classes], axis=0) <= uniform
    chosen: Ints = np.minimum(below.sum(0), len(_WORDS) - 1)
    return chosen


@lru_cache(maxsize=8)
def _class_of_word(classes: tuple[tuple[str, ...], ...]) -> Ints:
    """The number of each word's class, in token-id order."""
    number = {word: index for index, words in enumerate(classes) for word in words}
    return np.array([number[word] for word in _WORDS])
