"""--claims-task FILE: prompts and scorer for models that are not planted."""

from __future__ import annotations

from dataclasses import replace

from tests.plugin.options.conftest import Given, Refused
from tests.plugin.project import ROOT


def test_a_planted_model_brings_its_own(refused: Refused) -> None:
    assert "brings its own task; give --claims-task with other models" in refused(
        "--claims-task", "own.yaml"
    )


def test_without_it_other_models_run_the_shipped_one(given: Given) -> None:
    settings = replace(given(), root=ROOT)
    assert settings.task_of("gpt2").name == "self_observation"


def test_a_file_that_is_not_there_is_refused(refused: Refused) -> None:
    told = refused("--claims-task", "no.yaml", model="gpt2")
    assert told == "task file no.yaml: cannot be read (No such file or directory)"
