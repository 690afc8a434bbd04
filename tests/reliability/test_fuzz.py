"""A small part of `make fuzz`: the same mutants every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.fuzz import SHARES, Tried, failed, fuzz, kinds, table

MUTANTS, SEED = 120, 7


@pytest.mark.slow
def test_damaged_inputs_are_refused_in_a_line_or_answered(a_run: Path, tmp_path: Path) -> None:
    tried = list(fuzz(kinds(tmp_path, a_run), MUTANTS, SEED, tmp_path / "m"))
    assert {one.kind for one in tried} == set(SHARES)
    assert len(tried) >= MUTANTS - len(SHARES)
    assert not failed(tried), table(failed(tried), SEED)
    # Damage that everything shrugs off would be none.
    assert sum(one.word == "refused" for one in tried) > MUTANTS / 3


def test_the_table_counts_what_failed_and_says_what_was_done() -> None:
    tried = [
        Tried("pins", 0, "flip in mini.json", "refused", "no JSON", 0.1),
        Tried("pins", 1, "swap | at $.claims", "traceback", "file.py:3: KeyError: 'a'", 0.2),
        Tried("model", 2, "flip in config.json", "traceback", "load.py:1: TypeError", 0.1),
    ]
    assert [one.number for one in failed(tried)] == [1, 2]
    said = table(tried, 7)
    assert "| pins | 2 | 1 | 0 | 0 | 1 | 0 | 0.2 s |" in said
    assert r"| pins | 1 | swap \| at $.claims | traceback: file.py:3: KeyError: 'a' |" in said
