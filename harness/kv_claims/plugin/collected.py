"""Whether the claims that pytest collected go together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import pytest

from kv_claims.claims.claim import claim_in
from kv_claims.errors import UsageError
from kv_claims.judging.family import check_families
from kv_claims.pins.book import PinBook
from kv_claims.plugin.asked import NO_RERUNS
from kv_claims.plugin.found import cell_of, model_of


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


def check_each_once(items: Sequence[pytest.Item]) -> None:
    """Raise UsageError for a test of a claim that would be run twice: a cell has one verdict."""
    seen = set[str]()
    for item in items:
        if item.nodeid in seen:
            raise UsageError(f"{item.nodeid}: collected twice, expected once")
        seen.add(item.nodeid)


def _check_claim_ids(items: Sequence[pytest.Item]) -> None:
    """Raise UsageError where two tests carry one claim id: evidence is kept under it."""
    owner: dict[str, pytest.Item] = {}
    for item in items:
        if found := claim_in(item):
            first = owner.setdefault(found.id, item)
            named = [one.nodeid.partition("[")[0] for one in (first, item)]
            if named[0] == named[1]:
                continue
            if _source(first) == _source(item):
                raise UsageError(
                    f"claim {found.id!r}: its file was collected twice, as {named[0]} and as "
                    f"{named[1]}; expected once"
                )
            raise UsageError(
                f"claim {found.id!r}: the id of both {named[0]} and {named[1]}, expected an id of "
                "its own for each"
            )


def _source(item: pytest.Item) -> tuple[str, str]:
    """The file that a test stands in, whichever way leads to it, and its name there."""
    return str(item.path.resolve()), item.nodeid.partition("::")[2].partition("[")[0]
