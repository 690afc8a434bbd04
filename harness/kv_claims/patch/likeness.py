"""What tokens alone say of the numbers that are pasted: which are equal, and which cannot be.

The numbers at a position are computed from the tokens up to there. Where those of the donor and of
the row that it is pasted into are the same, at the same place, what is pasted stands there already:
the patch changes nothing and its effect is an exact zero, which is a fact about the prompts and no
failure of the instrument. Where the token itself is another, every tensor of every layer differs
there. Between the two (the same token behind others) either may be, as in the first layer's values.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv_claims.claims.positions import Window

Tokens = Sequence[int]


def is_known_equal(donor: Tokens, row: Tokens, window: Window) -> bool:
    """Whether all that is pasted stands there already: equal tokens, up to each pasted position.

    donor, row: tokens of the prompt that is pasted and of the one that it is pasted into.
    """
    stop = window.base_slots.stop
    return window.shift == 0 and tuple(donor[:stop]) == tuple(row[:stop])


def holds_other_token(donor: Tokens, row: Tokens, window: Window) -> bool:
    """Whether some position gets the numbers of another token than its own.

    Positions behind the row's end, where something is appended, hold no token.
    """
    return any(
        there >= len(row) or donor[here] != row[there]
        for here, there in zip(window.source_slots, window.base_slots, strict=True)
    )


def pastes_the_same(donor: Tokens, window: Window, other: Tokens, others: Window) -> bool:
    """Whether two donors, each at its own window, paste the same into the same positions."""
    stop = window.source_slots.stop
    return window == others and tuple(donor[:stop]) == tuple(other[:stop])
