"""What is kept of a cell: against its evidence and its table."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from kv_claims.evidence.evidence import plain, to_json
from kv_claims.judging.estimand import NEEDED
from kv_claims.pins.pin import (
    BUDGET,
    FINGERPRINT,
    Pin,
    pin_of,
    rounded,
    short_sha,
    why_not_pinned,
)
from tests.pins.conftest import Pinning
from tests.runs import KINDS, PAIRS

NAMES = [cell.claim.id for cell in KINDS]


@pytest.mark.parametrize("name", NAMES)
def test_a_pin_survives_its_way_to_the_controller(all_kinds: dict[str, Pinning], name: str) -> None:
    pin = all_kinds[name].pin
    again = Pin.from_dict(json.loads(to_json(pin.to_dict())))
    assert again.to_dict() == pin.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_words_and_numbers_of_the_evidence(
    all_kinds: dict[str, Pinning], name: str
) -> None:
    done, pin = all_kinds[name]
    assert (pin.verdict, pin.reason) == (done.evidence.verdict, done.evidence.reason)
    for part, kept in zip(done.evidence.parts, pin.parts, strict=True):
        assert (kept["verdict"], kept["given"]) == (part["verdict"], part["given"])
        estimate = part["estimate"]
        assert kept["estimate"] == (None if estimate is None else rounded(estimate))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pasted"])
def test_the_means_of_pairs_give_the_means_of_the_evidence(
    all_kinds: dict[str, Pinning], name: str
) -> None:
    """Unclustered pairs: the evidence's means are those of the pairs."""
    done, pin = all_kinds[name]
    for part, table in zip(done.evidence.parts, done.tables, strict=True):
        assert table is not None
        for role in NEEDED[part["estimand"]]:
            kept = pin.arms[role].scores[part["outcome"]["name"]]
            rows = table[table["arm"] == role].sort_values("pair_index")
            assert kept == tuple(map(rounded, rows["score"]))
            assert len(kept) == len(pin.pairs) == done.evidence.pairs
            if part["means"]:
                mean = sum(kept) / len(kept)
                assert mean == pytest.approx(part["means"][role], rel=1e-4, abs=1e-6)


def test_seeds_are_averaged_and_a_trial_without_a_number_leaves_its_pair_without(
    all_kinds: dict[str, Pinning],
) -> None:
    done = all_kinds["gap"].done
    (table,) = done.tables
    assert table is not None
    second = table.assign(seed=1, score=table["score"] + 1.0, tokens="1 2 3")
    second.loc[(second["pair_index"] == 2) & (second["arm"] == "base"), "score"] = float("nan")
    both = pd.concat([second, table], ignore_index=True)
    pin = pin_of(plain(done.evidence.__dict__), [both], test="t", pairs_asked=PAIRS)
    one = all_kinds["gap"].pin
    for place, (mean, before) in enumerate(
        zip(pin.arms["base"].scores["behavior"], one.arms["base"].scores["behavior"], strict=True)
    ):
        if place == 2:
            assert mean != mean
        else:
            assert mean == pytest.approx(before + 0.5, rel=1e-5)
    assert pin.arms["base"].tokens[0::2] == one.arms["base"].tokens
    assert set(pin.arms["base"].tokens[1::2]) == {short_sha("1 2 3", 4)}


def test_what_was_not_run_has_no_arms(all_kinds: dict[str, Pinning]) -> None:
    pin = all_kinds["pasted"].pin
    assert (pin.verdict, pin.failed[0]) == ("invalid", "measured-where-patched")
    assert (pin.arms, pin.pairs) == ({}, ())


def test_a_claim_with_looks_keeps_the_pairs_that_it_took(all_kinds: dict[str, Pinning]) -> None:
    done, pin = all_kinds["looks"]
    assert len(pin.pairs) == done.evidence.pairs < PAIRS
    assert pin.setup["pairs"] == PAIRS


@pytest.mark.parametrize("name", NAMES)
def test_budget_and_fingerprint_are_in_the_setup(all_kinds: dict[str, Pinning], name: str) -> None:
    setup = all_kinds[name].pin.setup
    assert {*BUDGET, *FINGERPRINT} <= setup.keys()
    assert None not in [setup[key] for key in (*BUDGET, *FINGERPRINT)]


def test_a_cell_whose_instrument_failed_is_not_to_be_pinned(
    all_kinds: dict[str, Pinning],
) -> None:
    evidence = all_kinds["transfer"].done.evidence
    failed = [
        {**check, "passed": False} if check["name"] == "self-patch" else check
        for check in evidence.checks
    ]
    assert why_not_pinned(plain(replace(evidence, checks=failed).__dict__)) == "self-patch"
    numbered = [{**check, "name": f"part 2: {check['name']}"} for check in failed]
    assert why_not_pinned(plain(replace(evidence, checks=numbered).__dict__)) == "self-patch"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_invalid_before_it_runs_or_for_its_numbers_may_be_pinned(
    all_kinds: dict[str, Pinning], name: str
) -> None:
    assert why_not_pinned(plain(all_kinds[name].done.evidence.__dict__)) is None
