"""What pytest collected: claims, their cells and models, and whether they go together.

A test's id is its model's name and then its cell's; evidence, families and pins go by the latter.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from kv_claims.claims.claim import claim_in
from kv_claims.errors import UsageError
from kv_claims.judging.family import check_families
from kv_claims.pins.book import PinBook
from kv_claims.plugin.options import NO_RERUNS

MODEL_FIXTURE = "_claims_model"


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
    found = dict(zip(models, model_ids(models), strict=True)).get(model_of(item) or "", "")
    return (call_id.id if call_id else "").removeprefix(found).removeprefix("-") or "only"


def model_ids(models: tuple[str, ...]) -> list[str]:
    """Short names for test ids: a folder by its last part; numbered where two are alike."""
    short = [Path(name).name if Path(name).is_dir() else name for name in models]
    # Plain ASCII, as pytest would escape anything else and the cell's id be lost in it.
    short = [re.sub(r"[^\x21-\x7e]", "_", name) for name in short]
    return [
        name if short.count(name) == 1 else f"{name}.{position}"
        for position, name in enumerate(short)
    ]


def claims_among(ids: Sequence[str], models: Sequence[str]) -> list[str]:
    """Of the ids of tests those of claims: their parameters begin with a model's name."""
    names = "|".join(map(re.escape, model_ids(tuple(dict.fromkeys(models)))))
    of_a_model = re.compile(rf"\[(?:{names})[-\]]")
    return [test for test in ids if of_a_model.search(test)]


def place(item: pytest.Item, models: tuple[str, ...]) -> int:
    """Where a test stands among models; what is no claim stays in front."""
    model = model_of(item)
    return models.index(model) if model in models else -1


def file_of(node: pytest.Item | pytest.Collector) -> str:
    """A test file by its path in the project; outside of it, by its whole path."""
    root = node.config.rootpath
    return (node.path.relative_to(root) if node.path.is_relative_to(root) else node.path).as_posix()


def check_collected(
    items: Sequence[pytest.Item], files: Collection[str], models: tuple[str, ...], pins: PinBook
) -> None:
    """Raise UsageError for claims that do not go together, and for pins that none of them uses.

    items: all tests of claims in the files that were collected, selected or not.
    """
    _check_claim_ids(items)
    if again := [item for item in items if item.get_closest_marker("flaky")]:
        raise UsageError(f"{again[0].nodeid}: marked flaky: {NO_RERUNS}")
    cells = defaultdict[str, set[str]](set)
    of_model = {model: defaultdict[str, set[str]](set) for model in pins.models}
    for item in items:
        if found := claim_in(item):
            cell, model = cell_of(item, models), model_of(item)
            cells[found.id].add(cell)
            if model in of_model:
                of_model[model][found.id].add(cell)
    check_families(items, cells)
    for model, known in of_model.items():
        pins.look_for_unused(model, known, files)


def _check_claim_ids(items: Sequence[pytest.Item]) -> None:
    """Raise UsageError where two tests carry one claim id: evidence is kept under it."""
    owner: dict[str, str] = {}
    for item in items:
        if found := claim_in(item):
            test = item.nodeid.partition("[")[0]
            if owner.setdefault(found.id, test) != test:
                raise UsageError(
                    f"claim {found.id!r}: the id of both {owner[found.id]} and {test}, "
                    "expected an id of its own for each"
                )
