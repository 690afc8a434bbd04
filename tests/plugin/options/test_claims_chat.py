"""--claims-chat: texts sent as a user's messages, through the model's chat template."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plugin.options.conftest import Given, Refused
from tests.plugin.project import ROOT


def test_the_task_is_another_one_whose_prompts_are_messages(given: Given) -> None:
    plain = replace(given(model="gpt2"), root=ROOT)
    chat = given("--claims-chat", model="gpt2")
    assert (plain.chat, chat.chat) == (False, True)
    one, other = plain.task_of("gpt2"), chat.task_of("gpt2")
    assert not one.has_messages
    assert other.has_messages
    assert (one.name, other.name) == ("self_observation", "self_observation+chat")
    assert one.sha != other.sha
    assert {pair.id for pair in one.pairs}.isdisjoint(pair.id for pair in other.pairs)


@pytest.mark.parametrize("form", ["--claims-chat", "--chat"])
def test_a_planted_model_has_no_template(form: str, refused: Refused) -> None:
    assert refused(form) == (
        "--claims-chat: planted:stored-at-layer reads plain words and has no chat template; "
        "expected models that have one"
    )
