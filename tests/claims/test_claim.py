"""Regions, claims and the decorator that marks a test with one."""

from __future__ import annotations

import math
import re

import pytest

from kv_claims.claims.claim import ESTIMANDS, Claim, Estimand, Family, Part, Region, claim, claim_of
from kv_claims.errors import UsageError

INF = math.inf
NAN = math.nan
WORDS = {"says": "It transfers.", "cites": "A paper, p. 3"}
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


# --- what is claimed -----------------------------------------------------------------------

EIGHTY = Region(0.7, 0.9)
SAME = Region(-0.1, 0.1)
GEOMETRY = Part.transfer("pr@27/32", Region(low=0.9))
BEHAVIOR = Part.transfer("behavior", Region(high=0.12))


@pytest.mark.parametrize(
    ("region", "claims"),
    [
        pytest.param(EIGHTY, True, id="above"),
        pytest.param(Region(high=-0.2), True, id="below"),
        pytest.param(Region(low=0.0), True, id="from-0"),
        pytest.param(Region(high=0.0), True, id="to-0"),
        pytest.param(SAME, False, id="around-0"),
        pytest.param(Region(high=0.12), False, id="at-most"),
        pytest.param(Region(low=-0.1), False, id="no-worse"),
    ],
)
def test_a_region_claims_an_effect_where_0_is_not_within(region: Region, claims: bool) -> None:
    assert region.claims_effect is claims


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_a_simple_claim_has_one_part(estimand: Estimand) -> None:
    made = Claim("c", **WORDS, **{estimand: EIGHTY}, outcome="loglik")
    assert made.parts == (Part("loglik", estimand, EIGHTY),)
    assert getattr(Part, estimand)("loglik", EIGHTY) == made.parts[0]
    assert made.given == ()
    assert made.estimands == {estimand}
    assert Claim("c", **WORDS, **{estimand: EIGHTY}).parts[0].outcome == "behavior"


def test_a_conjunction_has_its_parts_and_what_is_given() -> None:
    rv = Part.gap("rv", Region(high=0.0))
    marked = claim("c", **WORDS, all_of=[GEOMETRY, BEHAVIOR], given=[rv])(lambda: None)
    found = claim_of(marked)
    assert found is not None
    assert found.parts == (GEOMETRY, BEHAVIOR)
    assert found.given == (rv,)
    assert found.estimands == {"transfer", "gap"}
    assert found.transfer is None
    assert hash(found) == hash(found)


def test_a_part_as_text() -> None:
    assert str(GEOMETRY) == "pr@27/32 transfer >= 0.9"
    assert str(Part.difference("behavior", SAME)) == "behavior difference [-0.1, 0.1]"
    assert str(Part.gap("rv", Region(high=0.0))) == "rv gap <= 0"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param({}, "nothing claimed, expected exactly one of", id="nothing"),
        pytest.param({"all_of": []}, "nothing claimed, expected exactly one of", id="empty"),
        pytest.param({"given": [GEOMETRY]}, "nothing claimed", id="only-given"),
        pytest.param(
            {"transfer": EIGHTY, "gap": EIGHTY}, "transfer and gap claimed, exp", id="two"
        ),
        pytest.param(
            {"difference": SAME, "all_of": [GEOMETRY]}, "difference and all_of claimed", id="both"
        ),
        pytest.param(
            {"all_of": [GEOMETRY, BEHAVIOR], "outcome": "rv"},
            "outcome='rv', expected none beside all_of",
            id="outcome-beside-parts",
        ),
        pytest.param({"all_of": GEOMETRY}, "all_of=Part.*expected a sequence", id="no-sequence"),
        pytest.param({"all_of": [EIGHTY]}, r"all_of: Region.*, expected a Part", id="no-part"),
        pytest.param(
            {"transfer": EIGHTY, "given": ["rv"]},
            "given: 'rv', expected a Part",
            id="no-part-given",
        ),
        pytest.param(
            {"all_of": [GEOMETRY, GEOMETRY]}, "all_of: pr@27/32 transfer stands twice", id="twice"
        ),
        pytest.param(
            {"all_of": [BEHAVIOR, Part.transfer("behavior", Region(low=0.0))]},
            "all_of: behavior transfer stands twice, expected one region",
            id="twice-with-other-regions",
        ),
        pytest.param(
            {"gap": EIGHTY, "given": [GEOMETRY] * 2}, "given: pr@27/32 tr.* twice", id="given-twice"
        ),
        pytest.param(
            {"all_of": [GEOMETRY, BEHAVIOR], "given": [BEHAVIOR]},
            "`behavior transfer <= 0.12` is both claimed and given",
            id="claimed-and-given",
        ),
        pytest.param(
            {"transfer": EIGHTY, "outcome": " "}, "outcome ' ', expected a name", id="no-outcome"
        ),
        pytest.param(
            {"transfer": EIGHTY, "outcome": "rv "}, "no space around it", id="outcome-with-space"
        ),
        pytest.param(
            {"difference": Region(high=-0.2)}, "put the arm that transfers more first", id="turned"
        ),
        pytest.param({"transfer": (0.7, 0.9)}, "expected a Region", id="no-region"),
        pytest.param(
            {"all_of": [GEOMETRY, Part.transfer("rv", Region(low=0.05))]},
            r"claim 'c': rv transfer >= 0.05: margin 0.1 for the region",
            id="margin-of-one-part",
        ),
        pytest.param(
            {"transfer": EIGHTY, "given": [Part.transfer("rv", Region(low=0.05))]},
            r"rv transfer >= 0.05: margin 0.1 for the region",
            id="margin-of-what-is-given",
        ),
        pytest.param(
            {"gap": EIGHTY, "margin": 0.2}, "margin 0.2: no part is about a patch", id="gap-margin"
        ),
        pytest.param(
            {"gap": EIGHTY, "about": "layer"}, "no part is about a patch", id="gap-about-layer"
        ),
    ],
)
def test_what_is_not_one_claim_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        claim("c", **WORDS, **asked)


def test_a_part_of_no_known_estimand_is_refused() -> None:
    with pytest.raises(UsageError, match="estimand 'ratio', expected one of"):
        Part("rv", "ratio", EIGHTY)


def test_a_premise_may_ask_less_of_what_is_claimed() -> None:
    less = Part.transfer("behavior", Region(low=0.2))
    assert Claim("c", **WORDS, transfer=EIGHTY, given=(less,)).given == (less,)


def test_a_gap_may_be_on_either_side_and_as_small_as_its_unit_asks() -> None:
    for region in (Region(high=-0.01), Region(low=0.01), SAME):
        assert Claim("c", **WORDS, gap=region, outcome="rv").parts[0].region == region


def test_one_gap_beside_a_patch_leaves_the_margin_a_meaning() -> None:
    made = Claim("c", **WORDS, gap=SAME, given=(GEOMETRY,), margin=0.2, about="layer")
    assert made.margin == 0.2


# --- of how many tests, and after how many pairs --------------------------------------------


def test_a_claim_may_name_its_family_and_its_looks() -> None:
    family = Family("headline", 12)
    found = claim_of(claim("c", **GIVEN, family=family, looks=[10, 40, 41])(lambda: None))
    assert found is not None
    assert (found.family, found.looks) == (Family("headline", 12), (10, 40, 41))
    assert hash(found) == hash(found)


def test_without_them_its_own_cells_are_the_family_and_it_is_judged_once() -> None:
    assert (Claim("c", **GIVEN).family, Claim("c", **GIVEN).looks) == (None, ())


@pytest.mark.parametrize("name", ["", " \n", None, 3], ids=repr)
def test_a_family_has_a_name(name: object) -> None:
    with pytest.raises(UsageError, match=f"Family: name {re.escape(repr(name))}, expected a name"):
        Family(name, 3)


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None, True, NAN], ids=repr)
def test_a_family_has_at_least_one_test(size: object) -> None:
    with pytest.raises(UsageError, match=f"Family 'f': size {size!r}, expected at least 1 test"):
        Family("f", size)


@pytest.mark.parametrize("family", ["f", ("f", 3), 3], ids=repr)
def test_what_is_no_family_is_refused(family: object) -> None:
    with pytest.raises(UsageError, match=r"claim 'c': family=.*, expected a Family\(name, size\)"):
        claim("c", **GIVEN, family=family)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([40], id="one"),
        pytest.param([9, 40], id="too-few-pairs"),
        pytest.param([0, 40], id="none"),
        pytest.param([80, 40], id="descending"),
        pytest.param([40, 40], id="twice"),
        pytest.param([20, 80, 40], id="last-descending"),
        pytest.param([40.0, 80.0], id="floats"),
        pytest.param([40, 80.5], id="half-a-pair"),
        pytest.param([40, None], id="none-of-them"),
        pytest.param("40", id="text"),
    ],
)
def test_looks_are_two_or_more_numbers_of_pairs_that_grow(looks: list[object]) -> None:
    with pytest.raises(UsageError, match=r"claim 'c': looks=\(.*\), expected two or more numbers"):
        claim("c", **GIVEN, looks=looks)


def test_looks_that_are_one_number_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"claim 'c': looks=40, expected a sequence of numbers"):
        claim("c", **GIVEN, looks=40)
