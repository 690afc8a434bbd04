"""Running `pytest claims` in another process: small projects, and what a run left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kv_claims.evidence.schema import unknown_fields
from kv_claims.evidence.stored import read_evidence
from kv_claims.planted.build import save_planted
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.words import MARKERS
from kv_claims.run.arms import PROBE_PAIRS
from tests.processes import inherited

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "projects"
STORED, INERT = "planted:stored-at-layer", "planted:inert"
PAIRS, TOKENS = 40, 8


def trials_of(arms: Iterable[str]) -> int:
    """How many trials these arms have: a self-patch is decoded for the first pairs only."""
    return sum(PROBE_PAIRS if arm.startswith("base>") else PAIRS for arm in arms)


SMALL = ("--pairs", str(PAIRS), "--max-new-tokens", str(TOKENS))
CONFIG = f"""
[pytest]
pythonpath = [{json.dumps(str(ROOT))}]
addopts = ["--import-mode=importlib"]
strict = true
filterwarnings = ["error"]
"""


@dataclass(frozen=True)
class Run:
    """A finished run of pytest. out: the folder of its reports."""

    code: int
    stdout: str
    stderr: str
    out: Path

    @property
    def content(self) -> dict[str, Any]:
        """The evidence, which the strict reader takes, and of which it knows every field."""
        found = read_evidence(self.out / "evidence.json")
        assert not unknown_fields(found)
        return dict(found)

    @property
    def evidence(self) -> list[dict[str, Any]]:
        return list(self.content["evidence"])

    @property
    def trials(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "trials.parquet")

    def ledger_lines(self) -> list[str]:
        return (self.out / "ledger/main.jsonl").read_text(encoding="utf-8").splitlines()


def make_project(folder: Path) -> Path:
    """A project with the claims of the repository, small ones, and wrong ones."""
    (folder / "claims").mkdir(parents=True)
    (folder / "pytest.toml").write_text(CONFIG)
    shutil.copy(FILES / "project_conftest.py", folder / "conftest.py")
    shutil.copy(FILES / "small_claims.py", folder / "test_small.py")
    shutil.copy(FILES / "wrong_claims.py", folder / "test_wrong.py")
    shutil.copy(FILES / "bare_claims.py", folder / "test_bare.py")
    shutil.copy(ROOT / "claims/test_kv_cache.py", folder / "claims")
    return folder


def save_as_stranger(project: Path) -> None:
    """A planted model as a folder, its prompts as a task file, so that nobody knows its truth."""
    planted = CATALOG["stored-at-layer"]
    save_planted(planted, project / "checkpoint")
    task = planted_task(planted, PAIRS)
    content: dict[str, Any] = {
        "schema": 1,
        "name": "own",
        "about": "its own prompts",
        "scorer": "lexicon",
        "pairing": "one-to-one",
        "lexicon": list(MARKERS),
    }
    for side, prompts in (("sources", task.sources), ("bases", task.bases)):
        content[side] = [{"id": p.id, "family": p.family, "text": p.text} for p in prompts]
    (project / "own.yaml").write_text(yaml.safe_dump(content))


def run_pytest(
    cwd: Path, what: str, *options: str, out: Path, cache: bool = False, **env: str
) -> Run:
    """Run pytest on a path in a process of its own, reports into `out`.

    The path comes first: pytest looks for its configuration beside whatever stands first, and
    knows our options only later.
    """
    command = [sys.executable, "-m", "pytest", what]
    command += [] if cache else ["-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--claims-out", str(out), *options],
        cwd=cwd,
        env={**inherited(), "COLUMNS": "80", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    return Run(done.returncode, done.stdout, done.stderr, out)


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
