"""Runs that several files look at: one process each is slow, so each is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.project import (
    INERT,
    ROOT,
    SMALL,
    STORED,
    Run,
    make_project,
    run_pytest,
)

SELECTED = (*SMALL, "-k", "L18-w16 or L25-w16 or swap")


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`pytest claims` in this repository: two models, two cells of each claim, the full swap."""
    folder = tmp_path_factory.mktemp("serial")
    junit = f"--junitxml={folder / 'junit.xml'}"
    options = ["--model", STORED, "--model", INERT, *SELECTED, "-v", junit]
    return run_pytest(ROOT, "claims", *options, out=folder / "out")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of its own in an empty folder."""
    monkeypatch.setenv("COLUMNS", "80")
    make_project(pytester.path)
    return pytester


@pytest.fixture(scope="session")
def selected() -> tuple[str, ...]:
    """The size and the cells that `serial` ran."""
    return SELECTED


@pytest.fixture(scope="session")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for runs that a whole module shares."""
    return make_project(tmp_path_factory.mktemp("project") / "a project")
