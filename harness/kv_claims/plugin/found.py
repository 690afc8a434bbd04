"""What of a collected test says that it is of a claim, of which cell, and on which model.

A test's id is its model's name and then its cell's; evidence, families and pins go by the latter.
Imports nothing that takes time: every test of every project passes here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from kv_claims.claims.claim import claim_in
from kv_claims.plugin.ini import MODELS

MODEL_FIXTURE = "_claims_model"
EMBEDDED_MARK = "embedded"
REPLAY_MARK = "published_protocol"
OWN_TABLE_MARK = "own_table"
OWN_TABLE = "own-table"
"""Stands for a model in the id of a test that runs none of ours: it makes its own table."""
NO_MODEL = "no-model"
"""Stands for a model in a test's id where none was given: collecting needs none."""
COLLECTED = "claims_collected"
"""Under this name a worker says which tests owe evidence."""
_TESTS = pytest.StashKey[list[pytest.Item]]()
"""Tests of claims in the modules that were collected, selected or not."""
_FILES = pytest.StashKey[set[Path]]()
"""Files that were collected, with claims in them or not."""


def note_test(item: pytest.Item) -> None:
    """Remember a test of a claim that is there, whatever is selected."""
    item.config.stash.setdefault(_TESTS, []).append(item)


def note_file(config: pytest.Config, path: Path) -> None:
    """Remember a file that is collected."""
    config.stash.setdefault(_FILES, set()).add(path)


def known_tests(config: pytest.Config) -> list[pytest.Item]:
    """Every test of a claim in the files that were collected, selected or not."""
    return config.stash.get(_TESTS, [])


def known_files(config: pytest.Config) -> set[str]:
    """Every file that was collected, as `file_of` names it."""
    return {_in_project(path, config.rootpath) for path in config.stash.get(_FILES, set())}


def is_claim(item: pytest.Item) -> bool:
    """Whether a test owes evidence: it asks for a study, or is marked as a claim."""
    asks = MODEL_FIXTURE in getattr(item, "fixturenames", [])
    return asks or claim_in(item) is not None


def model_of(item: pytest.Item) -> str | None:
    """The model that a test runs on; None for tests of anything else."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get(MODEL_FIXTURE)


def cell_of(item: pytest.Item, models: tuple[str, ...]) -> str:
    """The cell's id: the test's id without the model, which comes first in it."""
    call_id = getattr(item, "callspec", None)
    models = (*models, OWN_TABLE)
    found = dict(zip(models, model_ids(models), strict=True)).get(model_of(item) or "", "")
    return (call_id.id if call_id else "").removeprefix(found).removeprefix("-") or "only"


def runs_model(item: pytest.Item) -> bool:
    """Whether a test runs a model: one that makes its own table does not."""
    return model_of(item) not in (None, OWN_TABLE)


def model_ids(models: tuple[str, ...]) -> list[str]:
    """Short names for test ids: a folder by its last part; numbered where two are alike."""
    short = [_short(name) if Path(name).is_dir() else _ascii(name) for name in models]
    return [
        name if short.count(name) == 1 else f"{name}.{position}"
        for position, name in enumerate(short)
    ]


def claims_among(ids: Sequence[str], models: Sequence[str]) -> list[str]:
    """Of the ids of tests those of claims: their parameters begin with a model's name."""
    names = "|".join(map(re.escape, model_ids(tuple(dict.fromkeys(models)))))
    of_a_model = re.compile(rf"\[(?:{names})[-\]]")
    return [test for test in ids if of_a_model.search(test)]


def may_be_claims(config: pytest.Config, ids: Sequence[str]) -> bool:
    """Whether any of these ids looks like that of a claim; told from names alone."""
    models = [*(config.option.claims_model or config.getini(MODELS)), NO_MODEL, OWN_TABLE]
    names = "|".join(re.escape(name) for model in models for name in (_ascii(model), _short(model)))
    looks_so = re.compile(rf"\[(?:planted:|(?:{names})[-.\]])")
    return any(looks_so.search(test) for test in ids)


def place(item: pytest.Item, models: tuple[str, ...]) -> int:
    """Where a test stands among models; what is no claim stays in front."""
    model = model_of(item)
    return models.index(model) if model in models else -1


def file_of(node: pytest.Item | pytest.Collector) -> str:
    """A test file by its path in the project; outside of it, by its whole path."""
    return _in_project(node.path, node.config.rootpath)


def _in_project(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _short(model: str) -> str:
    return _ascii(Path(model).name)


def _ascii(name: str) -> str:
    # Plain ASCII, as pytest would escape anything else and the cell's id be lost in it.
    return re.sub(r"[^\x21-\x7e]", "_", name)
