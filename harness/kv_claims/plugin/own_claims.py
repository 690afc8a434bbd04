"""Tests of the claims that stand in the description of a published table.

The description is collected as a module would be, with a test a claim and a cell a parameter, so
that all that holds for claims in a test file holds for these: families, ids, what is selected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kv_claims.claims.claim import ATTRIBUTE
from kv_claims.replay.own_claims import OwnClaim

ONLY = "only"
"""The cell of a claim that has one, as of a test without parameters."""


class OwnClaims:
    """The hook that collects a description.

    path: the description. claims: those that stand in it, each with its cells, by id.
    """

    def __init__(self, path: Path, claims: Mapping[str, tuple[OwnClaim, Sequence[str]]]) -> None:
        self.path, self._claims = path.resolve(), claims

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if file_path.resolve() != self.path:
            return None
        collector: pytest.Collector = _Described.from_parent(parent, path=file_path)
        collector.own = self  # type: ignore[attr-defined]
        return collector

    def module(self) -> ModuleType:
        """What a test file of these claims would be, as a module."""
        found = ModuleType(self.path.stem)
        found.__file__ = str(self.path)
        for id, (own, cells) in self._claims.items():
            name = f"test_{re.sub(r'[^0-9a-zA-Z]', '_', id)}"
            setattr(found, name, _test_of(own, cells))
        return found


class _Described(pytest.Module):
    """A description, whose tests are made and not imported."""

    own: OwnClaims

    def _getobj(self) -> ModuleType:
        return self.own.module()


def _test_of(own: OwnClaim, cells: Sequence[str]) -> Callable[..., None]:
    """The test of a claim, in each of its cells."""
    judged: Any

    def judge(study: Any) -> None:
        study.judge(own.patch, versus=own.versus)

    def judge_cell(study: Any, cell: str) -> None:  # noqa: ARG001
        study.judge(own.patch, versus=own.versus)

    judged = judge
    if list(cells) != [ONLY]:
        judged = pytest.mark.parametrize("cell", cells, ids=cells)(judge_cell)
    setattr(judged, ATTRIBUTE, own.claim)
    made: Callable[..., None] = judged
    return made
