"""Families: who is in them, how many they are, and Holm's procedure over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from kv_claims.claims.claim import claim_of
from kv_claims.errors import UsageError
from kv_claims.judging.family import add_holm, cells_of, check_families

HEAD = """
import pytest
from kv_claims.claims.claim import Family, Region, claim

TEXT = {"says": "It transfers.", "cites": "a test", "transfer": Region(0.7, 0.9)}
two = pytest.mark.parametrize("two", ["a", "b"])
three = pytest.mark.parametrize("three", [1, 2, 3], ids=["x", "y", "z"])
"""
Items = list[pytest.Item]
Collect = Callable[[str], Items]


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second each time, and have no part in this."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def collect(pytester: pytest.Pytester) -> Collect:
    """Tests of a module of claims, collected by pytest itself."""

    def collect(source: str) -> Items:
        return pytester.getitems(HEAD + source)

    return collect


def by_name(items: Items) -> dict[str, set[int]]:
    """What `cells_of` says of each test function's items."""
    found: dict[str, set[int]] = {}
    for item in items:
        found.setdefault(item.nodeid.partition("::")[2].partition("[")[0], set()).add(
            cells_of(item)
        )
    return found


def cell_ids(items: Items) -> dict[str, set[str]]:
    """The cells that were collected, by claim."""
    found: dict[str, set[str]] = {}
    for item in items:
        if (claim := claim_of(item.function)) is not None:
            found.setdefault(claim.id, set()).add(item.name.partition("[")[2])
    return found


def check(items: Items) -> None:
    check_families(items, cell_ids(items))


def test_cells_are_the_product_of_the_marks_wherever_they_stand(collect: Collect) -> None:
    items = collect("""
pytestmark = pytest.mark.parametrize("everywhere", [0, 1])

def test_module(everywhere): pass

@two
@three
def test_stacked(everywhere, two, three): pass

@pytest.mark.parametrize(argnames="named", argvalues=["p", "q", "r", "s"])
def test_keywords(everywhere, named): pass

@pytest.mark.parametrize(("a", "b"), [(1, 2), (3, 4), (5, 6)])
def test_two_names(everywhere, a, b): pass

@three
class TestClass:
    def test_inside(self, everywhere, three): pass

    @two
    def test_both(self, everywhere, three, two): pass
""")
    assert by_name(items) == {
        "test_module": {2},
        "test_stacked": {12},
        "test_keywords": {8},
        "test_two_names": {6},
        "TestClass::test_inside": {6},
        "TestClass::test_both": {12},
    }
    # And it is what pytest made of them.
    made = Counter(item.nodeid.partition("::")[2].partition("[")[0] for item in items)
    assert {name: {n} for name, n in made.items()} == by_name(items)


def test_without_marks_there_is_one_cell(collect: Collect) -> None:
    assert by_name(collect("def test_one(): pass")) == {"test_one": {1}}


# --- what goes together ---------------------------------------------------------------------

OWN = """
@claim("a", **TEXT)
@two
@three
def test_a(two, three): pass
"""
SHARED = """
F = Family("headline", {size})

@claim("a", **TEXT, family=F)
@two
def test_a(two): pass

@claim("b", **TEXT, family={other})
@three
def test_b(three): pass
"""


def test_a_claims_own_cells_are_a_family_that_fits(collect: Collect) -> None:
    check(collect(OWN + "def test_no_claim(): pass"))


def test_a_claim_with_more_cells_than_its_family_is_best_of_k(collect: Collect) -> None:
    items = collect(OWN.replace("**TEXT", '**TEXT, family=Family("five", 5)'))
    with pytest.raises(UsageError) as error:
        check(items)
    assert str(error.value) == (
        "best-of-k: family 'five' is one of 5 tests, but the claims in it, 'a' among them, have 6; "
        "expected family=Family('five', 6) or more"
    )


@pytest.mark.parametrize("size", [5, 6, 50])
def test_claims_share_a_family_that_holds_all_their_cells(collect: Collect, size: int) -> None:
    check(collect(SHARED.format(size=size, other="F")))


def test_claims_that_share_a_family_count_together(collect: Collect) -> None:
    items = collect(SHARED.format(size=4, other="F"))
    with pytest.raises(UsageError, match=r"^best-of-k: family 'headline' is one of 4 tests.*5; "):
        check(items)
    # Each alone would fit.
    check([item for item in items if "test_b" not in item.name])


def test_two_families_of_other_names_do_not_count_together(collect: Collect) -> None:
    check(collect(SHARED.format(size=4, other='Family("other", 3)')))


def test_a_family_has_one_size(collect: Collect) -> None:
    items = collect(SHARED.format(size=8, other='Family("headline", 9)'))
    with pytest.raises(UsageError) as error:
        check(items)
    assert str(error.value) == (
        "family 'headline': 8 tests in claim 'a', 9 in claim 'b', expected one size"
    )


def test_a_family_has_one_number_of_looks(collect: Collect) -> None:
    """Its tests share one error rate, which looks divide."""
    items = collect(SHARED.format(size=8, other="F, looks=(20, 40)"))
    with pytest.raises(UsageError) as error:
        check(items)
    assert str(error.value) == (
        "family 'headline': 1 looks in claim 'a', 2 in claim 'b', expected one number, as they "
        "share one error rate"
    )


BY_OTHER_MEANS = {
    "fixture": """
@pytest.fixture(params=["p", "q", "r"])
def param(request): return request.param
""",
    "hook": """
def pytest_generate_tests(metafunc):
    if "param" in metafunc.fixturenames:
        metafunc.parametrize("param", ["p", "q", "r"])
""",
}


@pytest.mark.parametrize("means", BY_OTHER_MEANS)
def test_cells_that_no_mark_makes_are_counted(collect: Collect, means: str) -> None:
    items = collect(BY_OTHER_MEANS[means] + '@claim("a", **TEXT)\ndef test_a(param): pass\n')
    with pytest.raises(UsageError, match=r"^best-of-k: family 'a' is one of 1 tests.* have 3; "):
        check(items)


MODELS = ("planted:inert", "planted:disrupted")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Collects claims on two models with the plugin, and only plans what it would run."""
    pytester.makeini("[pytest]\nstrict = true\nfilterwarnings = error\n")

    def run(source: str, *selected: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=HEAD + source)
        path = [] if any("::" in one for one in selected) else ["test_it.py"]
        models = [option for model in MODELS for option in ("--claims-model", model)]
        options = ["-p", "kv_claims.plugin.hooks", *models, "--setup-plan", "-v"]
        return pytester.runpytest_inprocess(*path, *selected, *options)

    return run


BY_FIXTURE = (
    BY_OTHER_MEANS["fixture"]
    + """
@claim("a", **TEXT, family=Family("f", {size}))
def test_a(param, study): pass
"""
)
BY_TWO_CLAIMS = """
param = pytest.mark.parametrize("param", ["p", "q"])

@claim("a", **TEXT, family=Family("f", {size}))
@param
def test_a(param, study): pass

@claim("b", **TEXT, family=Family("f", {size}))
@param
def test_b(param, study): pass
"""


@pytest.mark.parametrize(
    ("source", "cells", "selected"),
    [
        (BY_FIXTURE, 3, []),
        (BY_FIXTURE, 3, ["test_it.py::test_a[planted:inert-p]"]),
        (BY_TWO_CLAIMS, 4, ["-k", "test_a and p"]),
    ],
    ids=["all", "node-id", "keyword"],
)
def test_what_is_selected_makes_no_family_fit(
    run: Callable[..., pytest.RunResult], source: str, cells: int, selected: list[str]
) -> None:
    """A part of a family that says too few is refused as the whole of it is; models count once."""
    result = run(source.format(size=cells - 1), *selected)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.strip()]
    assert line.startswith(f"ERROR: best-of-k: family 'f' is one of {cells - 1} tests, but the ")
    assert line.endswith(f" have {cells}; expected family=Family('f', {cells}) or more")


@pytest.mark.parametrize(
    ("source", "cells"), [(BY_FIXTURE, 3), (BY_TWO_CLAIMS, 4)], ids=["fixture", "two-claims"]
)
def test_a_family_that_holds_its_cells_fits_on_every_model(
    run: Callable[..., pytest.RunResult], source: str, cells: int
) -> None:
    result = run(source.format(size=cells))
    assert result.ret != pytest.ExitCode.USAGE_ERROR
    assert not [line for line in result.errlines if line.strip()]
    for model in MODELS:
        result.stdout.fnmatch_lines([f"test_it.py::test_a[[]{model}-p] *"])


# --- Holm ------------------------------------------------------------------------------------


def evidence(
    cell: str,
    supported: float | None,
    refuted: float | None = 1.0,
    raw: str = "supported",
    word: str = "inconclusive",
    **facts: Any,
) -> dict[str, Any]:
    """What of a cell's evidence Holm's procedure reads."""
    planned = facts.get("looks", [])
    return {
        "claim": facts.get("claim", "c"),
        "cell": cell,
        "model": facts.get("model", "m"),
        "verdict": word,
        "p_supported": supported,
        "p_refuted": refuted,
        "multiplicity": {
            "family": facts.get("family", "f"),
            "size": facts.get("size", 8),
            "alpha": 0.05 / facts.get("size", 8),
            "raw": raw,
            "holm": None,
            "looks": {"planned": planned, "taken": [], "pairs_spared": 0},
        },
    }


def holm_of(cells: list[dict[str, Any]], p: str = "p_supported") -> list[float]:
    return [one["multiplicity"]["holm"][p] for one in cells]


def by_statsmodels(p_values: list[float], size: int) -> list[float]:
    """The adjusted values of the first; the rest of the family has p = 1."""
    padded = p_values + [1.0] * (size - len(p_values))
    adjusted = multipletests(padded, 0.05, "holm")[1]
    return [float(p) for p in adjusted[: len(p_values)]]


@pytest.mark.parametrize("tested", [8, 5, 1], ids=["all", "some", "one"])
def test_holm_is_that_of_statsmodels_over_the_whole_family(tested: int) -> None:
    rng = np.random.default_rng(tested)
    for _ in range(2):
        supported, refuted = (rng.beta(0.3, 3.0, (2, tested))).tolist()
        cells = [
            evidence(str(i), s, r) for i, (s, r) in enumerate(zip(supported, refuted, strict=True))
        ]
        add_holm(cells)
        assert holm_of(cells) == pytest.approx(by_statsmodels(supported, 8))
        assert holm_of(cells, "p_refuted") == pytest.approx(by_statsmodels(refuted, 8))


def test_the_word_is_kept_where_holm_rejects_and_only_there() -> None:
    cells = [
        evidence("share", 0.005, word="supported"),  # 8 x 0.005 = 0.04
        evidence("holm", 0.0070),  # 7 x 0.0070 = 0.049, above 0.05 / 8
        evidence("neither", 0.0090),  # 6 x 0.0090 = 0.054
        evidence("refuted", 1.0, 0.001, raw="refuted", word="refuted"),
        evidence("undecided", 0.3, raw="inconclusive"),
        evidence("invalid", None, None, raw="invalid", word="invalid"),
    ]
    (family,) = add_holm(cells)
    words = {one["cell"]: one["multiplicity"]["holm"]["verdict"] for one in cells}
    assert words == {
        "share": "supported",
        "holm": "supported",
        "neither": "inconclusive",
        "refuted": "refuted",
        "undecided": "inconclusive",
        "invalid": "invalid",
    }
    assert family == {
        "family": "f",
        "model": "m",
        "size": 8,
        "judged": 6,
        "alpha": 0.05 / 8,
        "words": {
            "raw": {"supported": 3, "refuted": 1, "inconclusive": 1, "invalid": 1},
            "share": {"supported": 1, "refuted": 1, "inconclusive": 3, "invalid": 1},
            "holm": {"supported": 2, "refuted": 1, "inconclusive": 2, "invalid": 1},
        },
    }


def test_a_cell_without_p_is_a_test_of_the_family_with_p_1() -> None:
    p_values = [0.001, None, 0.012, None]
    cells = [evidence(str(i), p, p, size=4) for i, p in enumerate(p_values)]
    add_holm(cells)
    wanted = by_statsmodels([0.001, 0.012], 4)
    assert holm_of(cells) == pytest.approx([wanted[0], 1.0, wanted[1], 1.0])


def test_a_p_of_several_looks_counts_as_often() -> None:
    p_values, looks = [0.002, 0.004, 0.4], [[20, 40, 80], [], [20, 40, 80]]
    cells = [
        evidence(str(i), p, looks=planned, size=5)
        for i, (p, planned) in enumerate(zip(p_values, looks, strict=True))
    ]
    add_holm(cells)
    assert holm_of(cells) == pytest.approx(by_statsmodels([0.006, 0.004, 1.0], 5))


def test_each_model_and_each_name_has_a_family_of_its_own() -> None:
    p_values = [0.01, 0.02]
    cells = [
        evidence(str(i), p, model=model, family=family, size=2)
        for model in ("m", "n")
        for family in ("f", "g")
        for i, p in enumerate(p_values)
    ]
    found = add_holm(cells)
    assert [(one["model"], one["family"], one["judged"]) for one in found] == [
        ("m", "f", 2),
        ("m", "g", 2),
        ("n", "f", 2),
        ("n", "g", 2),
    ]
    assert holm_of(cells) == pytest.approx(by_statsmodels(p_values, 2) * 4)


def test_claims_of_one_family_are_adjusted_together() -> None:
    cells = [evidence("x", 0.01, claim="a", size=2), evidence("x", 0.02, claim="b", size=2)]
    assert [one["judged"] for one in add_holm(cells)] == [2]
    assert holm_of(cells) == pytest.approx([0.02, 0.02])


def test_nothing_judged_has_no_family() -> None:
    assert add_holm([]) == []
