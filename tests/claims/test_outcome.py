"""Outcomes as text: the whole grammar, one spelling each, and everything that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kv_claims.claims.outcome import LIKELIHOOD_NAMES, TEXT_NAMES, VARIANTS, WINDOW, Outcome
from kv_claims.errors import UsageError
from kv_claims.measure.behavior import Behavior

ALL = [
    *TEXT_NAMES,
    *LIKELIHOOD_NAMES,
    *(
        f"{name}{variant}{layer}{where}"
        for name, layers in (("pr", ("@27/32", "@13", "@0")), ("rv", ("",)))
        for variant in ("", "-centred", "-unsquared")
        for layer in layers
        for where in ("", "/generated")
    ),
]


@pytest.mark.parametrize("text", ALL)
def test_every_outcome_is_read_and_written_alike(text: str) -> None:
    outcome = Outcome.parse(text)
    assert str(outcome) == text
    assert Outcome.parse(str(outcome)) == outcome
    assert outcome.is_text + outcome.is_likelihood + outcome.is_geometry == 1
    assert outcome.unit
    assert outcome.formula


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pr@27/32/prompt", "pr@27/32"),
        (" pr @ 13 / prompt ", "pr@13"),
        ("rv/prompt", "rv"),
        ("pr-centred@013/generated", "pr-centred@13/generated"),
    ],
)
def test_other_spellings_have_one_canonical_one(text: str, canonical: str) -> None:
    assert str(Outcome.parse(text)) == canonical
    assert Outcome.parse(text) == Outcome.parse(canonical)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one of behavior"),
        ("behaviour", "expected one of behavior"),
        ("score", "expected one of behavior"),
        ("behavior/generated", "expected one of behavior"),
        ("loglik@3", "expected one of behavior"),
        ("pr", "needs a layer, got None"),
        ("pr/generated", "needs a layer"),
        ("rv@27/32", "takes no layer, got '27/32'"),
        ("pr@", "expected one of behavior"),
        ("pr@-1", "expected one of behavior"),
        ("pr@1+2", "expected one of behavior"),
        ("pr@all", "expected one of behavior"),
        ("pr@32/32", "outside"),
        ("pr@1/0", "divides by zero"),
        ("pr@27/32/answer", "'answer' is not known"),
        ("pr-squared@3", "'squared' is not known"),
        ("pr-uncentred@3", "expected one of behavior"),
        ("pr@27/32/generated/prompt", "expected one of behavior"),
        (None, "outcome None: expected one of behavior"),
    ],
)
def test_what_cannot_be_read_is_refused(text: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Outcome.parse(text)


@pytest.mark.parametrize(
    "parts",
    [
        {"name": "pq"},
        {"name": "behavior", "where": "generated"},
        {"name": "kl", "variant": "centred"},
        {"name": "behavior", "layer": "3"},
        {"name": "pr"},
        {"name": "pr", "layer": "x"},
        {"name": "pr", "layer": "3", "where": "answer"},
        {"name": "pr", "layer": "3", "variant": "squared"},
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Outcome(**parts)


def test_text_outcomes_are_columns_of_what_is_measured_on_a_text() -> None:
    assert set(TEXT_NAMES) - {"behavior"} <= set(Behavior._fields)


@pytest.mark.parametrize(
    ("text", "n_layers", "layers"),
    [
        ("pr@27/32", 32, (27,)),
        ("pr@27/32", 16, (13,)),
        ("pr@13", 16, (13,)),
        ("rv", 32, (5, 27)),
        ("rv", 16, (2, 13)),
        ("rv", 2, (0, 1)),
        ("behavior", 32, ()),
        ("kl", 32, ()),
    ],
)
def test_layers_that_are_read(text: str, n_layers: int, layers: tuple[int, ...]) -> None:
    assert Outcome.parse(text).layers(n_layers) == layers


def test_layers_that_a_model_does_not_have() -> None:
    with pytest.raises(UsageError, match="out of range"):
        Outcome.parse("pr@16").layers(16)
    with pytest.raises(UsageError, match="are both layer 0 of 1"):
        Outcome.parse("rv").layers(1)


def test_rows_are_the_last_16_of_what_the_model_has_read() -> None:
    assert Outcome.parse("rv").rows(40, 0) == range(24, 40)
    assert Outcome.parse("rv").rows(16, 0) == range(16)
    # The last of 50 generated tokens was never fed.
    assert Outcome.parse("rv/generated").rows(40, 50) == range(73, 89)
    assert Outcome.parse("rv/generated").rows(40, 17) == range(40, 56)


@pytest.mark.parametrize(
    ("text", "prompt", "generated", "told"),
    [
        ("rv", 15, 50, "16 tokens, the prompt has 15; expected at least 16"),
        (
            "rv/generated",
            40,
            16,
            "16 were generated, of which the model has read 15; expected .*17",
        ),
        ("rv/generated", 40, 0, "the model has read 0"),
        ("behavior", 40, 50, "has no window"),
    ],
)
def test_short_window(text: str, prompt: int, generated: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Outcome.parse(text).rows(prompt, generated)


@pytest.mark.parametrize("text", ALL)
def test_the_evidence_says_what_a_name_stands_for(text: str) -> None:
    said = Outcome.parse(text).describe(32)
    assert json.loads(json.dumps(said)) == said
    assert said["name"] == text
    assert "\n" not in str(said["formula"])
    assert ("window" in said) == Outcome.parse(text).is_geometry


def test_the_evidence_of_a_ratio() -> None:
    said = Outcome.parse("rv-centred/generated").describe(16)
    assert said["layers"] == [2, 13]
    assert said["window"] == WINDOW == 16
    assert (said["span"], said["variant"]) == ("generated", "centred")
    assert said["tensor"] == "v_proj output"
    assert "less its column means" in str(said["formula"])


def test_every_formula_has_its_own_words() -> None:
    told = {Outcome("pr", layer="3", variant=variant).formula for variant in VARIANTS}
    assert len(told) == len(VARIANTS)
