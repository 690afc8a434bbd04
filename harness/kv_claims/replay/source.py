"""What `--claims-replay` is pointed at: a run of ours, or a table that somebody else published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.evidence.folder import EVIDENCE_FILE, locate
from kv_claims.replay.own_claims import OwnClaim
from kv_claims.study.walk import Study

FOREIGN_FILE = "replay.yaml"
"""The file that makes a folder a published table: see docs/replay.md."""


class Source(Protocol):
    """Stored trials, read and checked. Nothing of it is ever written to.

    models: those that its trials are of. inputs: the files that were read.
    """

    @property
    def models(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> tuple[Path, ...]: ...

    def own_tests(self) -> Mapping[str, tuple[OwnClaim, Sequence[str]]]:
        """Claims that it brings along itself, each with its cells, by id."""

    def check_tests(self, cells: Mapping[str, tuple[Claim, set[str]]]) -> None:
        """Raise UsageError where it names claims or cells that no test has.

        cells: of each claim that has a test here, by its id.
        """

    def lacks(self, claim: Claim, cell: str, model: str) -> str:
        """Why a cell cannot be judged again, in a few words; '' where it can."""

    def study(self, model: str) -> Study:
        """What judges the cells of a model."""

    def trials(self, evidence: Sequence[dict[str, Any]]) -> pd.DataFrame:
        """The trials that some evidence of it rests on, one row each."""

    def dry_run(self) -> list[str]:
        """What it is read as and what would be judged, in lines."""

    def facts(self) -> dict[str, Any]:
        """What holds for the run as a whole: `replay`, and settings of the stored run."""


def kind_of(path: Path) -> str:
    """'run' or 'foreign'. Raises UsageError for what is neither."""
    if not path.exists():
        raise UsageError(f"--claims-replay {path}: not there; {_expected()}")
    if path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"--claims-replay {path}: a file that is no YAML; {_expected()}")
        return "foreign"
    if locate(path, EVIDENCE_FILE).is_file():
        return "run"
    if (path / FOREIGN_FILE).is_file():
        return "foreign"
    raise UsageError(
        f"--claims-replay {path}: neither {EVIDENCE_FILE} nor {FOREIGN_FILE} in it; {_expected()}"
    )


def chosen(models: Sequence[str], stored: Sequence[str], where: Path) -> tuple[str, ...]:
    """The models to judge: those asked for, or all. Raises UsageError for one not stored."""
    if missing := [model for model in models if model not in stored]:
        raise UsageError(
            f"--claims-model {', '.join(missing)}: no trials of it in {where}, expected one of "
            f"{', '.join(stored)}"
        )
    return tuple(model for model in stored if not models or model in models)


def sha_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _expected() -> str:
    return (
        f"expected a folder that `pytest claims` wrote, or one with a published table and a "
        f"{FOREIGN_FILE} that describes it"
    )
