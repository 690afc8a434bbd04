"""What an option becomes, in this process: nothing is collected and no model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kv_claims.plugin.settings import Settings
from tests.plugin.project import STORED

Given = Callable[..., Settings]
Refused = Callable[..., str]


@pytest.fixture
def given(pytester: pytest.Pytester) -> Given:
    """The settings that options become, once they are checked; on one planted model."""

    def settings(*options: str, model: str | None = STORED) -> Settings:
        of_model = ("--claims-model", model) if model else ()
        plugins = ("-p", "kv_claims.plugin.hooks", "-p", "kv_claims.plugin.short_options")
        config = pytester.parseconfigure(*plugins, "--claims-out", "out", *of_model, *options)
        run = config.pluginmanager.get_plugin("kv-claims-run")
        assert run is not None
        found = run.state.settings
        assert isinstance(found, Settings)
        return found

    return settings


@pytest.fixture
def refused(given: Given, pytester: pytest.Pytester) -> Refused:
    """The one line with which options are refused, once they have left no file."""

    def message(*options: str, model: str | None = STORED) -> str:
        with pytest.raises(pytest.UsageError) as error:
            given(*options, model=model)
        assert [path for path in Path(pytester.path).rglob("*") if path.is_file()] == []
        (line,) = str(error.value).splitlines()
        return line

    return message
