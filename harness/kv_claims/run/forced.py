"""Teacher-forced runs: what an arm makes of continuations that others generated.

One forward pass a batch over [last prompt token, continuation], from the same patched caches and
with the same patches on as when the arm generates (`kv_claims.run.forced_pass`). Every (pair, seed)
of a batch brings the unpatched source along, once, for the divergence from its distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from kv_claims.models.finite import are_finite, not_finite
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm
from kv_claims.run.batch_size import BatchSize
from kv_claims.run.batches import forced_batch_size
from kv_claims.run.decode import decode
from kv_claims.run.distributions import Reference, along
from kv_claims.run.forced_pass import Row, forced_logits
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.oracle import oracle_logits, relative_error
from kv_claims.run.recompute import ORACLE_ROWS
from kv_claims.run.rows import Tokens
from kv_claims.run.runner import Runner, hash_of
from kv_claims.run.sampling import uniforms
from kv_claims.tasks.task import Pair

Luck = tuple[str, int]
"""A pair's id and a seed: what a generation's uniforms come from."""


class Continuations(NamedTuple):
    """What the source and the base arm of a pair generated."""

    source: Tokens
    base: Tokens


class _Want(NamedTuple):
    """One likelihood to measure."""

    arm: Arm
    pair: Pair
    seed: int
    key: str
    oracle: bool

    @property
    def luck(self) -> Luck:
        return self.pair.id, self.seed


class _Spots(NamedTuple):
    """Where a likelihood is read. mine: the rows of its arm, fed the source's continuation and the
    base's. reference: the row of the unpatched source, fed its own."""

    mine: tuple[int, int]
    reference: int


class _Batch:
    """Rows of one forward pass, each once, and the caches that they continue.

    live: whether something is written while tokens are fed: then no two rows share a cache.
    """

    def __init__(self, *, live: bool) -> None:
        self.plans: list[RowPlan] = []
        self.rows: list[Row] = []
        self.donor_rows: dict[tuple[int, int], int] = {}
        self._live = live
        self._places: dict[tuple[Luck, object], int] = {}
        self._caches: dict[RowPlan, int] = {}

    def place(
        self, spot: tuple[Luck, object], plan: RowPlan, last: int, continuation: Tokens
    ) -> int:
        """The row of a spot. last: the prompt token that is fed first."""
        if spot not in self._places:
            self._places[spot] = len(self.rows)
            self.rows.append(Row(self._cache(plan), (last, *continuation[:-1])))
        return self._places[spot]

    def _cache(self, plan: RowPlan) -> int:
        if self._live or plan not in self._caches:
            self._caches[plan] = len(self.plans)
            self.plans.append(plan)
        return self._caches[plan]


@dataclass
class ForcedRuns:
    """Measures likelihoods of a runner's arms, from its ledger where they are there."""

    runner: Runner

    def measure(
        self, arms: Iterable[Arm], pairs: Sequence[Pair], seeds: Sequence[int]
    ) -> list[Likelihood]:
        """Likelihoods of every (arm, pair, seed); base and source are run where they were not."""
        runner = self.runner
        runner.check_untouched()
        arms = list(dict.fromkeys(map(runner.canonical, arms)))
        runner.check(arms, pairs)
        said = self._continuations(pairs, seeds)
        oracle = {pair.id for pair in pairs[:ORACLE_ROWS]}
        wanted = [
            _Want(
                arm,
                pair,
                seed,
                hash_of(["likelihood", runner.key(pair, arm, seed)]),
                pair.id in oracle and seed == 0 and arm.donor != "noise",
            )
            for pair in pairs
            for seed in seeds
            for arm in arms
        ]
        records = runner.ledger.likelihoods
        missing = [want for want in wanted if records.get(want.key) is None]
        for group in runner.stocked(missing, lambda want: (want.pair, want.arm)):
            self._run_group(group, said)
        return records.held([want.key for want in wanted], "likelihoods")

    def _continuations(
        self, pairs: Sequence[Pair], seeds: Sequence[int]
    ) -> dict[Luck, Continuations]:
        trials = self.runner.run([SOURCE, BASE], pairs, seeds)
        tokens = {(trial.arm, trial.pair, trial.seed): trial.tokens for trial in trials}
        return {
            (pair.id, seed): Continuations(
                tokens[SOURCE.id, pair.id, seed], tokens[BASE.id, pair.id, seed]
            )
            for pair in pairs
            for seed in seeds
        }

    def _run_group(self, group: Sequence[_Want], said: Mapping[Luck, Continuations]) -> None:
        """Measure what is missing, a pair's arms together; those that write while they are fed
        apart from the others."""
        runner = self.runner
        steps = runner.sampling.max_new_tokens
        slots = max(runner.store.lengths) + steps
        most = forced_batch_size(slots, steps, runner.model)
        size = BatchSize(runner.batch_size, most, len(group), reproducible=True)
        for live in (False, True):
            left = [want for want in group if self._is_live(want) is live]
            while left:
                batch = self._first(left, size.rows)
                found = size.attempt(partial(self._run, batch, said, live=live))
                if found is None:
                    torch.cuda.empty_cache()
                    continue
                runner.ledger.likelihoods.append(found)
                left = left[len(batch) :]

    def _is_live(self, want: _Want) -> bool:
        """Whether its arm writes while tokens are fed, the last prompt token included."""
        plan = self._plan(want)
        return any(plan.planned_at_step(step) for step in (0, 1))

    def _plan(self, want: _Want) -> RowPlan:
        return self.runner.rows.plan(want.arm, want.pair, want.seed, self.runner.store)

    def _first(self, wanted: Sequence[_Want], size: int) -> list[_Want]:
        """As many as their rows allow, those beside them counted; at least one."""
        taken, rows, lucks = 0, 0, set[Luck]()
        for want in wanted:
            # Two continuations, the donors beside them, and once a pair and seed the source.
            rows += 2 + len(self._plan(want).step_donors) + (want.luck not in lucks)
            lucks.add(want.luck)
            if taken and rows > size:
                break
            taken += 1
        return list(wanted[:taken])

    def _run(
        self, wanted: Sequence[_Want], said: Mapping[Luck, Continuations], *, live: bool
    ) -> list[Likelihood]:
        own = self._own_generations(wanted)
        batch = _Batch(live=live)
        spots = [self._placed(want, said[want.luck], own, batch) for want in wanted]
        logits = self._forward(batch)
        references: dict[int, Reference] = {}
        found = []
        for want, spot in zip(wanted, spots, strict=True):
            if spot.reference not in references:
                references.clear()  # a pair's arms stand together, and it is large
                n = len(said[want.luck].source)
                references[spot.reference] = Reference.of(logits[spot.reference, :n])
            reference = references[spot.reference]
            found.append(self._likelihood(want, said[want.luck], logits, spot, reference, own))
        return found

    def _placed(
        self,
        want: _Want,
        said: Continuations,
        own: Mapping[tuple[Luck, int], Tokens],
        batch: _Batch,
    ) -> _Spots:
        """Put the rows of a likelihood into a batch, as far as they are not there."""
        runner, pair, luck = self.runner, want.pair, want.luck
        plan, last = self._plan(want), runner.rows.last_token(want.arm, pair)
        of_source, of_base = (
            batch.place((luck, (want.arm, side)), plan, last, continuation)
            for side, continuation in zip(("source", "base"), said, strict=True)
        )
        reference = batch.place(
            (luck, (SOURCE, "source")),
            runner.rows.plan(SOURCE, pair, want.seed, runner.store),
            runner.rows.last_token(SOURCE, pair),
            said.source,
        )
        for prompt in plan.step_donors:
            tokens = runner.store.tokens[prompt]
            alone = RowPlan(prompt, len(tokens))
            donor = batch.place((luck, prompt), alone, tokens[-1], own[luck, prompt])
            batch.donor_rows.update({(row, prompt): donor for row in (of_source, of_base)})
        return _Spots((of_source, of_base), reference)

    def _likelihood(
        self,
        want: _Want,
        said: Continuations,
        logits: torch.Tensor,
        spots: _Spots,
        reference: Reference,
        own: Mapping[tuple[Luck, int], Tokens],
    ) -> Likelihood:
        runner, n = self.runner, len(said.source)
        of_source, of_base = spots.mine
        by_source = along(logits[of_source, :n], said.source, reference)
        by_base = along(logits[of_base], said.base)
        assert by_source.divergence is not None
        error = None
        if want.oracle:
            store = runner.store
            generated = {
                tuple(store.tokens[prompt]): tokens
                for (luck, prompt), tokens in own.items()
                if luck == want.luck
            }
            start = runner.rows.start(SOURCE if want.arm == FULL_SWAP else want.arm, want.pair)
            pastes = runner.rows.pastes(want.arm, want.pair, generated, want.seed)
            recomputed = oracle_logits(runner.model, start, said.source, pastes)
            error = relative_error(logits[of_source, :n].cpu(), recomputed)
        return Likelihood(
            key=want.key,
            study=runner.study,
            pair=want.pair.id,
            pair_index=want.pair.index,
            arm=want.arm.id,
            seed=want.seed,
            of_source=by_source.chosen,
            of_base=by_base.chosen,
            kl=by_source.divergence,
            source_tokens=n,
            base_tokens=len(said.base),
            oracle_error=error,
        )

    def _forward(self, batch: _Batch) -> torch.Tensor:
        """Logits `row step vocab` of a batch; see `forced_logits`."""
        runner = self.runner
        built = build(
            runner.store,
            batch.plans,
            runner.rows.rotation,
            headroom=max(len(row.fed) for row in batch.rows),
            donor_rows=batch.donor_rows,
            shared=True,
        )
        logits = forced_logits(runner.model, built, batch.rows)
        if not are_finite(logits):
            raise not_finite(runner.model, "its logits")
        return logits

    def _own_generations(self, wanted: Sequence[_Want]) -> dict[tuple[Luck, int], Tokens]:
        """What the donors of every-step patches generate by themselves.

        Past a stop token too: the row that reads a donor may be fed more than the donor said.
        """
        runner = self.runner
        spots = sorted(
            {(want.luck, prompt) for want in wanted for prompt in self._plan(want).step_donors}
        )
        if not spots:
            return {}
        prompts = [runner.store.tokens[prompt] for _, prompt in spots]
        plans = [RowPlan(prompt, len(t)) for (_, prompt), t in zip(spots, prompts, strict=True)]
        steps = runner.sampling.max_new_tokens
        decoded = decode(
            runner.model,
            build(runner.store, plans, runner.rows.rotation, headroom=steps).slab,
            [tokens[-1] for tokens in prompts],
            torch.stack([uniforms(pair, seed, steps) for (pair, seed), _ in spots]),
            runner.sampling,
            past_stops=True,
        )
        return {spot: tuple(ids) for spot, ids in zip(spots, decoded.ids, strict=True)}
