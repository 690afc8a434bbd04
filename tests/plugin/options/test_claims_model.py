"""--claims-model NAME: what the claims are about; repeatable."""

from __future__ import annotations

import pytest

from kv_claims.plugin.settings import EMBEDDED
from tests.plugin.options.conftest import Given, Refused
from tests.plugin.project import INERT, STORED


def test_without_it_there_is_none(given: Given) -> None:
    assert given(model=None).models == ()


def test_one_name_stands_for_all_planted_models(given: Given) -> None:
    assert given(model="planted:*").models == EMBEDDED


def test_it_can_be_given_more_than_once(given: Given) -> None:
    assert given("--claims-model", INERT).models == (STORED, INERT)


def test_given_twice_the_same_is_refused(refused: Refused) -> None:
    assert refused("--claims-model", STORED) == f"model given twice: {STORED}, {STORED}"


def test_the_same_folder_by_two_names_is_refused(pytester: pytest.Pytester, given: Given) -> None:
    (pytester.path / "model").mkdir()
    with pytest.raises(pytest.UsageError, match=r"model given twice: model, \./model"):
        given("--claims-model", "./model", model="model")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("planted:stored", f"no planted model of that name, expected one of {STORED}, "),
        ("planted:", f"expected one of {STORED}, "),
        (
            "./no/such/folder",
            "expected planted:NAME, mini, smollm2, ",
        ),
        ("/no/such/folder", "expected planted:NAME, mini, smollm2, "),
        ("a/b/c", ", a .gguf file, or a hub id"),
        ("two words", "expected planted:NAME, mini, smollm2, "),
        ("", "expected planted:NAME, mini, smollm2, "),
    ],
    ids=["unknown", "planted", "relative", "absolute", "deep", "spaces", "empty"],
)
def test_what_is_no_model_is_refused(refused: Refused, name: str, told: str) -> None:
    message = refused("--claims-model", name)
    assert message.startswith(f"model {name!r}: ")
    assert told in message
