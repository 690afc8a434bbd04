"""One run of `pytest claims`: its models, its one writer, and the evidence that comes in.

The plugin's hooks call in here. torch is imported only when a model is asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.evidence.cost import Cost
from kv_claims.evidence.folder import finish
from kv_claims.files.lock import ORPHANS_END, hold, hold_ledger
from kv_claims.pins.book import PinBook
from kv_claims.planted.catalog import PLANTED_PREFIX
from kv_claims.plugin.settings import LEDGER_FOLDER, Settings
from kv_claims.process.cores import threads_for
from kv_claims.replay.source import Source
from kv_claims.run.ledger import Ledger, archive, check_writable

if TYPE_CHECKING:
    from kv_claims.study.study import ShowProgress
    from kv_claims.study.walk import Study

MAIN = "main"
"""The shard of a run without workers."""
NEEDS_MODEL = "it needs a model"


@dataclass
class ClaimsSession:
    """State of a run.

    evidence, instrument, protocol: what tests reported, as JSON objects. families: Holm's procedure
    over them, once the run is over. cost: time and trials so far.
    """

    settings: Settings
    shard: str = MAIN
    workers: int = 1
    evidence: list[dict[str, Any]] = field(default_factory=list)
    instrument: list[dict[str, Any]] = field(default_factory=list)
    protocol: list[dict[str, Any]] = field(default_factory=list)
    families: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, list[Any]]] = field(default_factory=list)
    """Tables that tests made, by column: their rows are trials."""
    cost: Cost = field(default_factory=Cost)
    checked: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    """Of this run and no other: its files are known by it."""
    holds: bool = False
    """Whether it is the one writer of its folder."""
    signer: Callable[[bytes], str] | None = None
    """With --claims-sign: makes the signature of what is to be signed."""
    replayed: Source | None = None
    """With --claims-replay: the stored trials that are judged in place of a model's."""
    unwritten: str = ""
    """What kept this run's files from being written."""
    not_replayed: dict[str, int] = field(default_factory=dict)
    """With --claims-replay: cells that were left out, by why."""

    def __post_init__(self) -> None:
        settings = self.settings
        self._held = ExitStack()
        self.pins = PinBook(
            settings.root,
            settings.pins_folder,
            settings.pinned_models if self.replayed is None else (),
            settings.revision,
            settings.update,
            lambda model: settings.task_of(model).name,
        )

    @property
    def reported(self) -> list[dict[str, Any]]:
        """Everything that tests reported, of whatever kind."""
        return [*self.evidence, *self.instrument, *self.protocol]

    @property
    def cells(self) -> dict[str, int]:
        """Tests that owe evidence, and those that it came from."""
        judged = len({one.get("test") for one in self.reported})
        return {"planned": max(self.cost.cells, judged), "judged": judged}

    @property
    def is_complete(self) -> bool:
        return self.cells["judged"] == self.cells["planned"]

    def check(self) -> None:
        """Check the settings, once."""
        if self.checked:
            return
        if self.replayed is None:
            self.settings.check()
            if self.settings.models:
                self.pins.check()
        else:
            check_writable(self.settings.out)
        if self.settings.sign is not None:
            from kv_claims.evidence.signing import private_key, sign

            key = private_key(self.settings.sign)
            self.signer = lambda content: sign(content, key)
        self.checked = True

    def hold(self) -> None:
        """Be the one writer of the run's folder, and of its ledger, until `release`.

        Raises UsageError, naming the writer, where another is; nothing in the folder has changed.
        """
        if self.holds:
            return
        out, command = self.settings.out, self.settings.command
        with ExitStack() as held:
            held.enter_context(hold(out, command=command))
            if self.replayed is None:
                held.enter_context(hold_ledger(out / LEDGER_FOLDER, command=command))
            finish(out)
            self._held.push(held.pop_all())
        self.holds = True

    def _hold_shard(self) -> None:
        """In a worker, under its controller's lock: be the one writer of a shard of the ledger."""
        if not self.holds and self.shard != MAIN:
            folder, command = self.settings.out / LEDGER_FOLDER, self.settings.command
            shard = hold(folder, command=command, shard=self.shard, wait=ORPHANS_END)
            self._held.enter_context(shard)
            self.holds = True

    def release(self) -> None:
        """Let others write."""
        self._held.close()
        self.holds = False

    def check_replay(self, cells: Mapping[str, tuple[Claim, set[str]]]) -> str:
        """What is wrong with what is replayed, given claims and cells that have tests; or ''."""
        assert self.replayed is not None
        try:
            self.replayed.check_tests(cells)
        except UsageError as error:
            return str(error)
        return ""

    def leaves_out(self, claim: Claim | None, cell: str, model: str | None) -> bool:
        """Whether stored trials cannot answer a test; counts it by why."""
        assert self.replayed is not None
        why = NEEDS_MODEL
        if claim is not None and model is not None:
            why = self.replayed.lacks(claim, cell, model)
        if why:
            self.not_replayed[why] = self.not_replayed.get(why, 0) + 1
        return bool(why)

    def start_fresh(self) -> Path | None:
        """With --claims-no-resume: move earlier trials aside, to the folder that is returned."""
        if self.settings.resume or self.replayed is not None:
            return None
        return archive(self.settings.out / LEDGER_FOLDER)

    def open_study(self, model: str, show_progress: ShowProgress) -> Study:
        """Load a model and bind it to its task, budget and ledger; or take its stored trials."""
        if self.replayed is not None:
            return self.replayed.study(model)
        import torch

        from kv_claims.models.load import load_model
        from kv_claims.run.runner import Runner
        from kv_claims.study.study import ModelStudy

        settings = self.settings
        # A planted model's matrices are so small that sharing one out costs more than it gives.
        planted = model.startswith(PLANTED_PREFIX)
        torch.set_num_threads(1 if planted else threads_for(self.workers))
        task = settings.task_of(model)
        self._hold_shard()
        ledger = Ledger(settings.out / LEDGER_FOLDER, self.shard, shared=self.workers > 1)
        loaded = load_model(
            model, device=settings.device, dtype=settings.dtype, revision=settings.revision
        )
        runner = Runner(loaded, task, settings.sampling, ledger, settings.batch_size)
        for pair in task.first_pairs(settings.n_pairs(model, task)):
            # A token that the network does not know is said now, not in the middle of a run.
            runner.rows.tokens(pair.source), runner.rows.tokens(pair.base)
        return ModelStudy(runner, settings.n_pairs(model, task), settings.n_seeds, show_progress)
