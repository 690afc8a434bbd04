"""Texts that hold their prompts are found by what they begin with, and other texts are not."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.judging.openings import WORDS, prompts_in_texts

PAIRS = 20


def texts(*, prompt: int, alike: int, seeds: int = 1, arms: tuple[str, ...] = ("base", "patched")):
    """Rows of texts: a prompt of so many words, as many that are alike by chance, then others."""
    rows = []
    for pair in range(PAIRS):
        for arm in arms:
            side = "source" if arm == "source" else "base"
            for seed in range(seeds):
                words = [f"{side}{pair}w{k}" for k in range(prompt)]
                words += [f"p{pair}same{k}" for k in range(alike)]
                words += [f"{arm}{pair}s{seed}k{k}" for k in range(10)]
                rows.append({"pair": f"p{pair}", "arm": arm, "seed": seed, "text": " ".join(words)})
    return pd.DataFrame(rows)


@given(prompt=st.integers(0, 30))
def test_two_seeds_that_begin_alike_begin_with_their_prompt(prompt: int) -> None:
    found = prompts_in_texts(texts(prompt=prompt, alike=0, seeds=2))
    assert (found is not None) == (prompt >= WORDS)
    if found is not None:
        assert (found.name, found.passed) == ("prompt-scored", False)
        assert "in 20 of 20 pairs all texts of base" in found.detail


def test_source_and_base_that_begin_alike_share_a_prompt() -> None:
    ends = ("source", "base")
    assert prompts_in_texts(texts(prompt=0, alike=12, arms=ends)) is not None
    assert prompts_in_texts(texts(prompt=12, alike=0, arms=ends)) is None


def test_a_weak_patch_leaves_its_text_as_it_was() -> None:
    """Base and patched arm on one luck may say the same for long: nothing is known of prompts."""
    assert prompts_in_texts(texts(prompt=0, alike=40)) is None


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_what_most_pairs_begin_with_is_a_habit(share: float) -> None:
    rows = texts(prompt=0, alike=0, seeds=2)
    sorry = rows["pair"].isin([f"p{k}" for k in range(int(share * PAIRS))])
    rows.loc[sorry, "text"] = "I am sorry but I can not help with that " + rows["text"]
    assert prompts_in_texts(rows) is None
