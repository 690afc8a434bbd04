"""What tokens say of what is pasted, and how bits are compared."""

from __future__ import annotations

import pytest
import torch

from kv_claims.claims.positions import Window, resolve_window
from kv_claims.models.rotary import rotation_of
from kv_claims.patch.bits import other_bits
from kv_claims.patch.likeness import holds_other_token, is_known_equal, pastes_the_same
from kv_claims.patch.overwrite import Place, overwrite
from tests.models.architectures import tiny

ROW = [5, 6, 7, 8, 9, 10, 11]
DONOR = [5, 6, 7, 80, 9, 10, 11]
LONGER = [4, *DONOR]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ("donor", "positions", "equal", "other"),
    [
        (DONOR, "first(3)", True, False),
        (DONOR, "first(4)", False, True),
        # The same tokens behind another: they may be equal, in the first layer they are.
        (DONOR, "last(2)", False, False),
        (DONOR, "all", False, True),
        (ROW, "all", True, False),
        # The same tokens elsewhere.
        (LONGER, "last(2)", False, False),
        (LONGER, "first(3)", False, True),
    ],
)
def test_tokens_tell_what_is_equal_and_what_is_other(
    donor: list[int], positions: str, equal: bool, other: bool
) -> None:
    window = resolve_window(positions, len(donor), len(ROW))
    assert is_known_equal(donor, ROW, window) is equal
    assert holds_other_token(donor, ROW, window) is other


def test_what_is_appended_stands_where_no_token_is() -> None:
    assert holds_other_token(ROW, ROW, Window(range(4, 6), range(7, 9)))


def test_two_donors_paste_the_same_where_their_tokens_are_the_same() -> None:
    window = Window(range(3), range(3))
    assert pastes_the_same(DONOR, window, ROW, window)
    wider = Window(range(4), range(4))
    assert not pastes_the_same(DONOR, wider, ROW, wider)
    assert not pastes_the_same(LONGER, Window(range(1, 4), range(3)), ROW, window)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_tell_what_numbers_do_not(dtype: torch.dtype) -> None:
    one = torch.tensor([0.0, float("nan"), 1.0, float("inf"), 1.0], dtype=dtype)
    other = torch.tensor([-0.0, float("nan"), 1.0, float("inf"), 2.0], dtype=dtype)
    assert other_bits(one, other).tolist() == [True, False, False, False, True]
    step = torch.nextafter(one[2:3].float(), torch.tensor([2.0])).to(torch.float32)
    assert other_bits(one[2:3].float(), step).all()


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_copied_over_itself_keeps_its_bits(dtype: torch.dtype, alpha: float) -> None:
    """Negative zeros, infinities and what is no number too."""
    odd = torch.tensor([-0.0, 0.0, float("nan"), float("inf"), -1.5, 3.0, 1e-7, -0.0], dtype=dtype)
    target = odd.expand(2, 2, 3, 8).clone()
    place = Place(torch.tensor([0, 1]), torch.tensor([1, 2]))
    rotation = rotation_of(tiny("llama", dtype).network)
    kept = target[place.row, :, place.column]
    turned = rotation(0, kept, torch.zeros(2, dtype=torch.long))
    assert not other_bits(turned, kept).any()
    written = overwrite(target, place, turned, None, alpha)
    assert [of.tolist() for of in written] == [[16, 16], [0, 0], [0, 0]]


def test_a_change_that_is_smaller_than_rounding_is_written_and_changed() -> None:
    target = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16)
    place = Place(torch.tensor([0]), torch.tensor([1]))
    new = torch.full((1, 1, 4), 1.0078125, dtype=torch.bfloat16)  # the next number
    elements, changed, beyond = overwrite(target, place, new, None, 1.0, rounding=5e-2)
    assert (int(elements), int(changed), int(beyond)) == (4, 4, 0)
    much = torch.full((1, 1, 4), 2.0, dtype=torch.bfloat16)
    _, changed, beyond = overwrite(target, place, much, None, 1.0, rounding=5e-2)
    assert (int(changed), int(beyond)) == (4, 4)


def test_numbers_that_did_not_arrive_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back from the target: a write into something else leaves it as it was."""
    target = torch.zeros(1, 1, 2, 4)
    new = torch.ones(1, 1, 4)
    monkeypatch.setattr(torch.Tensor, "__setitem__", lambda *_: None)
    written = overwrite(target, Place(torch.tensor([0]), torch.tensor([1])), new, None, 1.0)
    assert [int(of) for of in written] == [0, 0, 0]


def test_what_is_no_number_is_beyond_any_rounding() -> None:
    target = torch.zeros(1, 1, 1, 2)
    new = torch.tensor([[[float("nan"), 0.0]]])
    place = Place(torch.tensor([0]), torch.tensor([0]))
    elements, changed, beyond = overwrite(target, place, new, None, 1.0, rounding=1e-5)
    assert (int(elements), int(changed), int(beyond)) == (2, 1, 1)
