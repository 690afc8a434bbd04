"""From arms to trials: what is missing is planned, batched, spliced, decoded and recorded.

Promises: every trial asked for comes back or an error is raised (*silent-n*); nothing that is in
the ledger runs again; a trial's tokens do not depend on batch size, order or resume in the sense
of `docs/sameness.md`. Only running out of memory is retried, with half the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers

from harness.errors import UsageError
from harness.models.load import LoadedModel
from harness.patch.splice import TENSORS, Footprint, RowPlan, Slab, build_slab
from harness.patch.store import PromptStore
from harness.run.arms import BASE, FULL_SWAP, SOURCE, Arm, canonical_arm
from harness.run.batches import automatic_batch_size, pack
from harness.run.decode import Decoded, decode
from harness.run.ledger import Ledger
from harness.run.oracle import oracle_keys, oracle_logits, relative_error
from harness.run.rows import Rows
from harness.run.sampling import uniforms
from harness.run.sampling_settings import Sampling
from harness.run.trial import Trial
from harness.tasks.task import Pair, Task

ENGINE = 1
"""Raised when a change of the engine may change tokens: older ledgers then do not count."""
ORACLE_ROWS = 2
"""Pairs, from the first, of which the oracle recomputes every arm; see `_for_oracle`."""
BATCH_DEPENDENT = (torch.bfloat16, torch.float16)

Progress = Callable[[int], None]


class Work(NamedTuple):
    """One trial to run. reference: the arm whose row must stand in the same batch, or None."""

    pair: Pair
    arm: Arm
    seed: int
    key: str
    plan: RowPlan
    reference: Arm | None
    oracle: bool


class _Recomputed(NamedTuple):
    """What the oracle said of a row's pasted keys; None where it was not asked."""

    keys_error: float | None = None
    shift: int | None = None


class _Beside(NamedTuple):
    """A row against its reference in the same batch; None where it has none."""

    same_tokens: bool | None = None
    largest: float | None = None
    scale: float | None = None


@dataclass
class Runner:
    """Runs arms of one task on one model, with one ledger.

    batch_size: rows decoded together, or None to choose by memory.
    """

    model: LoadedModel
    task: Task
    sampling: Sampling
    ledger: Ledger
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch-size {self.batch_size}: expected at least 1, or auto")
        self.store = PromptStore(self.model)
        self.rows = Rows(self.model, self.task, self.sampling.max_new_tokens)
        self.study = _hash(self._identity())

    def check(self, arms: Iterable[Arm], pairs: Sequence[Pair]) -> None:
        """Raise UsageError for whatever in these arms does not fit, before any model runs."""
        for arm in map(self._canonical, arms):
            for pair in pairs:
                self.rows.check(arm, pair)

    def run(
        self,
        arms: Iterable[Arm],
        pairs: Sequence[Pair],
        seeds: Sequence[int],
        *,
        probe_pairs: int | None = None,
        progress: Progress | None = None,
    ) -> list[Trial]:
        """Trials of every (arm, pair, seed), from the ledger or by running them.

        probe_pairs: for arms that only repeat another arm (self-patches), how many pairs, from the
            first, are decoded; None for all.
        progress: called with the number of trials that just came in.
        """
        arms = [self._canonical(arm) for arm in arms]
        self.check(arms, pairs)
        wanted = [
            (pair, arm, seed)
            for arm in dict.fromkeys(arms)
            for number, pair in enumerate(pairs)
            for seed in seeds
            if probe_pairs is None or arm.donor != "base" or number < probe_pairs
        ]
        keys = [self._key(*trial) for trial in wanted]
        missing = [
            (trial, key)
            for trial, key in zip(wanted, keys, strict=True)
            if self.ledger.get(key) is None
        ]
        if progress and len(wanted) > len(missing):
            progress(len(wanted) - len(missing))
        if missing:
            self._prefill([trial for trial, _ in missing])
            self._run_missing(
                self._plan(missing, _for_oracle(wanted, keys, pairs, self.rows.moves)), progress
            )
        found = [self.ledger.get(key) for key in keys]
        if None in found:
            lost = [trial for trial, one in zip(wanted, found, strict=True) if one is None]
            raise RuntimeError(f"{len(lost)} of {len(wanted)} trials did not come back")
        return [trial for trial in found if trial is not None]

    def splice_only(self, arm: Arm, pairs: Sequence[Pair]) -> list[Footprint]:
        """Carry out an arm's write for each pair and say what it changed; nothing is decoded."""
        arm = self._canonical(arm)
        self.check([arm], pairs)
        self._prefill([(pair, arm, 0) for pair in pairs])
        size = self._rows_at_once()
        plans = [self.rows.plan(arm, pair, 0, self.store) for pair in pairs]
        return [
            footprint
            for start in range(0, len(plans), size)
            for footprint in build_slab(
                self.store, plans[start : start + size], self.rows.rotation, room=0
            )[1]
        ]

    def _identity(self) -> dict[str, Any]:
        """Everything but pair, arm and seed that decides a trial's tokens."""
        return {
            "engine": ENGINE,
            "weights": self.model.weights_sha,
            "tokenizer": self.model.tokenizer_sha,
            "stop_ids": sorted(self.model.stop_ids),
            "task": self.task.sha,
            "dtype": self.model.dtype_name,
            "device": self.model.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "max_new_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            # Half precision depends on the batch: there the plan is part of the identity.
            "batch": self.batch_size if self.model.dtype in BATCH_DEPENDENT else None,
        }

    def _key(self, pair: Pair, arm: Arm, seed: int) -> str:
        prompts = [self.rows.tokens(pair.source), self.rows.tokens(pair.base)]
        return _hash([self.study, pair.id, prompts, arm.id, seed])

    def _canonical(self, arm: Arm) -> Arm:
        return canonical_arm(arm, self.model.n_layers)

    def _prefill(self, trials: Sequence[tuple[Pair, Arm, int]]) -> None:
        prompts = {tokens for pair, arm, _ in trials for tokens in self.rows.prompts(arm, pair)}
        self.store.add(sorted(prompts))

    def _plan(
        self, missing: Sequence[tuple[tuple[Pair, Arm, int], str]], for_oracle: set[str]
    ) -> list[Work]:
        return [
            Work(
                pair,
                arm,
                seed,
                key,
                self.rows.plan(arm, pair, seed, self.store),
                reference_of(arm),
                key in for_oracle,
            )
            for (pair, arm, seed), key in missing
        ]

    def _rows_at_once(self) -> int:
        if self.batch_size is not None:
            return self.batch_size
        slots = self.store.slots + self.sampling.max_new_tokens
        return automatic_batch_size(self.store, slots, self.model)

    def _run_missing(self, works: list[Work], progress: Progress | None) -> None:
        size = self._rows_at_once()
        queue = pack(works, size)
        while queue:
            batch = queue.pop(0)
            try:
                trials = self._run_batch(batch)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                torch.cuda.empty_cache()
                queue = pack([work for group in [batch, *queue] for work in group], size)
                continue
            self.ledger.append(trials)
            if progress:
                progress(len(trials))

    def _run_batch(self, batch: list[Work]) -> list[Trial]:
        """Run trials together, with rows added for the references that are not among them."""
        rows = list(batch)
        places = {(work.pair.id, work.arm, work.seed): i for i, work in enumerate(batch)}
        compare = []
        for place, work in enumerate(batch):
            if work.reference is None:
                continue
            spot = (work.pair.id, work.reference, work.seed)
            if spot not in places:
                places[spot] = len(rows)
                plan = self.rows.plan(work.reference, work.pair, work.seed, self.store)
                rows.append(Work(work.pair, work.reference, work.seed, "", plan, None, False))
            compare.append((place, places[spot]))
        plans = [work.plan for work in rows]
        slab, footprints = build_slab(
            self.store, plans, self.rows.rotation, room=self.sampling.max_new_tokens
        )
        uniform = torch.stack(
            [uniforms(work.pair.id, work.seed, self.sampling.max_new_tokens) for work in rows]
        )
        keep = [i for i, work in enumerate(batch) if work.oracle]
        checked = {i: self._keys_checked(batch[i], slab, i) for i in keep}
        decoded = decode(
            self.model,
            slab,
            [self.rows.last_token(work.arm, work.pair) for work in rows],
            uniform,
            self.sampling,
            compare=compare,
            keep=keep,
        )
        beside = {
            place: _Beside(decoded.tokens[place] == decoded.tokens[reference], *compared)
            for (place, reference), compared in zip(compare, decoded.compared, strict=True)
        }
        return [
            self._trial(
                work,
                footprints[i],
                decoded,
                i,
                beside.get(i, _Beside()),
                checked.get(i, _Recomputed()),
            )
            for i, work in enumerate(batch)
        ]

    def _trial(
        self,
        work: Work,
        footprint: Footprint,
        decoded: Decoded,
        place: int,
        beside: _Beside,
        recomputed: _Recomputed,
    ) -> Trial:
        pair, write = work.pair, work.plan.write
        tokens = decoded.tokens[place]
        planned = len(write.layers) * len(TENSORS[write.site]) if write else 0
        return Trial(
            key=work.key,
            study=self.study,
            model=self.model.name,
            task=self.task.name,
            pair=pair.id,
            pair_index=pair.index,
            source=pair.source.id,
            base=pair.base.id,
            source_sha=pair.source.sha,
            base_sha=pair.base.sha,
            arm=work.arm.id,
            seed=work.seed,
            prompt_tokens=work.plan.tokens,
            cached_slots=work.plan.tokens - 1,
            tokens=tuple(tokens),
            text=self.model.decode(tokens),
            stopped="stop-token" if decoded.stopped[place] else "length",
            planned=planned,
            fired=footprint.fired,
            elements=footprint.elements,
            changed=footprint.changed,
            least_changed=footprint.least_changed,
            differs=footprint.differs,
            margin=decoded.margins[place],
            reference=work.reference.id if work.reference else None,
            reference_same_tokens=beside.same_tokens,
            reference_difference=beside.largest,
            reference_scale=beside.scale,
            oracle_error=self._oracle_error(work, decoded, place) if work.oracle else None,
            oracle_keys_error=recomputed.keys_error,
            oracle_shift=recomputed.shift,
        )

    def _keys_checked(self, work: Work, slab: Slab, place: int) -> _Recomputed:
        """The keys that the splice wrote into a row, against those of a forward pass there."""
        paste = self.rows.paste(work.arm, work.pair)
        if paste is None:
            return _Recomputed()
        wanted = oracle_keys(self.model, paste)
        if not wanted.numel():
            return _Recomputed(shift=0)
        first = slab.slots - (work.plan.tokens - 1)
        slots = slice(first + paste.window.base_slots.start, first + paste.window.base_slots.stop)
        found = torch.stack([slab.keys[layer][place, :, slots] for layer in paste.layers])
        return _Recomputed(relative_error(found.to("cpu"), wanted), paste.window.shift)

    def _oracle_error(self, work: Work, decoded: Decoded, place: int) -> float:
        tokens = decoded.tokens[place]
        start = self.rows.start(SOURCE if work.arm == FULL_SWAP else work.arm, work.pair)
        wanted = oracle_logits(self.model, start, tokens, self.rows.paste(work.arm, work.pair))
        return relative_error(decoded.logits[place], wanted)


def reference_of(arm: Arm) -> Arm | None:
    """The arm that must give the same logits: base for a self-patch, source for the full swap."""
    if arm == FULL_SWAP:
        return SOURCE
    return BASE if arm.donor == "base" else None


def _for_oracle(
    wanted: Sequence[tuple[Pair, Arm, int]],
    keys: Sequence[str],
    pairs: Sequence[Pair],
    moves: Callable[[Pair], bool],
) -> set[str]:
    """Keys of the trials that the oracle recomputes: the first pairs of each arm, at one seed.

    The first ones, so that a later run on fewer pairs finds them in the ledger; with them the
    first pair of unequal lengths, in which keys move. None of noise: its oracle would have to
    share our noise.
    """
    first = {pair.id for pair in pairs[:ORACLE_ROWS]}
    if (moved := next((pair for pair in pairs if moves(pair)), None)) is not None:
        first.add(moved.id)
    return {
        key
        for (pair, arm, seed), key in zip(wanted, keys, strict=True)
        if pair.id in first and seed == 0 and arm.donor != "noise"
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
