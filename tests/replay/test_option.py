"""What `--claims-replay` is given: which source, which task, which folder to write to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kv_claims.errors import UsageError
from kv_claims.replay.foreign import ForeignTable
from kv_claims.replay.option import open_source
from kv_claims.replay.run import ReplayedRun
from kv_claims.replay.source import Source
from kv_claims.tasks.task import Task
from tests.replay.conftest import MODEL, own_task
from tests.runs import KINDS

TABLE = Path(__file__).parents[2] / "docs/examples/seed-table"


def source_of(path: Path, out: Path, task: Path | None = None) -> Source:
    return open_source(path, models=(), task=task, out=out, task_of=own_task)


def task_file(task: Task, path: Path, **changed: object) -> Path:
    """A task as its file has it."""
    prompts = {
        side: [{"id": p.id, "family": p.family, "text": p.text} for p in getattr(task, side)]
        for side in ("sources", "bases")
    }
    content = {
        "schema": 1,
        "name": task.name,
        "about": task.about,
        "scorer": task.scorer.name,
        "lexicon": sorted(task.lexicon),
        "pairing": task.pairing,
        "max_degenerate_share": task.max_degenerate_share,
        **prompts,
        **changed,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_folder_says_by_its_files_what_it_is(a_run: Path, tmp_path: Path) -> None:
    assert isinstance(source_of(a_run, tmp_path), ReplayedRun)
    for path in (TABLE, TABLE / "replay.yaml"):
        assert isinstance(source_of(path, tmp_path), ForeignTable)


@pytest.mark.parametrize("end", ["", "/", "/../a"])
def test_what_is_replayed_is_never_written_over(end: str, a_run: Path) -> None:
    with pytest.raises(UsageError, match=r"--claims-out .*: holds what is replayed \(evidence"):
        source_of(a_run, Path(f"{a_run}{end}"))


def test_the_folder_of_a_published_table_is_not_written_to() -> None:
    with pytest.raises(UsageError, match=r"holds what is replayed \(replay\.yaml\)"):
        source_of(TABLE, TABLE)


def test_a_task_file_of_the_same_prompts_scores_texts_again(a_run: Path, tmp_path: Path) -> None:
    own = own_task(MODEL, None)
    file = task_file(own, tmp_path / "few.yaml", lexicon=sorted(own.lexicon)[:20])
    source = source_of(a_run, tmp_path / "out", file)
    evidence, _ = source.study(MODEL).judge(KINDS[0])
    assert not evidence.verified
    assert source.facts()["replay"]["scored_by"]["task"] == f"task file {file}"
    # The run's own task, from a file, is the run's own.
    source = source_of(a_run, tmp_path / "out", task_file(own, tmp_path / "own.yaml"))
    evidence, _ = source.study(MODEL).judge(KINDS[0])
    assert evidence.verified
    assert source.facts()["replay"]["scored_by"] is None


def test_a_task_of_other_prompts_is_refused(a_run: Path, tmp_path: Path) -> None:
    own = own_task(MODEL, None)
    bases = [{"id": p.id, "family": p.family, "text": f"{p.text} more"} for p in own.bases]
    file = task_file(own, tmp_path / "other.yaml", bases=bases)
    with pytest.raises(UsageError, match="30 of 30 pairs are not among its pairs; no base has"):
        source_of(a_run, tmp_path / "out", file)


def test_a_task_file_that_is_gone_is_named_with_what_helps(a_run: Path, tmp_path: Path) -> None:
    def gone(_model: str, _file: Path | None) -> Task:
        raise UsageError("task file mine.yaml: cannot be read (No such file)")

    with pytest.raises(
        UsageError, match=r"no task of .* where the run had it .*; give --claims-task FILE with"
    ):
        open_source(a_run, models=(), task=None, out=tmp_path, task_of=gone)
