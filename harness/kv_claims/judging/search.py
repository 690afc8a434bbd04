"""The fewest clusters at which something shows, where what shows at some number shows at more."""

from __future__ import annotations

from collections.abc import Callable


def fewest(shows: Callable[[int], bool], above: int, most: int) -> int | None:
    """The smallest number above one at which it shows; None where none up to `most` is found.

    `most` bounds the doubling: the number found may be up to it.
    """
    low, high = above, 2 * above
    while not shows(high):
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high
