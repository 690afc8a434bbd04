"""--claims-revision: of a hub id; nothing else has one."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


def test_a_planted_model_has_none(refused: Refused) -> None:
    assert "planted models have no revision, got 'main'" in refused("--claims-revision", "main")


def test_without_it_there_is_none(given: Given) -> None:
    assert given().revision is None


def test_a_folder_has_none(pytester: pytest.Pytester, given: Given) -> None:
    folder = pytester.path / "model"
    folder.mkdir()
    for name in ("config.json", "a.safetensors", "tokenizer.json"):
        (folder / name).touch()
    with pytest.raises(pytest.UsageError, match="a folder has no revision, got 'main'"):
        given("--claims-revision", "main", model="model")
