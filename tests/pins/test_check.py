"""A cell against its pin: nothing moved, and each thing that can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from kv_claims.pins.check import Pinned, against
from kv_claims.pins.pin import FINGERPRINT, ArmPin, Pin
from tests.pins.conftest import Pinning
from tests.runs import KINDS, PAIRS

NAMES = [cell.claim.id for cell in KINDS]


def held(made: Pinning, pin: Pin | None = None, *, tables: Any = None) -> Pinned:
    return against(pin or made.pin, made.pin, tables or made.done.tables, file="a.json")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_run_again_is_as_pinned(all_kinds: dict[str, Pinning], name: str) -> None:
    found = held(all_kinds[name])
    assert (found.word, found.changes, found.notes) == ("as pinned", (), ())
    assert found.verdict == all_kinds[name].pin.verdict


@pytest.mark.parametrize("name", ["pairs", "seeds", "max_new_tokens", "temperature"])
def test_another_budget_is_not_compared(all_kinds: dict[str, Pinning], name: str) -> None:
    made = all_kinds["transfer"]
    pin = replace(made.pin, verdict="refuted", setup={**made.pin.setup, name: 3})
    found = held(made, pin)
    assert (found.word, found.changes) == ("not compared", ())
    assert f"{name} 3, here {made.pin.setup[name]}" in found.notes[0]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"margin": 0.2}, "the claim was edited: margin: 0.2 -> 0.1"),
        ({"alpha": 0.5}, "the claim was edited: alpha: 0.5 -> 0.025"),
        ({"patch": ["kv@1/last(2)"]}, "the claim was edited: patch: ['kv@1/last(2)'] -> "),
        (
            {"parts": [{"outcome": "behavior", "estimand": "transfer", "region": [0.1, 0.9]}]},
            "region of behavior transfer: [0.1, 0.9] -> [0.1, 0.95]",
        ),
    ],
    ids=["margin", "alpha", "patch", "region"],
)
def test_an_edited_claim_moved(
    all_kinds: dict[str, Pinning], edit: dict[str, Any], told: str
) -> None:
    made = all_kinds["transfer"]
    found = held(made, replace(made.pin, plan={**made.pin.plan, **edit}))
    assert found.word == "moved"
    (change,) = found.changes
    assert told in change


def test_another_verdict_moved_and_says_why(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    found = held(made, replace(made.pin, verdict="refuted"))
    assert found.word == "moved"
    assert found.changes == (f"verdict: refuted -> {made.pin.verdict} ({made.pin.reason})",)


def test_invalid_for_another_reason_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["pasted"]
    found = held(made, replace(made.pin, failed=("no-ceiling",)))
    assert found.changes == (
        "invalid for another reason: no-ceiling failed -> measured-where-patched failed",
    )


def test_the_verdict_of_a_part_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["both"]
    first, *others = made.pin.parts
    pin = replace(made.pin, parts=({**first, "verdict": "invalid"}, *others))
    (change,) = held(made, pin).changes
    assert change == f"verdict of behavior transfer: invalid -> {first['verdict']}"


def test_other_prompts_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    found = held(made, replace(made.pin, pairs=("0" * 16, *made.pin.pairs[1:])))
    assert found.changes == (f"prompts: {PAIRS - 1} of {PAIRS} pinned pairs are among those run",)


def test_a_task_of_the_same_prompts_that_was_edited_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    found = held(made, replace(made.pin, setup={**made.pin.setup, "task_sha": "other"}))
    assert found.word == "moved"
    assert found.changes[0].startswith("the task was edited")


def shifted(pin: Pin, role: str, by: Callable[[int], float]) -> Pin:
    """A pin with other scores of one arm."""
    arm = pin.arms[role]
    scores = {
        outcome: tuple(score + by(i) for i, score in enumerate(means))
        for outcome, means in arm.scores.items()
    }
    return replace(pin, arms={**pin.arms, role: ArmPin(arm.arm, arm.tokens, scores)})


def test_numbers_beyond_the_margin_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    gap = made.done.evidence.means["source"] - made.done.evidence.means["base"]
    pin = shifted(made.pin, "patched", lambda i: -0.5 * gap + 0.01 * (i % 3))
    found = held(made, pin)
    assert found.word == "moved"
    (change,) = found.changes
    assert change.startswith("behavior transfer: beyond 0.05 of source - base: ")


def test_numbers_within_the_margin_did_not(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    found = held(made, shifted(made.pin, "patched", lambda i: 0.01 * (i % 2)))
    assert (found.word, found.changes, found.notes) == ("as pinned", (), ())


def test_numbers_that_scatter_are_undecided(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    gap = made.done.evidence.means["source"] - made.done.evidence.means["base"]
    found = held(made, shifted(made.pin, "patched", lambda i: gap * (-1) ** i))
    assert found.word == "undecided"
    assert found.changes == ()
    assert "neither shown within 0.05 nor beyond" in found.notes[0]


def other_tokens(pin: Pin, role: str, places: list[int]) -> Pin:
    arm = pin.arms[role]
    tokens = tuple("zzzz" if i in places else one for i, one in enumerate(arm.tokens))
    return replace(pin, arms={**pin.arms, role: ArmPin(arm.arm, tokens, arm.scores)})


@pytest.mark.parametrize("role", ["base", "source", "patched", "noise", "unrelated-base"])
def test_other_tokens_on_an_equal_fingerprint_moved(
    all_kinds: dict[str, Pinning], role: str
) -> None:
    made = all_kinds["transfer"]
    found = held(made, other_tokens(made.pin, role, [0, 3]))
    assert found.word == "moved"
    assert found.changes == (f"tokens of {role}: 2 of {PAIRS} trials have others",)


@pytest.mark.parametrize("name", FINGERPRINT)
def test_on_another_fingerprint_they_are_reported(all_kinds: dict[str, Pinning], name: str) -> None:
    made = all_kinds["transfer"]
    pin = other_tokens(made.pin, "base", [1])
    found = held(made, replace(pin, setup={**pin.setup, name: "another"}))
    assert (found.word, found.changes) == ("as pinned", ())
    shown = str(made.pin.setup[name])
    assert found.notes[0] == f"{name}: another -> {shown[:12] if name == 'weights_sha' else shown}"
    assert found.notes[1] == f"tokens of base: 1 of {PAIRS} trials have others"


def test_at_a_near_tie_they_are_reported(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    (table,) = made.done.tables
    assert table is not None
    near = table.assign(margin=table["margin"].where(table["pair_index"] != 1, 5e-6))
    fresh = replace(made.pin, setup={**made.pin.setup, "dtype": "float32"})
    found = against(other_tokens(fresh, "base", [1]), fresh, [near], file="a.json")
    assert found.word == "as pinned"
    assert found.notes == (f"tokens of base: 1 of {PAIRS} trials have others, by a near tie",)
    # A trial's margin is the smallest of many: what parts in more than a few is no rounding.
    both = table.assign(margin=5e-6)
    found = against(other_tokens(fresh, "base", [1, 2]), fresh, [both], file="a.json")
    assert found.changes == (f"tokens of base: 2 of {PAIRS} trials have others",)
    far = table.assign(margin=0.01)
    assert against(other_tokens(fresh, "base", [1]), fresh, [far], file="a.json").word == "moved"
    # In float64 there is no such excuse.
    assert held(made, other_tokens(made.pin, "base", [1]), tables=[near]).word == "moved"


def test_in_half_precision_they_are_reported(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    setup = {**made.pin.setup, "dtype": "bfloat16"}
    fresh = replace(made.pin, setup=setup)
    pin = other_tokens(fresh, "base", [1])
    found = against(pin, fresh, made.done.tables, file="a.json")
    assert (found.word, len(found.notes)) == ("as pinned", 1)


def test_scores_that_are_missing_leave_it_undecided(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    found = held(made, shifted(made.pin, "patched", lambda i: float("nan") if i == 2 else 5.0))
    assert found.word == "undecided"
    assert found.notes == ("behavior transfer: some pairs have no number",)


def test_an_arm_that_is_another_moved(all_kinds: dict[str, Pinning]) -> None:
    made = all_kinds["transfer"]
    arm = made.pin.arms["patched"]
    arms = {**made.pin.arms, "patched": ArmPin("source>kv@3/last(16)", arm.tokens, arm.scores)}
    (change,) = held(made, replace(made.pin, arms=arms)).changes
    assert change.startswith("arm patched is another, though the claim asks the same: source>kv@3")


def test_a_claim_with_another_part_was_edited(all_kinds: dict[str, Pinning]) -> None:
    """Parts are matched by what they are of, so that one more or less is an edit, not an end."""
    made = all_kinds["both"]
    plan = {**made.pin.plan, "given": []}
    fewer = replace(made.pin, parts=made.pin.parts[:2], plan=plan)
    for found in (
        held(made, fewer),
        against(made.pin, fewer, made.done.tables[:2], file="a.json"),
    ):
        assert found.word == "moved"
        assert "the claim was edited: region of given behavior gap" in found.changes[0]
    turned = replace(made.pin, parts=made.pin.parts[::-1])
    assert held(made, turned).changes == ()


def test_pairs_are_clustered_as_they_are_judged(all_kinds: dict[str, Pinning]) -> None:
    """Pairs that share a source are one cluster: too few of them decide nothing."""
    made = all_kinds["transfer"]
    (table,) = made.done.tables
    assert isinstance(table, pd.DataFrame)
    shared = table.assign(
        source_tokens_sha=table["source_tokens_sha"].where(table["pair_index"] < 5, "one")
    )
    gap = made.done.evidence.means["source"] - made.done.evidence.means["base"]
    found = held(
        made, shifted(made.pin, "patched", lambda i: -0.5 * gap + 0.01 * i), tables=[shared]
    )
    assert found.word == "undecided"
    assert "6 clusters by source" in found.notes[0]
