"""What the project that a command is called in says of claims, read as pytest itself would.

Nothing is collected, and neither a conftest nor another plugin is loaded.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.ini import MODELS, Project, project_of

DEFAULT_OUT = Path("reports/latest")
_ALONE = (
    *("--noconftest", "--disable-plugin-autoload", "-p", "kv_claims.plugin.hooks"),
    # Options of plugins and conftests that are not loaded would be errors.
    *("-o", "addopts=", "-o", "required_plugins="),
)


class _Reader:
    """A pytest plugin that takes what there is to know, and ends before anything is collected."""

    found: Project | None = None
    wrong: UsageError | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        try:
            self.found = project_of(config)
        except UsageError as error:
            self.wrong = error
        return 0


def project_here(folder: Path = Path()) -> Project:
    """The project that a folder is in; pytest says which that is.

    Raises UsageError for settings that pytest cannot read, and for keys of ours that are wrong.
    """
    reader, said = _Reader(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        pytest.main([str(folder), *_ALONE], plugins=[reader])
    if reader.wrong is not None:
        raise reader.wrong
    if reader.found is None:
        raise UsageError(f"the settings of pytest cannot be read: {said.getvalue().strip()}")
    return reader.found


def model_of(project: Project, command: str) -> str:
    """The one model that the project says, for a command that was given none.

    Raises UsageError where it says none, or several.
    """
    from kv_claims.plugin.settings import all_of

    models = all_of(project.models)
    if len(models) != 1:
        says = f"has {len(models)} models" if models else "is not there"
        raise UsageError(
            f"{command}: no --model, and {MODELS} in {project.file_text} {says}; expected one model"
        )
    return models[0]


def run_folder(project: Project) -> Path:
    """Where the project's runs leave their files."""
    if project.out is not None:
        return project.out
    return project.root / DEFAULT_OUT if project.root != Path.cwd() else DEFAULT_OUT
