"""Teacher-forced runs: what an arm makes of continuations that others generated.

One forward pass a batch over [last prompt token, continuation], from the same patched caches and
with the same patches on as when the arm generates. Every (pair, seed) brings the unpatched source
along, for the divergence from its distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from kv_claims.models.forward import with_cache
from kv_claims.patch.build import build
from kv_claims.patch.interception import edited
from kv_claims.patch.plan import RowPlan
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm
from kv_claims.run.decode import decode
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.oracle import oracle_logits, relative_error
from kv_claims.run.recompute import ORACLE_ROWS
from kv_claims.run.rows import Tokens
from kv_claims.run.runner import Runner, hash_of
from kv_claims.run.sampling import uniforms
from kv_claims.run.slab_cache import as_cache, padding_mask
from kv_claims.tasks.task import Pair

_NUMBERS_AT_ONCE = 1 << 27
"""Most logits of one forward pass."""
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


class _Row(NamedTuple):
    """A row of the forward pass: what is fed after its cache, the last prompt token first."""

    plan: RowPlan
    fed: Tokens


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
        if missing:
            for group in runner.stocked(missing, lambda want: (want.pair, want.arm)):
                for batch in self._batches(group):
                    records.append(self._run(batch, said))
        found = [records.get(want.key) for want in wanted]
        if None in found:
            raise RuntimeError(
                f"{found.count(None)} of {len(wanted)} likelihoods did not come back"
            )
        return [one for one in found if one is not None]

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

    def _batches(self, wanted: Sequence[_Want]) -> Iterator[list[_Want]]:
        """Cut so that a forward pass makes few logits, the rows beside them counted."""
        runner = self.runner
        vocabulary, steps = int(runner.model.config.vocab_size), runner.sampling.max_new_tokens
        most = max(1, _NUMBERS_AT_ONCE // (vocabulary * steps) // 5)
        most = min(most, max(1, runner.rows_at_once() // 5))
        for start in range(0, len(wanted), most):
            yield list(wanted[start : start + most])

    @torch.no_grad()
    def _run(self, batch: Sequence[_Want], said: Mapping[Luck, Continuations]) -> list[Likelihood]:
        runner = self.runner
        own = self._own_generations(batch)
        rows: list[_Row] = []
        donor_rows: dict[tuple[int, int], int] = {}
        places: dict[tuple[Luck, object], int] = {}

        def add(spot: tuple[Luck, object], plan: RowPlan, last: int, continuation: Tokens) -> int:
            if spot not in places:
                places[spot] = len(rows)
                rows.append(_Row(plan, (last, *continuation[:-1])))
            return places[spot]

        spots = []
        for want in batch:
            pair, luck = want.pair, want.luck
            plan = runner.rows.plan(want.arm, pair, want.seed, runner.store)
            source = runner.rows.plan(SOURCE, pair, want.seed, runner.store)
            last = runner.rows.last_token(want.arm, pair)
            mine = [
                add((luck, (want.arm, side)), plan, last, continuation)
                for side, continuation in zip(("source", "base"), said[luck], strict=True)
            ]
            reference = add(
                (luck, (SOURCE, "source")),
                source,
                runner.rows.last_token(SOURCE, pair),
                said[luck].source,
            )
            for prompt in plan.step_donors:
                tokens = runner.store.tokens[prompt]
                donor = add(
                    (luck, prompt), RowPlan(prompt, len(tokens)), tokens[-1], own[luck, prompt]
                )
                donor_rows.update({(row, prompt): donor for row in mine})
            spots.append((mine, reference))
        logits = self._forward(rows, donor_rows)
        return [
            self._likelihood(want, said[want.luck], logits, mine, reference, own)
            for want, (mine, reference) in zip(batch, spots, strict=True)
        ]

    def _likelihood(
        self,
        want: _Want,
        said: Continuations,
        logits: torch.Tensor,
        mine: Sequence[int],
        reference: int,
        own: Mapping[tuple[Luck, int], Tokens],
    ) -> Likelihood:
        runner, n = self.runner, len(said.source)
        of_source, of_base = (
            _log_probability(logits[row, : len(tokens)], tokens)
            for row, tokens in zip(mine, said, strict=True)
        )
        error = None
        if want.oracle:
            store = runner.store
            generated = {
                tuple(store.tokens[prompt]): tokens
                for (luck, prompt), tokens in own.items()
                if luck == want.luck
            }
            start = runner.rows.start(SOURCE if want.arm == FULL_SWAP else want.arm, want.pair)
            pastes = runner.rows.pastes(want.arm, want.pair, generated)
            recomputed = oracle_logits(runner.model, start, said.source, pastes)
            error = relative_error(logits[mine[0], :n].cpu(), recomputed)
        return Likelihood(
            key=want.key,
            study=runner.study,
            pair=want.pair.id,
            pair_index=want.pair.index,
            arm=want.arm.id,
            seed=want.seed,
            of_source=of_source,
            of_base=of_base,
            kl=_divergence(logits[reference, :n], logits[mine[0], :n]),
            source_tokens=n,
            base_tokens=len(said.base),
            oracle_error=error,
        )

    def _forward(
        self, rows: Sequence[_Row], donor_rows: Mapping[tuple[int, int], int]
    ) -> torch.Tensor:
        """Logits `row step vocab` of everything that is fed; behind a row's end they mean nothing.

        Rows are padded at their right end, where causal attention keeps the padding out of sight.
        """
        runner = self.runner
        steps = max(len(row.fed) for row in rows)
        built = build(
            runner.store,
            [row.plan for row in rows],
            runner.rows.rotation,
            headroom=steps,
            donor_rows=donor_rows,
        )
        slab, live = built.slab, built.live or None
        device = runner.model.device
        ids = torch.zeros(len(rows), steps, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row.fed)] = torch.tensor(row.fed)
        if live is not None:
            live.begin(range(steps))
        with edited(runner.model, live.spots if live else [], live.edit if live else None):
            logits: torch.Tensor = runner.model.network(
                input_ids=ids.to(device),
                attention_mask=padding_mask(slab, steps),
                position_ids=(slab.lengths - 1)[:, None] + torch.arange(steps, device=device),
                **with_cache(runner.model.network, as_cache(slab, live)),
                use_cache=True,
            ).logits
        return logits

    def _own_generations(self, batch: Sequence[_Want]) -> dict[tuple[Luck, int], Tokens]:
        """What the donors of every-step patches generate by themselves.

        Past a stop token too: the row that reads a donor may be fed more than the donor said.
        """
        runner = self.runner
        spots = sorted(
            {
                (want.luck, prompt)
                for want in batch
                for prompt in runner.rows.plan(
                    want.arm, want.pair, want.seed, runner.store
                ).step_donors
            }
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


def _log_probability(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """Mean log-probability of tokens, nats; logits `step vocab` from which each would be drawn."""
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    return float(torch.log_softmax(logits.double(), -1).gather(-1, chosen).mean())


def _divergence(reference: torch.Tensor, logits: torch.Tensor) -> float:
    """Mean KL divergence from one distribution to another, nats; both `step vocab`."""
    wide = torch.log_softmax(reference.double(), -1)
    apart = wide - torch.log_softmax(logits.double(), -1)
    return float((wide.exp() * apart).sum(-1).mean().clamp(min=0.0))
