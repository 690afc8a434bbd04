"""What is wanted of a rate, and when it is shown not to be so, by Wilson's own formula."""

from __future__ import annotations

from math import sqrt

import pytest
from scipy import stats

from kv_claims.calibration.rows import COVERAGE, LEVEL, Row, Wanted, groups, table, wilson

pytestmark = pytest.mark.filterwarnings("error")

N = 10_000


def by_formula(count: int, studies: int) -> tuple[float, float]:
    """Wilson's interval, JASA 22 (1927) 209."""
    z, rate = stats.norm.ppf((1 + LEVEL) / 2), count / studies
    middle = (rate + z**2 / (2 * studies)) / (1 + z**2 / studies)
    half = z / (1 + z**2 / studies) * sqrt(rate * (1 - rate) / studies + z**2 / (4 * studies**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("count", "studies"), [(0, 50), (50, 50), (1, 3), (500, N), (9_500, N)])
def test_limits_are_wilsons(count: int, studies: int) -> None:
    assert wilson(count, studies) == pytest.approx(by_formula(count, studies), abs=1e-9)


def last_allowed(wanted: Wanted, studies: int, upwards: bool) -> int:
    """The most extreme count that is not shown to be wrong, by the formula."""
    low, high = {"within": COVERAGE, "at most": (0, wanted.value), "at least": (wanted.value, 1)}[
        wanted.kind
    ]
    counts = range(studies + 1)
    if upwards:
        return max(count for count in counts if by_formula(count, studies)[0] <= high)
    return min(count for count in counts if by_formula(count, studies)[1] >= low)


@pytest.mark.parametrize("studies", [400, 2000])
@pytest.mark.parametrize(
    ("wanted", "upwards"),
    [
        pytest.param(Wanted("r", "within"), True, id="covers-too-often"),
        pytest.param(Wanted("r", "within"), False, id="covers-too-seldom"),
        pytest.param(Wanted("r", "at most", 0.05), True, id="above-the-most"),
        pytest.param(Wanted("r", "at least", 0.95), False, id="below-the-least"),
    ],
)
def test_a_rate_falls_short_just_beyond_its_limit(
    wanted: Wanted, upwards: bool, studies: int
) -> None:
    limit = last_allowed(wanted, studies, upwards)
    beyond = limit + 1 if upwards else limit - 1
    if 0 <= beyond <= studies:
        assert wanted.falls_short(beyond, studies)
    assert not wanted.falls_short(limit, studies)


def test_the_other_side_does_not_count() -> None:
    """Erring less than is allowed is no fault."""
    assert not Wanted("r", "at most", 0.05).falls_short(0, N)
    assert not Wanted("r", "at least", 0.95).falls_short(N, N)
    assert Wanted("r", "within").falls_short(N, N)


def test_a_rate_that_must_be_0_falls_short_at_once() -> None:
    assert not Wanted("r", "at most", 0.0).falls_short(0, 2000)
    assert Wanted("r", "at most", 0.0).falls_short(1, 2000)


def test_few_studies_show_little() -> None:
    """The same rate of 7% is shown to be above 5% by many studies only."""
    assert not Wanted("r", "at most", 0.05).falls_short(14, 200)
    assert Wanted("r", "at most", 0.05).falls_short(700, N)


def row(cell: str = "a cell", group: str = "a group", **counts: int) -> Row:
    wanted = (Wanted("covered", "within"), Wanted("supported", "at most", 0.05))
    facts: dict[str, str | int | float] = {"pairs": 20, "truth": 0.5}
    return Row(group, cell, N, facts, counts, wanted)


def test_shortfalls_name_the_cell_the_rate_and_what_is_wanted() -> None:
    assert row(covered=9500, supported=500).shortfalls == []
    (one,) = row(covered=9500, supported=700).shortfalls
    assert "a group" in one
    assert "a cell" in one
    assert one.endswith(": 7.00%, wanted supported at most 5.00%")
    first, second = row(covered=9000, supported=700).shortfalls
    assert first.endswith(": 90.00%, wanted covered within [94%, 96%]")
    assert second.endswith("supported at most 5.00%")


def test_a_rate_is_a_share_of_all_studies() -> None:
    assert row(covered=9500, supported=1).rate("supported") == 1e-4


def test_a_table_has_a_line_a_row() -> None:
    rows = [row("a", covered=9500, supported=500), row("b", covered=9000, supported=700)]
    found = table(rows)
    assert found["cell"].tolist() == ["a", "b"]
    assert found["covered"].tolist() == [0.95, 0.9]
    assert found["pairs"].tolist() == [20, 20]
    assert found["falls_short"].tolist() == ["", "; ".join(rows[1].shortfalls)]


def test_groups_keep_their_order() -> None:
    rows = [row(str(n), group, covered=1) for n, group in enumerate("babc")]
    found = groups(rows)
    assert list(found) == ["b", "a", "c"]
    assert [one.cell for one in found["b"]] == ["0", "2"]
