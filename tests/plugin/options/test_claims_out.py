"""--claims-out DIR: where a run leaves its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.options.conftest import Given


def test_it_is_where_the_files_go(given: Given) -> None:
    assert given("--claims-out", "elsewhere").out == Path("elsewhere")


def test_a_file_in_its_place_is_refused(pytester: pytest.Pytester, given: Given) -> None:
    (pytester.path / "mine").write_text("mine")
    with pytest.raises(pytest.UsageError, match="folder mine: cannot be written"):
        given("--claims-out", "mine")
    assert (pytester.path / "mine").read_text() == "mine"
