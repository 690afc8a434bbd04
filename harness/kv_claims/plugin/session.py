"""One run of `pytest claims`: its settings, its models, and the evidence that comes in.

The plugin's hooks call in here. torch is imported only when a model is asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.evidence.cost import Cost
from kv_claims.evidence.folder import finish
from kv_claims.files.lock import ORPHANS_END, hold, hold_ledger
from kv_claims.files.shipped import shipped
from kv_claims.models.folder import model_folder
from kv_claims.pins.book import PinBook
from kv_claims.pins.file import FOLDER as PINS
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX
from kv_claims.planted.prompts import planted_task
from kv_claims.process.cores import threads_for
from kv_claims.replay.source import Source
from kv_claims.run.ledger import Ledger, archive, check_writable
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.load import load_task, own_task
from kv_claims.tasks.task import Task

if TYPE_CHECKING:
    from kv_claims.study.study import ShowProgress
    from kv_claims.study.walk import Study

EMBEDDED = tuple(PLANTED_PREFIX + name for name in CATALOG)
DEFAULT_TASK = shipped("tasks/self_observation.yaml")
LEDGER_FOLDER = "ledger"
MAIN = "main"
"""The shard of a run without workers."""
NEEDS_MODEL = "it needs a model"
REPLAY_OUT = Path("reports/replay")
"""Where the files of `--claims-replay` go by default."""
Protocol = Literal["claims", "published"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""What `pytest claims` runs: the claims, or the seed's procedure with its defects."""


class Profile(NamedTuple):
    """What a run spends. Pairs are at most so many: fewer where the task has fewer."""

    pairs: int
    planted_pairs: int
    seeds: int
    max_new_tokens: int


PROFILES: Mapping[str, Profile] = {
    "smoke": Profile(pairs=20, planted_pairs=60, seeds=1, max_new_tokens=30),
    "default": Profile(pairs=200, planted_pairs=200, seeds=1, max_new_tokens=50),
    "full": Profile(pairs=300, planted_pairs=300, seeds=2, max_new_tokens=100),
}


@dataclass(frozen=True)
class Settings:
    """The options of `pytest claims`; None where the user gave none.

    root: the folder that relative paths of our own (the default task) start from.
    command: what was typed, so that it can be typed again.
    """

    root: Path
    command: str = ""
    models: tuple[str, ...] = EMBEDDED
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    task: Path | None = None
    pairs: int | None = None
    seeds: int | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.7
    batch_size: int | None = None
    profile: str = "default"
    protocol: Protocol = "claims"
    out: Path = Path("reports/latest")
    strict: bool = False
    resume: bool = True
    update: bool = False
    sign: Path | None = None

    @property
    def budget(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def n_seeds(self) -> int:
        return self.budget.seeds if self.seeds is None else self.seeds

    @property
    def sampling(self) -> Sampling:
        tokens = self.budget.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        return Sampling(tokens, self.temperature)

    def task_of(self, model: str) -> Task:
        """The task that a model runs: its own where it is planted, else the task file.

        Without one the task in the model's folder, if there is one, else the default.
        """
        if model.startswith(PLANTED_PREFIX):
            return planted_task(CATALOG[model.removeprefix(PLANTED_PREFIX)])
        return load_task(self.task or own_task(model_folder(model)) or self.root / DEFAULT_TASK)

    def n_pairs(self, model: str, task: Task) -> int:
        """Pairs to run: as asked, or as many as the profile wants and the task has."""
        if self.pairs is not None:
            return self.pairs
        planted = model.startswith(PLANTED_PREFIX)
        wanted = self.budget.planted_pairs if planted else self.budget.pairs
        return min(wanted, len(task.pairs))

    def check(self) -> None:
        """Raise UsageError for anything in the settings that no run can use; nothing is run."""
        from kv_claims.models.request import check_request

        for name, number in (("seeds", self.n_seeds), ("batch-size", self.batch_size)):
            if number is not None and number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")
        _ = self.sampling
        places = [
            str(folder.resolve()) if (folder := model_folder(name)) else name
            for name in self.models
        ]
        if len(set(places)) < len(places):
            raise UsageError(f"model given twice: {', '.join(self.models)}")
        for model in self.models:
            request = check_request(
                model, device=self.device, dtype=self.dtype, revision=self.revision
            )
            if request.planted is not None and self.task is not None:
                raise UsageError(
                    f"task {self.task}: {model} brings its own task; give --task with other models"
                )
            task = self.task_of(model)
            task.first_pairs(self.n_pairs(model, task))
        check_writable(self.out)
        check_writable(self.out / LEDGER_FOLDER)


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
            settings.root / PINS,
            tuple(m for m in settings.models if not m.startswith(PLANTED_PREFIX))
            if self.replayed is None
            else (),
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
        """With --no-resume: move earlier trials aside, to the folder that is returned."""
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


def start_replay(
    settings: Settings, path: Path, asked: Sequence[str], given: Mapping[str, Any]
) -> tuple[Settings, Source]:
    """Read what is to be judged again, and the settings that go with it.

    asked: the models that were asked for; none for all that are stored. given: all options.
    Raises UsageError for whatever is wrong with what is stored.
    """
    from kv_claims.replay.option import check_options, open_source

    check_options(given)

    def task_of(model: str, file: Path | None) -> Task:
        return replace(settings, task=file).task_of(model)

    source = open_source(path, models=asked, task=settings.task, out=settings.out, task_of=task_of)
    return replace(settings, models=source.models), source


def replay_lines(state: ClaimsSession, cells: int) -> list[str]:
    """What a replay judges, and what it leaves out and why, before it starts."""
    source = state.replayed
    assert source is not None
    told = source.facts()["replay"]
    lines = [
        f"kv-claims: {_many(cells, 'cell')} judged again on the trials in {told['folder']}, no "
        f"model is run, evidence in {state.settings.out}"
    ]
    lines += [
        f"kv-claims: {_many(n, 'test')} deselected: {why}" for why, n in state.not_replayed.items()
    ]
    if told.get("edited"):
        lines.append(f"kv-claims: {told['edited']}; no verdict on it is verified")
    if told.get("unused_arms"):
        lines.append(f"kv-claims: arms of the table in no role: {', '.join(told['unused_arms'])}")
    if told["scored_by"]:
        lines.append(f"kv-claims: texts are scored again by {told['scored_by']['task']}")
    return lines


def describe(settings: Settings, cells: int, claims: Sequence[str]) -> str:
    """One line on what a run will spend, before it starts."""
    budget = settings.budget
    pairs = settings.pairs or max(budget.pairs, budget.planted_pairs)
    most = "" if settings.pairs else "up to "
    return (
        f"kv-claims: {_many(cells, 'cell')} of {_many(len(claims), 'claim')} on "
        f"{_many(len(settings.models), 'model')}, profile {settings.profile} "
        f"({most}{_many(pairs, 'pair')} x {_many(settings.n_seeds, 'seed')} x "
        f"{_many(settings.sampling.max_new_tokens, 'token')}), evidence in {settings.out}"
    )


def _many(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
