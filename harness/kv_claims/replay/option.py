"""`--claims-replay`: what goes with it, and the source that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.replay.foreign import ForeignTable
from kv_claims.replay.run import ReplayedRun
from kv_claims.replay.source import FOREIGN_FILE, Source, kind_of
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Task

_GOES = {
    "claims_replay",
    "claims_model",
    "claims_task",
    "claims_out",
    "claims_strict",
    "claims_dry_run",
    "claims_allow_code",
}


def check_options(given: Mapping[str, Any]) -> None:
    """Raise UsageError for options that say how a model is to be run: here none is.

    given: the options of `pytest claims` by the name that the parser gives them, None or False
    where the user gave none.
    """
    wrong = [
        _spelled(name, value)
        for name, value in given.items()
        if name.startswith("claims_")
        and name not in _GOES
        and value is not None
        and (value is not False or name == "claims_resume")
    ]
    if wrong:
        raise UsageError(
            f"{', '.join(sorted(wrong))}: of no use with --claims-replay, as no model is run; "
            "expected --claims-model, --claims-task, --claims-out, --claims-strict at most"
        )


def open_source(
    path: Path,
    *,
    models: Sequence[str],
    task: Path | None,
    out: Path,
    task_of: Callable[[str, Path | None], Task],
    code_for: Callable[[Path | None], CodeFrom | None] = lambda _task: None,
) -> Source:
    """Read what is to be judged again. Raises UsageError for whatever is wrong with it.

    models: those asked for; none for all. task_of: see `ReplayedRun.open`.
    code_for: where the scorer of a task file may be imported from; of None, one that somebody else
        names.
    """
    scored_by = None if task is None else load_task(task, code=code_for(task))
    source: Source
    kind = kind_of(path)
    if kind == "run":
        source = ReplayedRun.open(path, models, task_of, scored_by)
    else:
        source = ForeignTable.open(
            path / FOREIGN_FILE if path.is_dir() else path, models, scored_by, code_for(None)
        )
    place = out.resolve()
    for file in source.inputs:
        folder = file.resolve().parent
        # A run has folders of its own below; a table may lie anywhere, a project's root included.
        if place == folder or (kind == "run" and place.is_relative_to(folder)):
            raise UsageError(
                f"--claims-out {out}: holds what is replayed ({file.name}) or is in its folder, "
                "expected another folder"
            )
    return source


def _spelled(name: str, value: Any) -> str:
    name = "claims_no_resume" if name == "claims_resume" and not value else name
    return f"--{name.replace('_', '-')}"
