"""The task that a model runs: its own where it is planted, else a file."""

from __future__ import annotations

from pathlib import Path

from kv_claims.files.shipped import shipped
from kv_claims.models.folder import model_folder
from kv_claims.planted.catalog import CATALOG, N_PAIRS, PLANTED_PREFIX
from kv_claims.planted.prompts import planted_task
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.load import load_task, own_task
from kv_claims.tasks.task import Task

DEFAULT_TASK = shipped("tasks/self_observation.yaml")


def task_for(
    model: str,
    file: Path | None,
    n_pairs: int = N_PAIRS,
    *,
    chat: bool = False,
    code: CodeFrom | None = None,
) -> Task:
    """The task of a model, by its name as `--claims-model` takes it.

    file: the one asked for; without, that in the model's folder, if there is one, else the seed's.
    n_pairs: of a planted model's own task, which no file replaces.
    chat: whether its texts are sent as a user's messages (`tasks.chat.as_chat`); of no use to a
        planted model, whose tokenizer has no chat template.
    code: where a scorer in Python may be imported from (`tasks.load.load_task`).
    Raises UsageError for a file that is none; with chat, for a task that has messages already.
    """
    if model.startswith(PLANTED_PREFIX):
        task = planted_task(CATALOG[model.removeprefix(PLANTED_PREFIX)], n_pairs)
    else:
        task = load_task(task_file(model, file), code=code)
    return as_chat(task) if chat else task


def task_file(model: str, file: Path | None) -> Path:
    """The file of a model's task, planted ones apart: that asked for, its own, or the seed's."""
    return file or own_task(model_folder(model)) or DEFAULT_TASK
