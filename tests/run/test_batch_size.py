"""How many rows are decoded together: as asked, by memory, or as the first batches tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kv_claims.run.arms import BASE, Arm, self_patch
from kv_claims.run.batch_size import FIRST, BatchSize
from kv_claims.run.batches import first_batch
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import tiny
from tests.run.test_runner import PATCH, number_task


def sizes(speed: Callable[[int], float], most: int = 512, total: int = 10_000) -> list[int]:
    """Rows of each batch where so many rows a second are decoded at each size."""
    size, found = BatchSize(None, most, total), []
    while total > 0:
        rows = min(size.rows, total)
        found.append(rows)
        size.ran(rows, rows / speed(rows))
        total -= rows
    return found


def test_batches_grow_while_that_is_faster() -> None:
    assert sizes(lambda rows: rows**0.5)[:6] == [64, 128, 256, 512, 512, 512]


def test_and_stop_at_the_size_behind_which_it_is_not() -> None:
    found = sizes(lambda rows: min(rows, 128))
    assert found[:6] == [64, 128, 256, 128, 128, 128]
    assert sum(found) == 10_000


def test_memory_limits_what_is_tried() -> None:
    assert max(sizes(lambda rows: rows, most=200)) == 200
    assert sizes(lambda rows: rows, most=20)[0] == 20


@pytest.mark.parametrize(
    ("asked", "total", "reproducible", "rows"),
    [(7, 10_000, False, 7), (None, 600, False, 512), (None, 10_000, True, 512)],
    ids=["asked", "little-work", "half-precision"],
)
def test_where_nothing_is_measured(
    asked: int | None, total: int, reproducible: bool, rows: int
) -> None:
    size = BatchSize(asked, 512, total, reproducible=reproducible)
    for _ in range(4):
        assert size.rows == rows
        size.ran(rows, 1.0)


def test_half_a_batch_tells_nothing() -> None:
    size = BatchSize(None, 512, 10_000)
    size.ran(FIRST // 2, 1.0)
    assert size.rows == FIRST


def test_after_memory_ran_out_batches_do_not_grow_again() -> None:
    size = BatchSize(None, 512, 10_000)
    size.halve()
    size.ran(FIRST // 2, 1e-6)
    assert size.rows == FIRST // 2


def test_rows_of_a_batch_are_alike_in_length() -> None:
    task = number_task(((9, 14), (20, 8), (11, 11), (7, 25)))
    runner = Runner(tiny("llama"), task, Sampling(4), Ledger())
    arms: list[Arm] = [BASE, self_patch(PATCH)]
    runner.prefill([(pair, arm) for pair in task.pairs for arm in arms])
    missing = [((pair, arm, 0), str(i)) for i, pair in enumerate(task.pairs) for arm in arms]
    works = runner._plan(missing, set())
    lengths, left = [], works
    while left:
        batch, left = first_batch(left, 9)
        # A self-patch brings the base that it is compared with.
        assert sum(1 + (work.arm != BASE) for work in batch) <= 9
        lengths += [work.plan.tokens for work in batch]
    assert lengths == sorted(lengths)
    assert len(lengths) == len(works)
    assert len(first_batch(works, 1)[0]) == 1


def test_tokens_do_not_depend_on_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    task = number_task()
    whole = Runner(tiny("llama"), task, Sampling(6), Ledger())
    one = whole.run([BASE], task.pairs, range(4))
    monkeypatch.setattr("kv_claims.run.batch_size.FIRST", 2)
    monkeypatch.setattr("kv_claims.run.batches.MOST_ROWS", 6)
    grown = Runner(tiny("llama"), task, Sampling(6), Ledger())
    other = grown.run([BASE], task.pairs, range(4))
    assert sum(grown.batches.values()) > sum(whole.batches.values()) == 1
    assert [t.tokens for t in one] == [t.tokens for t in other]
