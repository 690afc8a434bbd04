"""`--claims-replay`: which tests stored trials can answer, and what is taken from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kv_claims.claims.claim import Claim, claim_in
from kv_claims.plugin.found import cell_of, is_claim, known_tests, model_of
from kv_claims.plugin.own_claims import OwnClaims
from kv_claims.plugin.settings import Settings
from kv_claims.replay.source import Source
from kv_claims.tasks.task import Task

if TYPE_CHECKING:
    from kv_claims.plugin.claims_run import ClaimsRun


class Replayable:
    """Keeps the tests that stored trials can answer, and counts the others.

    Last, so that tests are not counted which the user did not select.
    """

    def __init__(self, run: ClaimsRun) -> None:
        self._run = run

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        run, state = self._run, self._run.state
        cells = dict[str, tuple[Claim, set[str]]]()
        for item in known_tests(config):
            if claim := claim_in(item):
                cells.setdefault(claim.id, (claim, set()))[1].add(cell_of(item, run.models))
        if cells and (wrong := state.check_replay(cells)):
            if not run.is_worker:
                raise pytest.UsageError(wrong)
            # A worker that exits is an internal error to xdist: its tests say what is wrong.
            run.wrong = wrong
            return
        left = []
        for item in filter(is_claim, items):
            if state.leaves_out(claim_in(item), cell_of(item, run.models), model_of(item)):
                left.append(item)
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in left]


def own_claims_of(source: Source) -> OwnClaims | None:
    """The tests of claims that the description of a table brings along; None where it has none."""
    own = source.own_tests()
    return OwnClaims(source.inputs[0], own) if own else None


def start_replay(
    settings: Settings, path: Path, asked: Sequence[str], given: Mapping[str, Any]
) -> tuple[Settings, Source]:
    """Read what is to be judged again, and the settings that go with it.

    asked: the models that were asked for; none for all that are stored. given: all options.
    Raises UsageError for whatever is wrong with what is stored.
    """
    from kv_claims.models.task import task_for
    from kv_claims.replay.option import check_options, open_source

    check_options(given)

    def task_of(model: str, file: Path | None) -> Task:
        # The run names the file: no code in it is the user's word.
        return task_for(model, file, chat=settings.chat, code=settings.code_for(None))

    source = open_source(
        path,
        models=asked,
        task=settings.task,
        out=settings.out,
        task_of=task_of,
        code_for=settings.code_for,
    )
    return replace(settings, models=source.models), source
