"""From arms to trials: what is missing is planned, batched, spliced, decoded and recorded.

Promises: every trial asked for comes back or an error is raised (*silent-n*); nothing that is in
the ledger runs again; a trial's tokens do not depend on batch size, order or resume in the sense
of `docs/sameness.md`. Only running out of memory is retried, with half the batch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import tokenizers
import torch
import transformers

from kv_claims.errors import UsageError
from kv_claims.models.identity import foreign, stamp, weights_sha
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import Footprint, RowPlan
from kv_claims.patch.store import PromptStore
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, canonical_arm
from kv_claims.run.batch_size import BatchSize
from kv_claims.run.batches import Work, automatic_batch_size, first_batch
from kv_claims.run.decode import decode
from kv_claims.run.fits import check_fits
from kv_claims.run.geometry import geometry_of
from kv_claims.run.ledger import Ledger
from kv_claims.run.recompute import Recomputed, for_oracle, logits_error, pasted_keys
from kv_claims.run.routes import Route, route_of
from kv_claims.run.rows import Rows
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.tasks.task import Pair, Task

ENGINE = 6
"""Raised when a change of the engine may change tokens, or what is seen of a write: older ledgers
then do not count."""
BRIEF = 2
"""Tokens of a trial of which no text is read: one from the patched prompt, and one step more, in
which what is on at every step shows."""
BATCH_DEPENDENT = ("bfloat16", "float16")

Progress = Callable[[int], None]
Thing = TypeVar("Thing")


class _Row(NamedTuple):
    """A row of a batch: a trial's, or one that a trial is compared with or reads from."""

    pair: Pair
    seed: int
    plan: RowPlan
    last_token: int


class _Beside(NamedTuple):
    """A row against its reference in the same batch; None where it has none."""

    same_tokens: bool | None = None
    largest: float | None = None
    scale: float | None = None


@dataclass
class Runner:
    """Runs arms of one task on one model, with one ledger.

    batch_size: rows decoded together, or None to choose by memory.
    ran, read: trials that were run so far, and that the ledger had.
    batches: how many were decoded by which route, see `kv_claims.run.routes`.
    weights_sha: hash of the network as it was when this was made; a network that was edited since
        needs another runner, and says so.
    memory: that of the static route, which its batches use in turn.
    """

    model: LoadedModel
    task: Task
    sampling: Sampling
    ledger: Ledger
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch-size {self.batch_size}: expected at least 1, or auto")
        hooks = foreign(self.model.network)
        if hooks and self.ledger.folder is not None:
            raise UsageError(
                f"model {self.model.name!r}: its network has hooks ({hooks[0]}), and what they "
                "change cannot be hashed, so no trial of it can be kept: expected no ledger"
            )
        self._counts: Counter[str] = Counter()
        self.weights_sha = weights_sha(self.model.network)
        self._stamp = stamp(self.model.network)
        self.store = PromptStore(self.model)
        check_fits(self.model)
        self.rows = Rows(self.model, self.task, self.sampling.max_new_tokens)
        self.memory = Memory()
        self.study = hash_of(self._identity())
        self.batches: Counter[str] = Counter()

    @property
    def ran(self) -> int:
        return self._counts["ran"]

    @property
    def read(self) -> int:
        return self._counts["read"]

    def brief(self) -> Runner:
        """The same weights, prompts and ledger, for what no generation is read of.

        Its trials are of `BRIEF` tokens: enough for every check of the instrument. They are counted
        here.
        """
        found = copy(self)
        found.sampling = replace(self.sampling, max_new_tokens=BRIEF)
        found.rows = Rows(self.model, self.task, BRIEF)
        found.study = hash_of(found._identity())
        return found

    @cached_property
    def route(self) -> Route:
        """How batches are decoded; found out when first asked, by running a few rows."""
        return route_of(self.model)

    def check(self, arms: Iterable[Arm], pairs: Sequence[Pair]) -> None:
        """Raise UsageError for whatever in these arms does not fit, before any model runs."""
        self.rows.check_differ(pairs)
        for arm in map(self.canonical, arms):
            self.rows.check_arm(arm)
            for pair in pairs:
                self.rows.check(arm, pair)

    def check_untouched(self) -> None:
        """Raise UsageError for a network that was edited since this was made.

        Its trials and stored prompts so far are of another model.
        """
        if stamp(self.model.network) != self._stamp:
            raise UsageError(
                f"model {self.model.name!r}: its network was changed after this study was opened, "
                "and what was run before is of another model: open another study"
            )

    def run(
        self,
        arms: Iterable[Arm],
        pairs: Sequence[Pair],
        seeds: Sequence[int],
        *,
        probe_pairs: int | None = None,
        progress: Progress | None = None,
        found: Progress | None = None,
    ) -> list[Trial]:
        """Trials of every (arm, pair, seed), from the ledger or by running them.

        probe_pairs: for arms that only repeat another arm (self-patches), how many pairs, from the
            first, are decoded; None for all.
        progress: called with the number of trials that just came in.
        found: the same for those that the ledger had, which took no time; else progress is.
        """
        self.check_untouched()
        arms = [self.canonical(arm) for arm in arms]
        self.check(arms, pairs)
        wanted = [
            (pair, arm, seed)
            for arm in dict.fromkeys(arms)
            for number, pair in enumerate(pairs)
            for seed in seeds
            if probe_pairs is None or arm.donor != "base" or number < probe_pairs
        ]
        keys = [self.key(*trial) for trial in wanted]
        missing = [
            (trial, key)
            for trial, key in zip(wanted, keys, strict=True)
            if self.ledger.get(key) is None
        ]
        self._counts["read"] += (known := len(wanted) - len(missing))
        if known and (tell := found or progress):
            tell(known)
        if missing:
            self._run_missing(missing, for_oracle(wanted, keys, pairs, self.rows.moves), progress)
        return self.ledger.held(keys, "trials")

    def decode_only(self, trials: Sequence[tuple[Pair, Arm, int]]) -> None:
        """Decode trials, whose prompts are in the store, in one batch, and keep nothing."""
        works = [((pair, self.canonical(arm), seed), "") for pair, arm, seed in trials]
        self._run_batch(self._plan(works, set()), BatchSize(len(works), len(works), len(works)))

    def _identity(self) -> dict[str, Any]:
        """Everything but pair, arm and seed that decides a trial's tokens."""
        half = self.model.precision in BATCH_DEPENDENT
        return {
            "engine": ENGINE,
            "weights": self.weights_sha,
            "tokenizer": self.model.tokenization.sha,
            **({"chat": self.model.tokenization.chat.sha} if self.task.has_messages else {}),
            "tokenizers": tokenizers.__version__,
            "stop_ids": sorted(self.model.stop_ids),
            "task": self.task.sha,
            "dtype": self.model.dtype_name,
            "device": self.model.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "max_new_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            # Half precision depends on the batch and on how it is decoded: there both are part of
            # the identity.
            "batch": {"size": self.batch_size, "route": self.route.kind} if half else None,
        }

    def key(self, pair: Pair, arm: Arm, seed: int) -> str:
        """Hash of everything that determines a trial."""
        prompts = [self.rows.tokens(pair.source), self.rows.tokens(pair.base)]
        direction = self.rows.constants.sha(arm)
        rests_on = [direction] if direction else []
        return hash_of([self.study, pair.id, prompts, arm.id, seed, *rests_on])

    def canonical(self, arm: Arm) -> Arm:
        """The arm in one spelling on this model."""
        return canonical_arm(arm, self.model.n_layers, self.model.heads)

    def stocked(
        self, things: Sequence[Thing], row: Callable[[Thing], tuple[Pair, Arm]]
    ) -> Iterator[Sequence[Thing]]:
        """Things to run, group by group: while one is out, the prompts of its rows are stored.

        row: the pair and the arm of a thing. Plans hold for their group only.
        """
        prompts = [self.rows.prompts(arm, pair) for pair, arm in map(row, things)]
        for group in self.store.groups(prompts):
            self.store.add([prompt for i in group for prompt in prompts[i]])
            yield things[group.start : group.stop]

    def prefill(self, rows: Sequence[tuple[Pair, Arm]]) -> None:
        """Put the prompts of some rows into the store."""
        prompts = {tokens for pair, arm in rows for tokens in self.rows.prompts(arm, pair)}
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

    def rows_at_once(self) -> int:
        """Rows of a batch, as asked or by memory; the prompts must be in the store."""
        return self.batch_size or self._most_rows(max(self.store.lengths))

    def _most_rows(self, tokens: int) -> int:
        slots = tokens + self.sampling.max_new_tokens
        return automatic_batch_size(slots, self.model, held=self.memory.bytes)

    def _run_missing(
        self,
        missing: Sequence[tuple[tuple[Pair, Arm, int], str]],
        oracle: set[str],
        progress: Progress | None,
    ) -> None:
        """Run trials, a pair's arms together and pairs alike in length next to each other."""
        ordered = sorted(
            missing, key=lambda one: (len(self.rows.tokens(one[0][0].base)), one[0][0].index)
        )
        prompts = (self.rows.prompts(arm, pair) for (pair, arm, _), _ in missing)
        longest = max(len(prompt) for some in prompts for prompt in some)
        half = self.model.precision in BATCH_DEPENDENT
        size = BatchSize(self.batch_size, self._most_rows(longest), len(missing), reproducible=half)
        for group in self.stocked(ordered, lambda one: one[0][:2]):
            self._run_group(self._plan(group, oracle), size, progress)

    def _run_group(self, works: list[Work], size: BatchSize, progress: Progress | None) -> None:
        while works:
            batch, works = first_batch(works, size.rows)
            trials = size.attempt(partial(self._run_batch, batch, size))
            if trials is None:
                self.memory.release()
                torch.cuda.empty_cache()
                works = [*batch, *works]
                continue
            self.ledger.append(trials)
            self._counts["ran"] += len(trials)
            if progress:
                progress(len(trials))

    def _run_batch(self, batch: list[Work], size: BatchSize) -> list[Trial]:
        """Run trials together, with the rows added that they are compared with or read from."""
        rows, compare, donor_rows = self._with_companions(batch)
        plans = [row.plan for row in rows]
        kind = self.route.of(plans, self.sampling.max_new_tokens)
        started = time.perf_counter()
        self.batches[kind] += 1
        built = build(
            self.store,
            plans,
            self.rows.rotation,
            headroom=self.sampling.max_new_tokens,
            donor_rows=donor_rows,
            shared=kind == "shared",
            memory=self.memory if kind == "static" else None,
        )
        uniform = torch.stack(
            [uniforms(row.pair.id, row.seed, self.sampling.max_new_tokens) for row in rows]
        )
        keep = [place for place, work in enumerate(batch) if work.oracle]
        keys = {
            place: pasted_keys(self.model, self.rows, batch[place], built, place) for place in keep
        }
        decoded = decode(
            self.model,
            built.slab,
            [row.last_token for row in rows],
            uniform,
            self.sampling,
            live=built.live or None,
            compare=compare,
            keep=keep,
        )
        size.ran(len(rows), time.perf_counter() - started)
        geometry = geometry_of(built.slab, [len(tokens) for tokens in decoded.tokens[: len(batch)]])
        steps = built.live.seen()
        beside = {
            place: _Beside(
                decoded.tokens[place] == decoded.tokens[reference]
                or compared.is_near_tie(self.sampling.temperature),
                compared.largest,
                compared.scale,
            )
            for (place, reference), compared in zip(compare, decoded.compared, strict=True)
        }
        trials = []
        for place, work in enumerate(batch):
            tokens = decoded.tokens[place]
            told = beside.get(place, _Beside())
            checked = Recomputed()
            if work.oracle:
                of_donors = {
                    tuple(self.store.tokens[prompt]): tuple(decoded.ids[row])
                    for (reader, prompt), row in donor_rows.items()
                    if reader == place
                }
                error = logits_error(
                    self.model, self.rows, work, tokens, decoded.logits[place], of_donors
                )
                checked = keys[place]._replace(error=error)
            trials.append(
                Trial(
                    **self._identifies(work),
                    tokens=tuple(tokens),
                    text=self.model.decode(tokens),
                    stopped="stop-token" if decoded.stopped[place] else "length",
                    planned=sum(write.n_tensors for write in work.plan.writes),
                    planned_elements=sum(map(self.store.numbers_of, work.plan.writes)),
                    **self._judged(built.footprints[place], work)._asdict(),
                    known_equal=self.rows.is_known_equal(work.arm, work.pair),
                    planned_steps=sum(work.plan.planned_at_step(t) for t in range(len(tokens))),
                    fired_steps=steps[place].fired,
                    changed_steps=steps[place].changed,
                    beyond_rounding_steps=steps[place].beyond_rounding,
                    margin=decoded.margins[place],
                    reference=work.reference.id if work.reference else None,
                    reference_same_tokens=told.same_tokens,
                    reference_difference=told.largest,
                    reference_scale=told.scale,
                    oracle_error=checked.error,
                    oracle_keys_error=checked.keys_error,
                    oracle_shift=checked.shift,
                    geometry=dict.fromkeys(geometry[place])
                    if self.model.keeps_latents
                    else geometry[place],
                )
            )
        return trials

    def _judged(self, footprint: Footprint, work: Work) -> Footprint:
        """What a row's writes changed, held against the store where they changed nothing.

        Where no pasted token is another than the row's own, the numbers may be the same. Of what is
        copied from the store into a copy of it the store knows: if it has other ones, some were to
        change.
        """
        plan, arm = work.plan, work.arm
        # In a full swap rows of other lengths stand over each other.
        copied = plan.writes and not plan.needs_prompt_pass and arm != FULL_SWAP
        copied = copied and all(write.constant is None for write in plan.writes)
        if not copied or footprint.changed or footprint.least_changed is not None:
            return footprint
        donor = self.store.index(self.rows.named_donor(arm, work.pair))
        whole = (write for write in plan.writes if write.writes_whole)
        if any(self.store.differ(donor, plan.prompt, write) for write in whole):
            return footprint._replace(least_changed=0)
        return footprint

    def _with_companions(
        self, batch: Sequence[Work]
    ) -> tuple[list[_Row], list[tuple[int, int]], dict[tuple[int, int], int]]:
        """The batch's rows, and behind them those that they need beside them.

        Also pairs of rows to compare, and where each (row, donor prompt) finds its donor's row.
        """
        rows = [
            _Row(work.pair, work.seed, work.plan, self.rows.last_token(work.arm, work.pair))
            for work in batch
        ]
        plain = {
            (row.pair.id, row.seed, row.plan.prompt): place
            for place, row in enumerate(rows)
            if not row.plan.writes
        }

        def beside(work: Work, prompt: int) -> int:
            """The row in which a prompt generates by itself, on the luck of a trial."""
            spot = (work.pair.id, work.seed, prompt)
            if spot not in plain:
                plain[spot] = len(rows)
                tokens = self.store.tokens[prompt]
                rows.append(_Row(work.pair, work.seed, RowPlan(prompt, len(tokens)), tokens[-1]))
            return plain[spot]

        compare, donor_rows = [], {}
        for place, work in enumerate(batch):
            if work.reference is not None:
                prompt = self.store.index(self.rows.start(work.reference, work.pair))
                compare.append((place, beside(work, prompt)))
            for donor in work.plan.step_donors:
                donor_rows[place, donor] = beside(work, donor)
        return rows, compare, donor_rows

    def _identifies(self, work: Work) -> dict[str, Any]:
        """The fields of a trial that say which one it is."""
        pair = work.pair
        return {
            "key": work.key,
            "study": self.study,
            "model": self.model.name,
            "task": self.task.name,
            "pair": pair.id,
            "pair_index": pair.index,
            "source": pair.source.id,
            "base": pair.base.id,
            "source_sha": pair.source.sha,
            "base_sha": pair.base.sha,
            "source_tokens_sha": self.rows.identity(pair.source),
            "base_tokens_sha": self.rows.identity(pair.base),
            "arm": work.arm.id,
            "seed": work.seed,
            "prompt_tokens": work.plan.tokens,
            "cached_slots": work.plan.tokens - 1,
        }


def reference_of(arm: Arm) -> Arm | None:
    """The arm that must give the same logits: base for a self-patch, source for the full swap."""
    if arm == FULL_SWAP:
        return SOURCE
    return BASE if arm.donor == "base" else None


def hash_of(content: object) -> str:
    """SHA-256 of plain content, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
