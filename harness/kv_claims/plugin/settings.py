"""What a run was asked for, and whether any run can be that: nothing is run here.

torch is imported only to check a model's name, device and dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kv_claims.errors import UsageError
from kv_claims.models.folder import model_file, model_folder
from kv_claims.models.task import task_for
from kv_claims.pins.file import FOLDER as PINS
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX
from kv_claims.plugin import ini
from kv_claims.plugin.profiles import PROFILES, Profile, Protocol
from kv_claims.run.ledger import check_writable
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.task import Task

EMBEDDED = tuple(PLANTED_PREFIX + name for name in CATALOG)
ALL_PLANTED = f"{PLANTED_PREFIX}*"
"""Stands for all of them."""
LEDGER_FOLDER = "ledger"
REPLAY_OUT = Path("reports/replay")
"""Where the files of `--claims-replay` go by default."""


def folder_of(replayed: Path) -> Path:
    """The folder of what is replayed: a run's, or that in which a description lies."""
    return replayed if replayed.is_dir() else replayed.parent


def all_of(names: Iterable[str]) -> tuple[str, ...]:
    """The models that some names stand for: `planted:*` is every planted one."""
    return tuple(
        model for name in names for model in (EMBEDDED if name == ALL_PLANTED else (name,))
    )


@dataclass(frozen=True)
class Settings:
    """The settings of `pytest claims`; None where the user gave none.

    root: the project: where pins lie, and reports by default. command: what was typed, so that it
    can be typed again. replayed: what is judged again, and in whose folder no code is the
    project's. is_by_file: whether the models are all planted ones because the project's
    ini says so: a file of claims may then name some of them. said: for what the project's ini says,
    by the ini's key, where it says so.
    """

    root: Path
    command: str = ""
    models: tuple[str, ...] = ()
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    task: Path | None = None
    chat: bool = False
    pairs: int | None = None
    seeds: int | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.7
    batch_size: int | None = None
    profile: str = "default"
    protocol: Protocol = "claims"
    out: Path = Path("reports/latest")
    pins: Path | None = None
    strict: bool = False
    resume: bool = True
    update: bool = False
    sign: Path | None = None
    allow_code: bool = False
    replayed: Path | None = None
    is_by_file: bool = False
    said: Mapping[str, str] = field(default_factory=dict)

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

    @property
    def pins_folder(self) -> Path:
        return self.root / PINS if self.pins is None else self.pins

    @property
    def pinned_models(self) -> tuple[str, ...]:
        """Those that have pins: what a planted model should give is computed."""
        return tuple(m for m in self.models if not m.startswith(PLANTED_PREFIX))

    def models_for(self, named: Sequence[str]) -> tuple[str, ...]:
        """The models of a file of claims that names planted ones, where these are by file.

        named: without prefix. Raises UsageError for a name that is none.
        """
        models = tuple(PLANTED_PREFIX + name for name in named)
        if unknown := sorted(set(models) - set(EMBEDDED)):
            raise UsageError(f"{', '.join(unknown)} is not among {', '.join(EMBEDDED)}")
        return (*models, *self.pinned_models)

    def task_of(self, model: str) -> Task:
        """The task that a model runs; see `models.task`."""
        code = self.code_for(self.task)
        return task_for(model, self.task, chat=self.chat, code=code)

    def code_for(self, task: Path | None) -> CodeFrom | None:
        """Where a task's scorer in Python may be imported from; None: nowhere, as somebody else
        named it, be it a model's folder (None) or what is replayed."""
        if self.allow_code:
            return CodeFrom(self.root)
        if task is None:
            return None
        others = () if self.replayed is None else (folder_of(self.replayed),)
        code = CodeFrom(self.root, others)
        return None if code.is_of_others(task) else code

    def n_pairs(self, model: str, task: Task) -> int:
        """Pairs to run: as asked, or as many as the profile wants and the task has."""
        if self.pairs is not None:
            return self.pairs
        planted = model.startswith(PLANTED_PREFIX)
        wanted = self.budget.planted_pairs if planted else self.budget.pairs
        return min(wanted, len(task.pairs))

    def check_model(self) -> None:
        """Raise UsageError where there are claims to run, and no model to run them on."""
        if not self.models:
            raise UsageError(
                f"no model to run claims on: expected {ini.MODELS} in "
                f"{self.said.get('', 'the settings of pytest')}, or --claims-model NAME; a model "
                f"is {PLANTED_PREFIX}NAME, mini, smollm2, a folder, a .gguf file, or a hub id"
            )

    def check(self) -> None:
        """Raise UsageError for anything in the settings that no run can use; nothing is run."""
        from kv_claims.models.request import check_request

        for name, number in (("seeds", self.n_seeds), ("batch-size", self.batch_size)):
            if number is not None and number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")
        _ = self.sampling
        with self._as_said(ini.MODELS):
            self._check_each_once()
        for model in self.models:
            with self._as_said(ini.MODELS):
                request = check_request(
                    model, device=self.device, dtype=self.dtype, revision=self.revision
                )
            if request.planted is not None and self.task and ini.TASK not in self.said:
                raise UsageError(
                    f"task {self.task}: {model} brings its own task; give --claims-task with other "
                    "models"
                )
            if request.planted is not None and self.chat:
                raise UsageError(
                    f"--claims-chat: {model} reads plain words and has no chat template; expected "
                    "models that have one"
                )
            with self._as_said(ini.TASK):
                task = self.task_of(model)
            task.first_pairs(self.n_pairs(model, task))
        is_made = self.update or self.pins_folder.is_dir()
        if ini.PINS in self.said and self.pinned_models and not is_made:
            raise UsageError(
                f"{self.said[ini.PINS]}: folder {self.pins}: is not there, expected a folder of "
                "pins, or --claims-update, which makes it"
            )
        with self._as_said(ini.OUT):
            check_writable(self.out)
            check_writable(self.out / LEDGER_FOLDER)

    def _check_each_once(self) -> None:
        places = [
            str(place.resolve()) if (place := model_folder(name) or model_file(name)) else name
            for name in self.models
        ]
        if len(set(places)) < len(places):
            raise UsageError(f"model given twice: {', '.join(self.models)}")

    @contextmanager
    def _as_said(self, key: str) -> Iterator[None]:
        """Begin an error about what the project's ini says with where it says so."""
        try:
            yield
        except UsageError as error:
            if key not in self.said:
                raise
            raise UsageError(f"{self.said[key]}: {error}") from error
