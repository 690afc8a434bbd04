"""The fewest at which something shows: what a walk from below finds, or None."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_claims.judging.search import fewest


@given(above=st.integers(1, 3), first=st.integers(2, 300), most=st.integers(4, 400))
def test_it_is_the_first_number_that_shows(above: int, first: int, most: int) -> None:
    found = fewest(lambda n: n >= first, above, most)
    if found is None:
        assert first > most // 2
    else:
        assert found == max(first, above + 1)
