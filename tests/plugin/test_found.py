"""What is worked out of the names of collected tests, and which files they came from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kv_claims.plugin.found import MODEL_FIXTURE, cell_of, known_files, model_ids


def item_of(call_id: str, model: str) -> Any:
    """What of a collected test says which cell it is."""
    return SimpleNamespace(callspec=SimpleNamespace(id=call_id, params={MODEL_FIXTURE: model}))


@pytest.mark.parametrize(
    ("call_id", "model", "cell"),
    [
        ("planted:inert-L18-w16", "planted:inert", "L18-w16"),
        ("w16-L25-w16", "w16", "L25-w16"),
        ("planted:inert", "planted:inert", "only"),
    ],
    ids=["planted", "model-named-like-a-cell", "no-cell"],
)
def test_a_cell_is_the_tests_id_without_the_model(call_id: str, model: str, cell: str) -> None:
    models = ("another", model)
    assert cell_of(cast(pytest.Item, item_of(call_id, model)), models) == cell


def test_a_test_without_parameters_has_one_cell() -> None:
    assert cell_of(cast(pytest.Item, SimpleNamespace()), ("planted:inert",)) == "only"


def test_names_of_models_are_short_ascii_and_distinct() -> None:
    assert model_ids(("planted:a", "owner/name")) == ["planted:a", "owner/name"]
    assert model_ids(("mod\u00e8le", "has space")) == ["mod_le", "has_space"]
    assert len(set(model_ids(("a\u00e8", "a\u00e9")))) == 2


def test_a_file_beside_the_one_that_was_named_is_not_known(pytester: pytest.Pytester) -> None:
    """Else its pins would count as those of no claim (docs/pins.md)."""
    pytester.makepyfile(test_named="def test_it(): pass", test_beside="def test_it(): pass")
    known: list[set[str]] = []

    class Asked:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            known.append(known_files(session.config))

    pytester.inline_run(
        "test_named.py", "--collect-only", "-p", "kv_claims.plugin.hooks", plugins=[Asked()]
    )
    assert known == [{"test_named.py"}]
