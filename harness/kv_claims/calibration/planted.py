"""Scores of many studies of a planted model, drawn from its own law without running the network.

Promises: the joint law of the scores of all arms, exactly as the engine would give it for pairs
that are fresh draws from the model's population (or for given pairs, where luck alone is fresh):
every arm of a (pair, seed) is decided by the same uniforms, one a word. Truths are those of
`kv_claims.planted.truth`, to which the draws are exact.

Noise as the donor. Where its effect is normal (see `truth`), one standard normal a (pair, seed)
and arm moves every step of a text, as one draw of noise does. Elsewhere the law is known as at
least 2500 draws of the noise, made once with a fixed seed, and a (pair, seed) takes one of the
draws of its own pair at random: exact to the truth that is stated, not to draws that were never
made. Two arms of noise by different patches are drawn independently; in the engine their noise is
the same where they write the same layers.

Does not: generate words (a score counts markers only), nor know models without a planted truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.planted.catalog import N_LAYERS, N_STYLES, Planted
from kv_claims.planted.circuit import Floats
from kv_claims.planted.counting import Odds, markers, odds_of
from kv_claims.planted.features import Ints
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import Over, UnknownTruth, expected_means, laws
from kv_claims.planted.words import MARKERS
from kv_claims.run.arms import BASE, SOURCE, Arm, Patches, controls, patched
from kv_claims.tasks.task import Task

Truth = TypeVar("Truth")
_CHUNK_WORDS = 1_000_000
"""Words decided at once: 8 MB an array, of which about ten are alive."""
_ANY = (Patch("kv", "all", "all"),)


def roles(
    patches: Patches, *, about_layer: bool = True, versus: Patches | None = None
) -> dict[str, Arm]:
    """The arms of a claim by role, without base and source: patched, its controls, versus.

    Roles: 'patched', 'unrelated-base', 'noise', and 'wrong-layer' where there is one
    (`kv_claims.run.arms.controls`); 'versus' where it is given, patched from the source too.
    """
    found = {"patched": patched(patches), **controls(patches, N_LAYERS, about_layer=about_layer)}
    return found if versus is None else {**found, "versus": patched(versus)}


class _Drawn(NamedTuple):
    """An arm's law, ready to be drawn from.

    spread: standard deviation of the log-odds over noise, `[row, step]`, where that is normal.
    draws: rows that a pair has, one beside the other; more than 1 for draws of noise.
    """

    odds: Odds
    spread: Floats | None
    draws: int


@dataclass(frozen=True, eq=False)
class PlantedStudies:
    """Studies of a planted model: `draw` their scores, `truth` what these are drawn from.

    arms: by role, besides base and source, which are always there; see `roles`.
    task: the pairs that every study has; None for fresh draws from the population of pairs.
    Raises UnknownTruth where an arm's truth is not known, and UsageError for arms that start from
    the source and for windows that do not fit, when it is made.
    """

    planted: Planted
    arms: Mapping[str, Arm]
    max_new_tokens: int = 50
    temperature: float = 0.7
    task: Task | None = None

    def __post_init__(self) -> None:
        for role, arm in self._every.items():
            if arm.donor is not None and arm.prompt != "base":
                raise UsageError(f"arm {role!r}: it patches the source, expected the base")
        if self.task is not None and self.task.lexicon != frozenset(MARKERS):
            raise UnknownTruth(
                f"task {self.task.name!r}: scores can be drawn where the lexicon is all markers"
            )
        # Whatever is wrong is to be said here, not in the middle of a long run.
        _ = self.truth, self._laws

    @cached_property
    def truth(self) -> dict[str, float]:
        """Expected mean score of every role, in markers per 100 words, over pairs and luck."""
        return {role: self._expected(arm) for role, arm in self._every.items()}

    def draw(
        self, rng: np.random.Generator, studies: int, pairs: int, seeds: int
    ) -> dict[str, Floats]:
        """Scores by role, `[study, pair, seed]`, in markers per 100 words.

        pairs: of each study; of given pairs, as many as there are. Equal generators give equal
        scores, and a role's scores do not depend on which other roles are asked for, but for noise.
        Memory beside the scores stays under about 200 MB.
        """
        if min(studies, pairs, seeds) < 1:
            raise UsageError(f"{studies} studies, {pairs} pairs, {seeds} seeds: expected 1 or more")
        rows = self._pairs(rng, studies, pairs)
        styles = self._styles(rng, rows)
        of_noise = np.random.default_rng(rng.integers(2**63))
        found = {role: np.empty((studies, pairs, seeds)) for role in self._every}
        for some in _chunks(studies, pairs * seeds * self.max_new_tokens):
            uniforms = rng.random((some.stop - some.start, pairs, seeds, self.max_new_tokens))
            scores = self.scores(uniforms, rows[some], styles[some], of_noise)
            for role, values in scores.items():
                found[role][some] = values
        return found

    def scores(
        self,
        uniforms: Floats,
        rows: Ints,
        unrelated: Ints | None = None,
        of_noise: np.random.Generator | None = None,
    ) -> dict[str, Floats]:
        """Scores by role, `[study, pair, seed]`, of the words that given uniforms choose.

        uniforms: `[study, pair, seed, step]`, such as the engine's own. rows: of each pair,
        `[study, pair]`: its number among the given pairs, or in `features.population`.
        unrelated: the row of each pair in the arms of an unrelated base; None for the same.
        of_noise: draws the noise; needed where an arm has any.
        """
        shape = uniforms.shape[:-1]
        words = uniforms.reshape(-1, uniforms.shape[-1])
        of_arm: dict[Arm, Floats] = {}
        for arm, law in self._laws.items():
            of_pair = unrelated if arm.donor == "unrelated-base" and unrelated is not None else rows
            row = np.broadcast_to(of_pair[..., None], shape).reshape(-1)
            noise = None
            if arm.donor == "noise":
                if of_noise is None:
                    raise UsageError(f"arm {arm.id}: expected a generator for its noise")
                row = row * law.draws + of_noise.integers(law.draws, size=len(row))
                if law.spread is not None:
                    noise = of_noise.standard_normal((len(row), 1)) * law.spread[row]
            count = markers(law.odds, words, row, noise)
            of_arm[arm] = (100.0 * count / words.shape[1]).reshape(shape)
        return {role: of_arm[arm] for role, arm in self._every.items()}

    @property
    def _over(self) -> Over:
        return "population" if self.task is None else "pairs"

    @cached_property
    def _every(self) -> dict[str, Arm]:
        return {"base": BASE, "source": SOURCE, **self.arms}

    @cached_property
    def _task(self) -> Task:
        return planted_task(self.planted, 1) if self.task is None else self.task

    @cached_property
    def _laws(self) -> dict[Arm, _Drawn]:
        """Of every distinct arm: roles of one arm have one text."""
        return {arm: self._law(arm) for arm in self._every.values()}

    @cached_property
    def _n_rows(self) -> int:
        """Pairs of the population, or given pairs."""
        return len(self._laws[BASE].odds.silent)

    def _law(self, arm: Arm) -> _Drawn:
        found = self._ask(laws, arm)
        odds = odds_of(getattr(found, _stands_as(arm)))
        if arm.donor is None:
            return _Drawn(odds, None, 1)
        spread = None if found.variance is None else np.sqrt(found.variance)
        return _Drawn(odds, spread, found.patched.logits.shape[1] // found.base.logits.shape[1])

    def _expected(self, arm: Arm) -> float:
        mean: float = getattr(self._ask(expected_means, arm), _stands_as(arm))
        return mean

    def _ask(self, truth: Callable[..., Truth], arm: Arm) -> Truth:
        """What is known of an arm, by one of the functions of `truth`."""
        return truth(
            self.planted,
            arm.patches or _ANY,
            self._task,
            donor=arm.donor or "source",
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            over=self._over,
        )

    def _pairs(self, rng: np.random.Generator, studies: int, pairs: int) -> Ints:
        """The row of each pair, `[study, pair]`."""
        if self.task is None:
            return rng.integers(self._n_rows, size=(studies, pairs))
        if pairs != self._n_rows:
            raise UsageError(f"{pairs} pairs: expected the {self._n_rows} that were given")
        return np.broadcast_to(np.arange(pairs), (studies, pairs))

    def _styles(self, rng: np.random.Generator, rows: Ints) -> Ints:
        """The row of each pair, where the unrelated base is of a style of its own.

        A row of the population has one style for source and unrelated base, which are drawn
        independently: of a row, lengths stay and the style is drawn anew.
        """
        if self.task is not None or not self.planted.styled:
            return rows
        fresh: Ints = rows - rows % N_STYLES + rng.integers(N_STYLES, size=rows.shape)
        return fresh


def _stands_as(arm: Arm) -> str:
    """Which of the three arms of a truth an arm is."""
    return arm.prompt if arm.donor is None else "patched"


def _chunks(studies: int, words: int) -> Iterator[slice]:
    """The studies, so many at once that their words are few. words: of one study."""
    width = max(1, _CHUNK_WORDS // words)
    for start in range(0, studies, width):
        yield slice(start, min(start + width, studies))
