"""The bank's figures: docs/prompts.md says them, and a second scorer tells the sides too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Task
from kv_claims.tasks.words import words_of
from tests.conftest import ROOT
from tests.tasks.bank import (
    BANK,
    FIRST,
    SECOND,
    auc,
    auc_interval,
    classifier_table,
    kinds_table,
    lexicon_table,
)
from tests.tasks.logistic import fit, judged_on_the_other_half


@pytest.fixture(scope="module")
def bank() -> Task:
    return load_task(BANK)


@pytest.mark.parametrize("table", [kinds_table, lexicon_table, classifier_table])
def test_the_page_says_what_is_counted(table: Callable[[Task], list[str]], bank: Task) -> None:
    page = (ROOT / "docs/prompts.md").read_text(encoding="utf-8").splitlines()
    assert set(table(bank)) <= set(page)


@pytest.mark.parametrize("half", [0, 1])
def test_a_classifier_without_the_lexicon_tells_the_sides(half: int, bank: Task) -> None:
    assert auc(*judged(bank, half, lambda word: word not in bank.lexicon)) >= 0.9


@pytest.mark.parametrize("half", [0, 1])
def test_pronouns_alone_hardly_tell_the_sides(half: int, bank: Task) -> None:
    assert auc(*judged(bank, half, lambda word: word in FIRST | SECOND)) <= 0.7


def test_a_classifier_that_sees_nothing_learns_the_share() -> None:
    weights = fit(np.zeros((4, 2)), np.array([1.0, 1.0, 1.0, 0.0]))
    assert weights == pytest.approx([0, 0, np.log(3)], abs=1e-3)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    assert auc([2, 3], [1, 2]) == (1 + 0.5 + 1 + 1) / 4
    low, high = auc_interval([2, 3], [1, 2])
    assert low < 0.875 <= high


def judged(
    bank: Task, half: int, kept: Callable[[str], bool]
) -> tuple[np.ndarray[tuple[int, ...]], np.ndarray[tuple[int, ...]]]:
    sources, bases = (
        [list(filter(kept, words_of(p.text))) for p in side] for side in (bank.sources, bank.bases)
    )
    return judged_on_the_other_half(sources, bases, half)
