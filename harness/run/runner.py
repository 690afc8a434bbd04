"""From arms to trials: what is missing is planned, batched, spliced, decoded and recorded.

Promises: every trial asked for comes back or an error is raised (*silent-n*); nothing that is in
the ledger runs again; a trial's tokens do not depend on batch size, order or resume in the sense
of `docs/sameness.md`. Only running out of memory is retried, with half the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import transformers

from harness.errors import UsageError
from harness.models.load import LoadedModel
from harness.models.rotary import Rotation, rotation_of
from harness.models.window import attention_window
from harness.patch.splice import TENSORS, Footprint, RowPlan, Write, build_slab
from harness.patch.store import PromptStore
from harness.run.arms import BASE, FULL_SWAP, SOURCE, Arm, canonical
from harness.run.batches import automatic_batch_size, pack
from harness.run.decode import Decoded, decode
from harness.run.ledger import Ledger
from harness.run.oracle import Paste, oracle_logits, relative_error
from harness.run.sampling import uniforms
from harness.run.sampling_settings import Sampling
from harness.run.trial import Trial
from harness.spec import Window, resolve_layers, resolve_window
from harness.tasks.task import Pair, Task

ENGINE = 1
"""Raised when a change of the engine may change tokens: older ledgers then do not count."""
ORACLE_ROWS = 2
"""Rows of each arm that are recomputed by the oracle."""
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
        self._tokens: dict[str, tuple[int, ...]] = {}
        self._donors: dict[tuple[str, int], tuple[int, ...]] = {}
        self._checked: set[tuple[Arm, str]] = set()
        self._rotation: Rotation | None = None
        self.study = _hash(self._identity())

    def check(self, arms: Iterable[Arm], pairs: Sequence[Pair]) -> None:
        """Raise UsageError for whatever in these arms does not fit, before any model runs."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        for pair in pairs:
            for prompt in (pair.source, pair.base):
                tokens = len(self._encode(prompt.text))
                if tokens < 2:
                    raise UsageError(f"prompt {prompt.id!r}: {tokens} tokens, expected at least 2")
                if limit is not None and tokens + self.sampling.max_new_tokens > limit:
                    raise UsageError(
                        f"prompt {prompt.id!r}: {tokens} tokens and "
                        f"{self.sampling.max_new_tokens} new ones, but {self.model.name} has "
                        f"{limit} positions"
                    )
        for arm in map(self._canonical, arms):
            for pair in pairs:
                if (arm, pair.id) in self._checked:
                    continue
                write = self._write(arm, pair, seed=0, stored=False)
                if write is not None and write.window.shift and "k" in TENSORS[write.site]:
                    self._rotation = self._rotation or rotation_of(self.model.network)
                if write is not None:
                    self._check_reached(arm, pair, write)
                self._checked.add((arm, pair.id))

    def _check_reached(self, arm: Arm, pair: Pair, write: Write) -> None:
        """Refuse a patch that no generated token can see: its effect is 0 by construction."""
        if arm == FULL_SWAP:
            return
        last_position = len(self._encode(pair.base.text)) - 1
        nearest = last_position - (write.window.base_slots.stop - 1)
        windows = [attention_window(self.model.config, layer) for layer in write.layers]
        if all(window is not None and nearest >= window for window in windows):
            raise UsageError(
                f"positions {arm.patch.positions if arm.patch else ''!r} in layers "
                f"{list(write.layers)}: pair {pair.index} has them at least {nearest} positions "
                f"before the last prompt token, but these layers look back {windows[0]} only; "
                "nothing can read what is patched"
            )

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
            self._prefill(pairs, [trial for trial, _ in missing])
            self._run_missing(self._plan(missing, _for_oracle(wanted, keys, pairs)), progress)
        found = [self.ledger.get(key) for key in keys]
        if None in found:
            lost = [trial for trial, one in zip(wanted, found, strict=True) if one is None]
            raise RuntimeError(f"{len(lost)} of {len(wanted)} trials did not come back")
        return [trial for trial in found if trial is not None]

    def splice_only(self, arm: Arm, pairs: Sequence[Pair]) -> list[Footprint]:
        """Carry out an arm's write for each pair and say what it changed; nothing is decoded."""
        arm = self._canonical(arm)
        self.check([arm], pairs)
        self._prefill(pairs, [(pair, arm, 0) for pair in pairs])
        size = self._rows_at_once()
        plans = [self._row_plan(arm, pair, seed=0) for pair in pairs]
        return [
            footprint
            for start in range(0, len(plans), size)
            for footprint in build_slab(
                self.store, plans[start : start + size], self._rotation, room=0
            )[1]
        ]

    def _identity(self) -> dict[str, Any]:
        """Everything but pair, arm and seed that decides a trial's tokens."""
        return {
            "engine": ENGINE,
            "weights": self.model.weights_sha,
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
        prompts = [self._encode(pair.source.text), self._encode(pair.base.text)]
        return _hash([self.study, pair.id, prompts, arm.id, seed])

    def _canonical(self, arm: Arm) -> Arm:
        if arm.patch is None:
            return arm
        return replace(arm, patch=canonical(arm.patch, self.model.n_layers))

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._tokens:
            self._tokens[text] = tuple(self.model.encode(text))
        return self._tokens[text]

    def _prefill(self, pairs: Sequence[Pair], trials: Sequence[tuple[Pair, Arm, int]]) -> None:
        prompts = {self._encode(text) for p in pairs for text in (p.source.text, p.base.text)}
        for pair, arm, _ in trials:
            if arm.donor == "unrelated-base":
                prompts.add(self._unrelated(arm, pair))
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
                self._row_plan(arm, pair, seed),
                reference_of(arm),
                key in for_oracle,
            )
            for (pair, arm, seed), key in missing
        ]

    def _row_plan(self, arm: Arm, pair: Pair, seed: int) -> RowPlan:
        own = self._encode(pair.source.text if arm.prompt == "source" else pair.base.text)
        tokens = own if arm != FULL_SWAP else self._encode(pair.source.text)
        return RowPlan(
            self.store.index(own), len(tokens), self._write(arm, pair, seed, stored=True)
        )

    def _write(self, arm: Arm, pair: Pair, seed: int, *, stored: bool) -> Write | None:
        """The write of an arm for a pair. stored: whether prompts are in the store yet."""
        if arm.patch is None:
            return None
        source, base = self._encode(pair.source.text), self._encode(pair.base.text)
        layers = resolve_layers(arm.patch.layers, self.model.n_layers)
        where = f"pair {pair.index} (source {pair.source.id!r}, base {pair.base.id!r})"
        if arm == FULL_SWAP:
            window = Window(range(len(source) - 1), range(len(source) - 1))
        else:
            window = resolve_window(arm.patch.positions, len(source), len(base), where=where)
        donor, pasted = source, window
        if arm.donor == "base":
            donor, pasted = base, Window(window.base_slots, window.base_slots)
        elif arm.donor == "unrelated-base":
            donor = self._unrelated(arm, pair)
            pasted = _aligned(arm.patch.positions, len(donor), window.base_slots)
        is_control = arm.donor in ("unrelated-base", "noise")
        index = self.store.index if stored else (lambda _: 0)
        return Write(
            donor=index(donor),
            site=arm.patch.site,
            layers=layers,
            window=pasted,
            noise=f"{pair.id}:{seed}" if arm.donor == "noise" else None,
            instead_of=(index(source), window) if is_control else None,
        )

    def _unrelated(self, arm: Arm, pair: Pair) -> tuple[int, ...]:
        """Tokens of the first unrelated base whose cache holds the window."""
        assert arm.patch is not None
        source, base = self._encode(pair.source.text), self._encode(pair.base.text)
        width = len(resolve_window(arm.patch.positions, len(source), len(base)).base_slots)
        if (pair.id, width) in self._donors:
            return self._donors[pair.id, width]
        for prompt in self.task.unrelated(pair):
            tokens = self._encode(prompt.text)
            if len(tokens) - 1 >= width:
                return self._donors.setdefault((pair.id, width), tokens)
        raise UsageError(
            f"task {self.task.name!r}: no other base caches {width} positions, which the control "
            f"'unrelated-base' needs for base {pair.base.id!r}"
        )

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
                plan = self._row_plan(work.reference, work.pair, work.seed)
                rows.append(Work(work.pair, work.reference, work.seed, "", plan, None, False))
            compare.append((place, places[spot]))
        plans = [work.plan for work in rows]
        slab, footprints = build_slab(
            self.store, plans, self._rotation, room=self.sampling.max_new_tokens
        )
        uniform = torch.stack(
            [uniforms(work.pair.id, work.seed, self.sampling.max_new_tokens) for work in rows]
        )
        keep = [i for i, work in enumerate(batch) if work.oracle]
        decoded = decode(
            self.model,
            slab,
            [self._last_token(work) for work in rows],
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
            self._trial(work, footprints[i], decoded, i, beside.get(i, _Beside()))
            for i, work in enumerate(batch)
        ]

    def _last_token(self, work: Work) -> int:
        """The prompt token still to be fed: the source's in a full swap, else the row's own."""
        from_source = work.arm.prompt == "source" or work.arm == FULL_SWAP
        return self._encode((work.pair.source if from_source else work.pair.base).text)[-1]

    def _trial(
        self,
        work: Work,
        footprint: Footprint,
        decoded: Decoded,
        place: int,
        beside: _Beside,
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
        )

    def _oracle_error(self, work: Work, decoded: Decoded, place: int) -> float:
        pair, tokens = work.pair, decoded.tokens[place]
        source, base = self._encode(pair.source.text), self._encode(pair.base.text)
        write = work.plan.write
        if work.arm == FULL_SWAP or work.arm == SOURCE:
            wanted = oracle_logits(self.model, source, tokens)
        elif write is None:
            wanted = oracle_logits(self.model, base, tokens)
        else:
            donor = self.store.tokens[write.donor]
            paste = Paste(donor, write.site, write.layers, write.window)
            wanted = oracle_logits(self.model, base, tokens, paste)
        return relative_error(decoded.logits[place], wanted)


def reference_of(arm: Arm) -> Arm | None:
    """The arm that must give the same logits: base for a self-patch, source for the full swap."""
    if arm == FULL_SWAP:
        return SOURCE
    return BASE if arm.donor == "base" else None


def _for_oracle(
    wanted: Sequence[tuple[Pair, Arm, int]], keys: Sequence[str], pairs: Sequence[Pair]
) -> set[str]:
    """Keys of the trials that the oracle recomputes: the first pairs of each arm, at one seed.

    The first ones, so that a later run on fewer pairs finds them in the ledger. None of noise:
    its oracle would have to share our noise.
    """
    first = {pair.id for pair in pairs[:ORACLE_ROWS]}
    return {
        key
        for (pair, arm, seed), key in zip(wanted, keys, strict=True)
        if pair.id in first and seed == 0 and arm.donor != "noise"
    }


def _aligned(positions: str, donor_tokens: int, base_slots: range) -> Window:
    """The donor's window for given base slots: at its start for `first`, at its end else."""
    width, cached = len(base_slots), donor_tokens - 1
    start = 0 if positions.startswith("first") else cached - width
    return Window(range(start, start + width), base_slots)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
