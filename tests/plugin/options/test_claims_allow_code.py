"""--claims-allow-code: whose scorers in Python are imported, and whose only with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.python_scorer import PythonScorer
from tests.plugin.options.conftest import Given
from tests.replay.conftest import own_task
from tests.replay.test_option import task_file


@pytest.fixture
def lab(pytester: pytest.Pytester) -> Path:
    """A project with a scorer, a task that names it, and a run's folder with both as well."""
    root = Path(pytester.path)
    scorer = {"python": f"lab_{root.name}:score"}
    (root / "run").mkdir()
    for folder in (root, root / "run"):
        (folder / f"lab_{root.name}.py").write_text("def score(text): return 1")
        task_file(own_task("planted:inert", None), folder / "task.yaml", scorer=scorer)
    return root


def test_the_projects_own_task_needs_no_option(given: Given, lab: Path) -> None:
    settings = given("--claims-task", "task.yaml", model="gpt2")
    assert isinstance(settings.task_of("gpt2").scorer, PythonScorer)
    assert settings.code_for(settings.task) == CodeFrom(lab)


def test_a_models_folder_does(given: Given, lab: Path) -> None:
    with pytest.raises(UsageError, match="expected --claims-task FILE, or --claims-allow-code"):
        given(model=None).task_of(str(lab / "run"))
    allowed = given("--claims-allow-code", model=None).task_of(str(lab / "run"))
    assert isinstance(allowed.scorer, PythonScorer)


def test_so_does_what_lies_in_the_folder_of_what_is_replayed(given: Given, lab: Path) -> None:
    del lab
    settings = given(model=None)
    for path in (Path("run"), Path("run/replay.yaml")):
        replayed = replace(settings, replayed=path)
        assert replayed.code_for(Path("run/task.yaml")) is None
        assert replayed.code_for(None) is None
        code = replayed.code_for(Path("task.yaml"))
        assert code is not None
        assert code.is_of_others(Path("run/lab.py"))
        allowed = replace(replayed, allow_code=True).code_for(None)
        assert allowed is not None
        assert not allowed.is_of_others(Path("run/lab.py"))
