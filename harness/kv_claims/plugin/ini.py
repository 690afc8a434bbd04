"""What a project's own pytest configuration says of claims: models, task, pins, reports.

The keys stand wherever pytest reads its settings (pytest.toml, pyproject.toml, pytest.ini, ...), so
that a lab writes them once; the command line wins over each. Paths are relative to pytest's
rootdir. Does not: look whether what they name is there. Imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.models import mini

MODELS, TASK, PINS, OUT = "claims_models", "claims_task", "claims_pins", "claims_out"


@dataclass(frozen=True)
class Project:
    """What one project says. None, or no models: what it does not say.

    root: pytest's rootdir. file: where its settings stand, if anywhere in it.
    """

    root: Path
    file: Path | None = None
    models: tuple[str, ...] = ()
    task: Path | None = None
    pins: Path | None = None
    out: Path | None = None

    def said(self, key: str) -> str:
        """Where a key was set, for errors: `claims_task in /lab/pytest.toml (...)`."""
        return f"{key} in {self.file or '--override-ini'} (paths relative to {self.root})"

    @property
    def file_text(self) -> str:
        """The file where keys are to stand, in words."""
        return str(self.file) if self.file else f"a pytest.toml in {self.root}"


def add_keys(parser: pytest.Parser) -> None:
    """Register the keys."""
    parser.addini(MODELS, "models that claims are run on, by name or folder", type="args")
    parser.addini(TASK, "task file for models not planted", type="string", default=None)
    parser.addini(PINS, "folder of pins (default claims/pins)", type="string", default=None)
    parser.addini(
        OUT, "folder that a run writes (default reports/latest)", type="string", default=None
    )


def project_of(config: pytest.Config) -> Project:
    """The project that pytest was started in. Raises UsageError for a key that is empty."""
    root, file = config.rootpath, config.inipath
    bare = Project(root, file if file is not None and file.is_relative_to(root) else None)

    def path(key: str) -> Path | None:
        value = config.getini(key)
        if value is None:
            return None
        if not value.strip():
            raise UsageError(f"{bare.said(key)}: empty, expected a path")
        return _near(root / value, config.invocation_params.dir)

    def model(name: str) -> str:
        if not name.strip():
            raise UsageError(f"{bare.said(MODELS)}: an empty name, expected that of a model")
        is_folder = name != mini.NAME and (root / name).is_dir()
        return str(root / name) if is_folder and config.invocation_params.dir != root else name

    return replace(
        bare,
        models=tuple(map(model, config.getini(MODELS))),
        task=path(TASK),
        pins=path(PINS),
        out=path(OUT),
    )


def _near(path: Path, here: Path) -> Path:
    """The path from where one stands, if it lies below: it is shown, and kept in evidence."""
    return path.relative_to(here) if path.is_relative_to(here) else path
