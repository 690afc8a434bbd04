"""The split of a task's pairs: the same for everybody, and no prompt in both parts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.errors import UsageError
from kv_claims.tasks.scorers import Unscored
from kv_claims.tasks.split import PARTS, part_of, split
from kv_claims.tasks.task import Pairing, Prompt, Task


def task(n: int, pairing: Pairing) -> Task:
    sides = (
        tuple(Prompt(f"{side}-{k}", side, f"{side} number {k}") for k in range(n))
        for side in ("source", "base")
    )
    return Task("t", "a", *sides, pairing, Unscored(), frozenset())


def pairs_of(some: Task) -> set[str]:
    return {pair.id for pair in some.pairs}


@given(
    n=st.integers(20, 60), seed=st.integers(), pairing=st.sampled_from(["one-to-one", "crossed"])
)
def test_no_prompt_is_in_both_parts_whatever_the_order_and_number(
    n: int, seed: int, pairing: Pairing
) -> None:
    whole = task(n, pairing)
    parts = {part: split(whole, part) for part in PARTS}
    prompts = [{one.sha for one in (*of.sources, *of.bases)} for of in parts.values()]
    assert not prompts[0] & prompts[1]
    both = set.union(*map(pairs_of, parts.values()))
    assert both <= pairs_of(whole)
    assert pairing == "crossed" or both == pairs_of(whole)
    order = random.Random(seed).sample(range(n), n)[: n - 3]
    fewer = replace(
        whole,
        sources=tuple(whole.sources[k] for k in order),
        bases=tuple(whole.bases[k] for k in order),
    )
    for part, of in parts.items():
        assert pairs_of(split(fewer, part)) == pairs_of(of) & pairs_of(fewer)


def test_the_parts_are_halves_and_never_move() -> None:
    whole = task(1000, "one-to-one")
    assert 440 < len(split(whole, "discovery").pairs) < 560
    # Fixed for good: another answer would hand out judged pairs to look for something in.
    assert [part_of(text) for text in ("a", "b", "c", "d")] == [
        "confirmation",
        "confirmation",
        "confirmation",
        "discovery",
    ]


def test_a_part_without_pairs_is_refused() -> None:
    one = task(1, "one-to-one")
    (other,) = [part for part in PARTS if part != part_of(one.pairs[0].id)]
    with pytest.raises(UsageError, match=f"no pair is in its {other} part"):
        split(one, other)
