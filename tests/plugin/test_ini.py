"""What a project's settings say of claims: who wins, where a value stands, what is refused.

In this process: nothing is collected and no model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.asked import settings_of
from kv_claims.plugin.options import merge_forms
from kv_claims.plugin.settings import EMBEDDED, Settings

Found = Callable[..., Settings]
TOML = "[pytest]\n"
IN_TOML = """[pytest]
claims_models = ["planted:inert", "models/mine"]
claims_task = "tasks/own.yaml"
claims_pins = "pinned"
claims_out = "evidence"
"""
IN_INI = """[pytest]
claims_models = planted:inert models/mine
claims_task = tasks/own.yaml
claims_pins = pinned
claims_out = evidence
"""
FILES = {
    "pytest.toml": IN_TOML,
    "pyproject.toml": IN_TOML.replace("[pytest]", "[tool.pytest]"),
    "pytest.ini": IN_INI,
    "setup.cfg": IN_INI.replace("[pytest]", "[tool:pytest]"),
}


@pytest.fixture
def found(pytester: pytest.Pytester) -> Found:
    """The settings of a project with these files, for these options."""

    def found(content: str, *options: str, file: str = "pytest.toml", cwd: str = ".") -> Settings:
        (pytester.path / file).write_text(content)
        (pytester.path / "models/mine").mkdir(parents=True, exist_ok=True)
        (pytester.path / cwd).mkdir(exist_ok=True)
        os.chdir(pytester.path / cwd)
        config = pytester.parseconfig("-p", "kv_claims.plugin.hooks", *options)
        merge_forms(config.option)
        return settings_of(config)

    return found


@pytest.mark.parametrize("file", FILES)
def test_a_lab_writes_it_once(found: Found, pytester: pytest.Pytester, file: str) -> None:
    settings = found(FILES[file], file=file)
    assert settings.models == ("planted:inert", "models/mine")
    assert settings.task == Path("tasks/own.yaml")
    assert settings.pins == settings.pins_folder == Path("pinned")
    assert settings.out == Path("evidence")
    told = f"in {pytester.path / file} (paths relative to {pytester.path})"
    assert settings.said["claims_task"] == f"claims_task {told}"


def test_paths_are_relative_to_rootdir(found: Found, pytester: pytest.Pytester) -> None:
    settings, root = found(IN_TOML, cwd="below"), pytester.path
    assert settings.models == ("planted:inert", str(root / "models/mine"))
    assert settings.task == root / "tasks/own.yaml"
    assert settings.pins_folder == root / "pinned"
    assert settings.out == root / "evidence"


def test_the_command_line_wins(found: Found) -> None:
    options = ("--claims-model", "mini", "--claims-task", "a.yaml", "--claims-out", "b")
    settings = found(IN_TOML, *options)
    assert (settings.models, settings.task, settings.out) == (
        ("mini",),
        Path("a.yaml"),
        Path("b"),
    )
    assert set(settings.said) == {"", "claims_pins"}


def test_where_nothing_is_said_there_is_no_model(found: Found, pytester: pytest.Pytester) -> None:
    settings = found(TOML)
    assert (settings.models, settings.task) == ((), None)
    assert settings.out == pytester.path / "reports/latest"
    assert settings.pins_folder == pytester.path / "claims/pins"
    settings.check()
    with pytest.raises(UsageError, match=r"expected claims_models in .*pytest\.toml, or --cl"):
        settings.check_model()


def test_all_planted_models_are_one_name_and_a_file_may_pick(found: Found) -> None:
    settings = found(TOML + 'claims_models = ["planted:*", "mini"]\n')
    assert settings.models == (*EMBEDDED, "mini")
    assert settings.models_for(["inert"]) == ("planted:inert", "mini")
    assert settings.is_by_file
    assert not found(TOML + 'claims_models = ["planted:*"]\n', "--claims-model=mini").is_by_file


def test_this_repository_runs_on_planted_models() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["pytest"]["claims_models"] == ["planted:*"]


def test_a_replay_asks_for_no_other_task_by_itself(found: Found) -> None:
    settings = found(IN_TOML, "--claims-replay", "reports/latest")
    assert (settings.models, settings.task) == ((), None)
    assert settings.out.name == "replay"


def test_a_planted_model_is_not_given_the_task_of_others(found: Found) -> None:
    settings = found(IN_TOML, "--claims-model", "planted:inert")
    settings.check()
    assert settings.task_of("planted:inert").name == "planted:inert"


@pytest.mark.parametrize(
    ("line", "key", "told"),
    [
        ('claims_models = ["./none"]', "claims_models", "model './none': not a folder"),
        ('claims_models = ["models/mine"]', "claims_models", "model folder models/mine: holds no"),
        ('claims_models = ["mini", "mini"]', "claims_models", "model given twice: mini, mini"),
        ('claims_task = "no.yaml"', "claims_task", "task file no.yaml: cannot be read (No such"),
        ('claims_pins = "none"', "claims_pins", "folder none: is not there, expected a folder of"),
        ('claims_out = "pytest.toml"', "claims_out", "folder pytest.toml: cannot be written ("),
    ],
    ids=["model", "folder", "twice", "task", "pins", "out"],
)
def test_what_is_not_there_says_which_file_has_it(
    found: Found, pytester: pytest.Pytester, line: str, key: str, told: str
) -> None:
    content = TOML + line + ("" if "models" in line else '\nclaims_models = ["mini"]') + "\n"
    with pytest.raises(UsageError) as error:
        found(content).check()
    where = f"{pytester.path / 'pytest.toml'} (paths relative to {pytester.path})"
    assert str(error.value).startswith(f"{key} in {where}: {told}")


@pytest.mark.parametrize("key", ["claims_task", "claims_pins", "claims_out"])
def test_an_empty_path_is_none(found: Found, key: str) -> None:
    with pytest.raises(UsageError, match=rf"^{key} in .*: empty, expected a path$"):
        found(f'{TOML}{key} = " "\n')


def test_an_empty_name_is_no_model(found: Found) -> None:
    with pytest.raises(UsageError, match=r"^claims_models in .*: an empty name"):
        found(TOML + 'claims_models = [""]\n')


def test_pins_that_are_to_be_made_need_no_folder(found: Found) -> None:
    content = TOML + 'claims_models = ["mini"]\nclaims_pins = "none"\n'
    found(content, "--claims-update").check()
