"""Finding and running claims by their id, through pytest itself."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kv_claims.claims.claim import Claim, claim_in
from kv_claims.errors import UsageError
from kv_claims.judging.family import cells_of
from kv_claims.plain import say


class _Only:
    """A pytest plugin that keeps the tests of one claim, and remembers which claims there were."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.known: dict[str, tuple[Claim, int]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if (claim := claim_in(item)) is not None:
                self.known[claim.id] = claim, cells_of(item)
        items[:] = [item for item in items if self._is_wanted(item)]

    def _is_wanted(self, item: pytest.Item) -> bool:
        claim = claim_in(item)
        return claim is not None and claim.id == self.wanted


def claim_by_id(where: str, claim: str) -> tuple[Claim, int]:
    """A claim and how many cells it has. Raises UsageError where there is none of that id."""
    only = _Only(claim)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            _pytest(only, [where, "--collect-only", "-q"])
    except UsageError:
        say(said.getvalue(), sys.stderr)
        raise
    return _found(only, where)


def run_pilot(where: str, claim: str, model: str, options: Sequence[str], out: Path) -> None:
    """Run the cells of one claim on a model, evidence into a folder. options: more of pytest's."""
    only = _Only(claim)
    _pytest(only, [where, "--claims-model", model, *options, "--claims-out", str(out), "-q"])
    _found(only, where)


def _pytest(only: _Only, arguments: list[str]) -> None:
    run: Callable[..., int | pytest.ExitCode] = pytest.main
    loaded = ("-p", "no:cacheprovider", "-p", "kv_claims.plugin.hooks")
    status = run([*arguments, *loaded], plugins=[only])
    ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if status not in ended:
        raise UsageError(f"pytest {' '.join(arguments)}: exit status {int(status)}, said above")


def _found(only: _Only, where: str) -> tuple[Claim, int]:
    if only.wanted not in only.known:
        known = ", ".join(sorted(only.known)) or "none"
        raise UsageError(f"claim {only.wanted!r}: not in {where}, which has {known}")
    return only.known[only.wanted]
