"""Positions as text, and which positions of a source and a base they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.claims.patch import Patch
from kv_claims.claims.positions import Extent, Span, Window, resolve_window
from kv_claims.errors import UsageError


@pytest.mark.parametrize(
    ("text", "source_tokens", "base_tokens", "source", "base"),
    [
        # A prompt of 40 tokens caches 39: the last is fed, and is no slot.
        pytest.param("last(16)", 40, 40, range(23, 39), range(23, 39), id="last"),
        pytest.param("last(16)", 50, 30, range(33, 49), range(13, 29), id="last-longer-source"),
        pytest.param("last(16)", 30, 50, range(13, 29), range(33, 49), id="last-longer-base"),
        pytest.param("first(16)", 50, 30, range(16), range(16), id="first"),
        pytest.param("last(29)", 50, 30, range(20, 49), range(29), id="last-fills-the-base"),
        pytest.param("first(29)", 30, 50, range(29), range(29), id="first-fills-the-source"),
        pytest.param("first(25%)", 50, 41, range(10), range(10), id="percent-of-the-shorter"),
        pytest.param("first(25%)", 50, 42, range(11), range(11), id="percent-rounds-up"),
        # ceil(0.07 * 100) is 8 in floating point, as 0.07 * 100 is 7.000...01.
        pytest.param("first(7%)", 101, 101, range(7), range(7), id="percent-is-exact"),
        pytest.param("first(1%)", 9, 9, range(1), range(1), id="percent-at-least-one"),
        pytest.param("first(100%)", 9, 20, range(8), range(8), id="percent-all"),
        pytest.param("all", 50, 30, range(20, 49), range(29), id="all-longer-source"),
        pytest.param("all", 30, 50, range(29), range(20, 49), id="all-longer-base"),
        pytest.param("last(1)", 2, 2, range(1), range(1), id="shortest"),
        pytest.param(" last( 2 ) ", 9, 9, range(6, 8), range(6, 8), id="spaces"),
    ],
)
def test_positions_resolve(
    text: str, source_tokens: int, base_tokens: int, source: range, base: range
) -> None:
    assert resolve_window(text, source_tokens, base_tokens) == Window(source, base)


@pytest.mark.parametrize(
    ("source_tokens", "base_tokens", "shift"),
    [(40, 40, 0), (50, 30, -20), (30, 50, 20)],
    ids=["equal", "longer-source", "longer-base"],
)
def test_shift_is_how_far_a_key_moves(source_tokens: int, base_tokens: int, shift: int) -> None:
    assert resolve_window("last(8)", source_tokens, base_tokens).shift == shift
    assert resolve_window("first(8)", source_tokens, base_tokens).shift == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("16", id="bare-number"),
        pytest.param("last", id="no-width"),
        pytest.param("last()", id="empty-width"),
        pytest.param("last(-1)", id="negative"),
        pytest.param("last(1.5)", id="decimal"),
        pytest.param("last(25%)", id="last-percent"),
        pytest.param("middle(3)", id="unknown-word"),
        pytest.param("Last(3)", id="capital"),
        pytest.param("first(3)+last(3)", id="two"),
        pytest.param("all(3)", id="all-with-width"),
    ],
)
def test_positions_that_cannot_be_read(text: str) -> None:
    for read in (lambda: Patch("kv", "all", text), lambda: resolve_window(text, 40, 40)):
        with pytest.raises(UsageError, match=r"positions '.*': cannot be read; expected 'last\(W"):
            read()


@pytest.mark.parametrize("text", ["last(0)", "first(0)", "first(0%)", "first(101%)"])
def test_positions_of_no_width_or_more_than_all(text: str) -> None:
    with pytest.raises(UsageError, match="expected at least 1 position and at most 100%"):
        Patch("kv", "all", text)


@pytest.mark.parametrize(
    ("text", "source_tokens", "base_tokens", "width"),
    [
        pytest.param("last(30)", 50, 30, 30, id="last-base-too-short"),
        pytest.param("last(30)", 30, 50, 30, id="last-source-too-short"),
        pytest.param("first(30)", 50, 30, 30, id="first-base-too-short"),
        pytest.param("last(1)", 1, 50, 1, id="source-of-one-token"),
        pytest.param("all", 50, 1, 0, id="base-of-one-token"),
        pytest.param("first(25%)", 1, 1, 0, id="nothing-cached"),
    ],
)
def test_a_window_that_does_not_fit_is_an_error_and_never_shortened(
    text: str, source_tokens: int, base_tokens: int, width: int
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_window(text, source_tokens, base_tokens, where="pair 'ab12'")
    message = str(caught.value)
    assert f"positions {text!r} need {width} cached positions" in message
    assert "in pair 'ab12'" in message
    assert f"the source caches {source_tokens - 1} (of {source_tokens} tokens)" in message
    assert f"the base {base_tokens - 1} (of {base_tokens})" in message


@pytest.mark.parametrize(
    ("text", "source_tokens", "base_tokens", "source", "base"),
    [
        # All T tokens count: the last one is written as well.
        pytest.param("last(16)", 40, 40, range(24, 40), range(24, 40), id="last"),
        pytest.param("last(30)", 50, 30, range(20, 50), range(30), id="last-fills-the-base"),
        pytest.param("last(1)", 50, 30, range(49, 50), range(29, 30), id="last-token"),
        pytest.param("first(30)", 50, 30, range(30), range(30), id="first-fills-the-base"),
        pytest.param("first(25%)", 50, 41, range(11), range(11), id="percent-of-the-shorter"),
        pytest.param("first(100%)", 9, 20, range(9), range(9), id="percent-all"),
        pytest.param("all", 30, 50, range(30), range(20, 50), id="all-longer-base"),
    ],
)
def test_positions_of_a_prompt_resolve(
    text: str, source_tokens: int, base_tokens: int, source: range, base: range
) -> None:
    found = resolve_window(text, source_tokens, base_tokens, span="prompt")
    assert found == Window(source, base)


def test_a_window_of_a_prompt_that_does_not_fit_says_what_the_prompts_have() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_window("last(31)", 50, 30, span="prompt", where="pair 'ab12'")
    message = str(caught.value)
    assert "need 31 positions, but in pair 'ab12'" in message
    assert "the source has 50 (of 50 tokens) and the base 30 (of 30)" in message


# --- by the token ---------------------------------------------------------------------------


@given(
    source=st.integers(2, 60),
    base=st.integers(2, 60),
    start=st.integers(-60, 60),
    width=st.integers(1, 5),
    span=st.sampled_from(["cache", "prompt"]),
)
def test_a_place_names_the_same_token_as_pythons_slices_or_is_refused(
    source: int, base: int, start: int, width: int, span: Span
) -> None:
    """What it names in a prompt are the tokens that a slice of the prompt has, all of them."""
    stop = start + width
    text = f"at({start})" if width == 1 else f"at({start}:{stop})"

    def named(tokens: int) -> list[int]:
        held = tokens - (span == "cache")
        found = [k % tokens for k in range(start, stop) if -tokens <= k < tokens]
        return found if len(found) == width and found == sorted(found) and found[-1] < held else []

    if (start < 0) != (stop < 0) and width > 1:
        with pytest.raises(UsageError, match="one end counts from the start"):
            resolve_window(text, source, base, span=span)
    elif named(source) and named(base):
        found = resolve_window(text, source, base, span=span)
        assert [*found.source_slots] == named(source)
        assert [*found.base_slots] == named(base)
    else:
        with pytest.raises(UsageError, match="expected positions that are there"):
            resolve_window(text, source, base, span=span)


def test_the_last_token_of_a_prompt_is_not_in_its_cache() -> None:
    assert resolve_window("at(-1)", 9, 7, span="prompt") == Window(range(8, 9), range(6, 7))
    with pytest.raises(UsageError, match=r"source has 9 tokens, of which all but the last are"):
        resolve_window("at(-1)", 9, 7)


# --- by a span ------------------------------------------------------------------------------

SOURCE = Extent(20, (("subject", range(4, 7)), ("name", range(9, 10))))
BASE = Extent(15, (("subject", range(2, 5)), ("name", range(11, 13))))


@pytest.mark.parametrize(
    ("text", "source", "base"),
    [
        ("all(subject)", range(4, 7), range(2, 5)),
        ("first(subject)", range(4, 5), range(2, 3)),
        ("last(subject)", range(6, 7), range(4, 5)),
        ("last(2, subject)", range(5, 7), range(3, 5)),
        ("first(2,subject)", range(4, 6), range(2, 4)),
        ("last(name)", range(9, 10), range(12, 13)),
    ],
)
def test_a_span_is_where_each_prompt_has_it(text: str, source: range, base: range) -> None:
    assert resolve_window(text, SOURCE, BASE) == Window(source, base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all(name)", "the span has 1 tokens in the source and 2 in the base.*'last\\(W, name\\)'"),
        ("last(2, name)", "need 2 tokens of the span, but in .* the source has 1"),
        ("all(verb)", "marks no span 'verb' \\(it marks 'subject', 'name'\\)"),
    ],
)
def test_spans_that_do_not_go_together_are_refused_and_never_cut(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_window(text, SOURCE, BASE)


@pytest.mark.parametrize(
    "text", ["at()", "at(3:3)", "at(-2:-5)", "all(2, subject)", "last(0, subject)", "at(1:-1)"]
)
def test_places_and_spans_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="positions "):
        Patch("kv", "all", text)
