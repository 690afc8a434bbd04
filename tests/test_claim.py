"""Regions, claims and the decorator that marks a test with one."""

from __future__ import annotations

import math

import pytest

from harness.claim import Claim, Region, claim, claim_of
from harness.errors import UsageError

INF = math.inf
NAN = math.nan
GIVEN = {"says": "It transfers.", "cites": "A paper, p. 3", "transfer": Region(0.7, 0.9)}


@pytest.mark.parametrize(
    ("region", "inside", "outside"),
    [
        pytest.param(Region(0.7, 0.9), [0.7, 0.8, 0.9], [0.69, 0.91, -0.8, NAN], id="two-ends"),
        pytest.param(Region(high=0.12), [0.12, 0.0, -3.0], [0.121, 1.0, NAN], id="at-most"),
        pytest.param(Region(low=0.5), [0.5, 1.0, 40.0], [0.49, -1.0, NAN], id="at-least"),
        pytest.param(Region(-0.1, 0.1), [0.0, -0.1], [0.2, -0.2], id="around-0"),
    ],
)
def test_a_region_holds_its_ends_and_what_is_between(
    region: Region, inside: list[float], outside: list[float]
) -> None:
    assert all(transfer in region for transfer in inside)
    assert not any(transfer in region for transfer in outside)


@pytest.mark.parametrize(
    ("region", "edges"),
    [
        pytest.param(Region(0.7, 0.9), ((0.7, "greater"), (0.9, "less")), id="two-ends"),
        pytest.param(Region(high=0.12), ((0.12, "less"),), id="at-most"),
        pytest.param(Region(low=0.5), ((0.5, "greater"),), id="at-least"),
    ],
)
def test_edges_are_the_finite_ends_with_the_side_that_is_true(
    region: Region, edges: tuple[tuple[float, str], ...]
) -> None:
    assert region.edges == edges


@pytest.mark.parametrize(
    ("region", "text"),
    [
        pytest.param(Region(0.7, 0.9), "[0.7, 0.9]", id="two-ends"),
        pytest.param(Region(high=0.12), "<= 0.12", id="at-most"),
        pytest.param(Region(low=0.5), ">= 0.5", id="at-least"),
    ],
)
def test_a_region_as_text(region: Region, text: str) -> None:
    assert str(region) == text


@pytest.mark.parametrize(
    ("low", "high"),
    [
        pytest.param(0.9, 0.7, id="turned"),
        pytest.param(0.7, 0.7, id="empty"),
        pytest.param(NAN, 0.7, id="nan-low"),
        pytest.param(0.7, NAN, id="nan-high"),
        pytest.param(INF, INF, id="infinite-low"),
        pytest.param(-INF, -INF, id="infinite-high"),
    ],
)
def test_a_region_without_inside_is_refused(low: float, high: float) -> None:
    with pytest.raises(UsageError, match=rf"Region\({low}, {high}\): expected low < high"):
        Region(low, high)


@pytest.mark.parametrize("ends", [{}, {"low": -INF, "high": INF}], ids=["none", "infinite"])
def test_a_region_that_holds_everything_claims_nothing(ends: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one finite end"):
        Region(**ends)


@pytest.mark.parametrize("field", ["id", "says", "cites"])
@pytest.mark.parametrize("value", ["", "  \n"], ids=["empty", "blank"])
def test_a_claim_needs_its_id_sentence_and_citation(field: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"`{field}` is empty"):
        Claim(**{"id": "c", **GIVEN, field: value})


@pytest.mark.parametrize("margin", [0, 1, -0.1, 2, NAN], ids=str)
def test_a_margin_lies_between_0_and_1(margin: float) -> None:
    with pytest.raises(UsageError, match=f"claim 'c': margin {margin} for the region"):
        Claim("c", **GIVEN, margin=margin)


@pytest.mark.parametrize("about", ["layers", "", "position"], ids=repr)
def test_a_claim_is_about_the_layer_or_nothing(about: str) -> None:
    with pytest.raises(UsageError, match=f"claim 'c': about={about!r}, expected 'layer' or None"):
        Claim("c", **GIVEN, about=about)


def test_the_decorator_marks_the_function_and_leaves_it_as_it_is() -> None:
    def test_something(study: object) -> object:
        return study

    marked = claim("c", **GIVEN, about="layer", margin=0.2)(test_something)
    assert marked is test_something
    assert marked(3) == 3
    assert claim_of(marked) == Claim("c", **GIVEN, about="layer", margin=0.2)


def test_what_is_left_out_has_its_default() -> None:
    marked = claim("c", **GIVEN)(lambda: None)
    found = claim_of(marked)
    assert found is not None
    assert (found.about, found.margin) == (None, 0.10)


def test_a_bad_claim_is_refused_where_it_stands_and_not_when_it_runs() -> None:
    with pytest.raises(UsageError, match="`says` is empty"):
        claim("c", **{**GIVEN, "says": ""})


def test_two_claims_do_not_share_a_mark() -> None:
    one, two = claim("one", **GIVEN)(lambda: None), claim("two", **GIVEN)(lambda: None)
    found = [claim_of(one), claim_of(two)]
    assert [asserted.id for asserted in found if asserted] == ["one", "two"]


@pytest.mark.parametrize("thing", [lambda: None, 3, None], ids=["function", "number", "none"])
def test_what_was_not_marked_has_no_claim(thing: object) -> None:
    assert claim_of(thing) is None


def test_an_attribute_of_the_same_name_that_is_no_claim_is_not_taken_for_one() -> None:
    def test_something() -> None: ...

    test_something.__kv_claim__ = "a claim"
    assert claim_of(test_something) is None
