"""Memory that batches use in turn: where it lies, what is in it, when it moves."""

from __future__ import annotations

import torch

from kv_claims.patch.memory import Memory

LIKE = [torch.zeros(5, 2, 9, 4), torch.zeros(5, 3, 9, 8)]


def test_it_lies_where_it_lay_and_is_zero() -> None:
    memory = Memory()
    first = memory.take(LIKE, 32, 16)
    memory.held = held = object()
    assert [tuple(tensor.shape) for tensor in first] == [(32, 2, 16, 4), (32, 3, 16, 8)]
    places = [tensor.data_ptr() for tensor in first]
    for tensor in first:
        tensor.fill_(torch.nan)
    for rows, width in ((32, 16), (16, 32), (1, 3)):
        again = memory.take(LIKE, rows, width)
        assert [tensor.data_ptr() for tensor in again] == places
        assert all(tensor.is_contiguous() and not tensor.any() for tensor in again)
        assert memory.held is held
    assert memory.bytes == 4 * 32 * 16 * (2 * 4 + 3 * 8)


def test_what_is_known_to_come_is_taken_at_once() -> None:
    memory = Memory()
    memory.take(LIKE, 32, 16, most=48)
    memory.held = held = object()
    memory.take(LIKE, 32, 48, most=48)
    assert memory.held is held
    memory.take(LIKE, 32, 64, most=48)
    assert memory.held is None


def test_what_knows_addresses_is_dropped_before_they_change() -> None:
    for others in (
        LIKE[:1],
        [*LIKE, LIKE[0]],
        [tensor.double() for tensor in LIKE],
        [tensor.expand(5, -1, 9, -1).repeat(1, 2, 1, 1) for tensor in LIKE],
    ):
        memory = Memory()
        memory.take(LIKE, 32, 16)
        memory.held = object()
        taken = memory.take(others, 32, 16)
        assert memory.held is None
        assert [tensor.dtype for tensor in taken] == [tensor.dtype for tensor in others]


def test_it_is_given_back() -> None:
    memory = Memory()
    memory.take(LIKE, 32, 16)
    memory.held = object()
    memory.release()
    assert (memory.bytes, memory.held) == (0, None)
