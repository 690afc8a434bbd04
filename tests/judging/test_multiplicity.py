"""Many tests, one error rate: Holm against statsmodels, and the share at which each is judged."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from statsmodels.stats.multitest import multipletests

from kv_claims.claims.claim import Claim, Family, Part, Region
from kv_claims.judging.multiplicity import Share, best_of_k, holm, holm_word
from kv_claims.judging.parts import judge_part
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.verdict import judge
from tests.judging.frames import Study

pytestmark = pytest.mark.filterwarnings("error")

EIGHTY = Region(0.7, 0.9)
STUDIES: dict[Word, Study] = {
    "supported": Study(0.8),
    "refuted": Study(0.1),
    "inconclusive": Study(0.72, noise=2),
    "invalid": Study(0.8, gap=0.01),
}


# --- Holm ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> Iterator[None]:
    """statsmodels' Holm collects garbage: let it not walk all that is loaded, 0.3 s a call."""
    gc.freeze()
    yield
    gc.unfreeze()


def by_statsmodels(p_values: list[float], size: int) -> list[float]:
    """Adjusted p-values; what was not tested has p = 1."""
    padded = [*p_values, *[1.0] * (size - len(p_values))]
    return [float(p) for p in multipletests(padded, method="holm")[1][: len(p_values)]]


@pytest.mark.parametrize(
    ("p_values", "size"),
    [
        pytest.param([0.01, 0.04, 0.03, 0.005], 4, id="all-of-four"),
        pytest.param([0.2], 1, id="one-of-one"),
        pytest.param([0.01], 8, id="one-of-eight"),
        pytest.param([0.01, 0.2, 0.004], 8, id="three-of-eight"),
        pytest.param([0.02, 0.02, 0.02], 3, id="ties"),
        pytest.param([0.01, 0.02, 0.02, 0.01], 6, id="ties-in-pairs"),
        pytest.param([0.0, 0.0, 1.0, 0.5], 4, id="zero-and-one"),
        pytest.param([1.0, 1.0], 5, id="ones"),
        pytest.param([0.0], 3, id="zero"),
        pytest.param([0.049, 0.0249, 0.0166, 0.0124], 4, id="each-at-its-step"),
    ],
)
def test_holm_is_that_of_statsmodels(p_values: list[float], size: int) -> None:
    found = holm(dict(enumerate(p_values)), size)
    assert [found[key] for key in range(len(p_values))] == pytest.approx(
        by_statsmodels(p_values, size), rel=1e-12
    )


def test_holm_by_hand() -> None:
    """Smallest times 4, next times 3; never below one before it, and never above 1."""
    found = holm({"a": 0.01, "b": 0.012, "c": 0.5, "d": 0.9}, 4)
    assert found == pytest.approx({"a": 0.04, "b": 0.04, "c": 1.0, "d": 1.0})


def test_holm_of_nothing_is_nothing() -> None:
    assert holm({}, 3) == {}


def test_more_p_values_than_tests_are_refused() -> None:
    with pytest.raises(ValueError, match="3 p-values in a family of 2"):
        holm({"a": 0.1, "b": 0.2, "c": 0.3}, 2)


@pytest.mark.parametrize("raw", ["supported", "refuted", "inconclusive", "invalid"])
@pytest.mark.parametrize(
    ("p_supported", "p_refuted", "survives"),
    [
        (0.05, 1.0, {"supported"}),
        (0.0501, 1.0, set()),
        (1.0, 0.05, {"refuted"}),
        (1.0, 0.0501, set()),
        (0.01, 0.01, {"supported", "refuted"}),
    ],
)
def test_a_word_by_holm_is_kept_where_its_own_p_is(
    raw: Word, p_supported: float, p_refuted: float, survives: set[Word]
) -> None:
    """What was not decided stays what it is."""
    kept = raw in survives or raw in ("inconclusive", "invalid")
    assert holm_word(raw, p_supported, p_refuted) == (raw if kept else "inconclusive")


# --- the share of each ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "looks", "alpha"), [(1, 1, 0.05), (8, 1, 0.00625), (1, 2, 0.025), (5, 4, 0.0025)]
)
def test_alpha_is_shared_by_the_family_and_by_looks(size: int, looks: int, alpha: float) -> None:
    share = Share(Family("eight", size), looks)
    assert share.alpha == pytest.approx(alpha)
    assert f"one of {size} in 'eight'" in str(share)
    assert ("looks" in str(share)) is (looks > 1)


def claim(**options: object) -> Claim:
    return Claim("c", says="It is.", cites="here", transfer=EIGHTY, **options)  # type: ignore[arg-type]


def test_the_share_of_a_claim() -> None:
    """Its declared family, else its own cells, whatever is selected; and its planned looks."""
    assert Share.of(claim(), cells=8) == Share(Family("c", 8))
    assert Share.of(claim()).alpha == 0.05
    assert Share.of(claim(family=Family("headline", 3)), cells=8) == Share(Family("headline", 3))
    assert Share.of(claim(looks=(20, 40)), cells=2).alpha == pytest.approx(0.05 / 4)


def at_share(word: Word, share: Share, parts: int) -> Verdict:
    """A verdict of that word, as each of so many parts is judged."""
    part = Part.transfer("behavior", EIGHTY)
    found = judge_part(STUDIES[word].frame(), part, of=parts, alpha=share.alpha)
    assert found.word == word
    return found


@pytest.mark.parametrize("word", STUDIES)
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(
    "share", [Share(Family("f", 1)), Share(Family("f", 8)), Share(Family("f", 2), 3)]
)
def test_what_was_judged_at_its_share_passes(word: Word, parts: int, share: Share) -> None:
    check = best_of_k(at_share(word, share, parts), share, parts)
    assert check.name == "best-of-k"
    assert check.passed is True
    assert str(share) in check.detail


@pytest.mark.parametrize("word", STUDIES)
@pytest.mark.parametrize("parts", [1, 2])
def test_what_was_judged_at_another_level_fails(word: Word, parts: int) -> None:
    """As if it were the only test, or the only look; or at a share smaller than its own."""
    eight, alone = Share(Family("f", 8)), Share(Family("f", 1))
    looks = Share(Family("f", 1), 3)
    for judged_at, share in ((alone, eight), (alone, looks), (eight, alone), (looks, eight)):
        check = best_of_k(at_share(word, judged_at, parts), share, parts)
        assert check.passed is False
        assert "wanted" in check.detail


@pytest.mark.parametrize("word", ["refuted", "inconclusive", "invalid"])
def test_a_part_judged_as_if_it_stood_alone_fails(word: Word) -> None:
    """k parts are k chances to refute, each at 1/k of the share."""
    share = Share(Family("f", 4))
    assert best_of_k(at_share(word, share, 1), share, 2).passed is False
    assert best_of_k(at_share(word, share, 2), share, 1).passed is False


def test_parts_do_not_change_the_level_at_which_one_is_supported() -> None:
    share = Share(Family("f", 4))
    assert best_of_k(at_share("supported", share, 1), share, 2).passed is True


def test_the_level_of_the_other_word_does_not_do() -> None:
    """The intervals of a supported and of a refuted claim are at different levels."""
    share = Share(Family("f", 8))
    supported = judge(Study(0.8).frame(), EIGHTY, alpha=share.alpha)
    assert best_of_k(replace(supported, word="refuted"), share, 1).passed is False
    assert best_of_k(replace(supported, level=supported.level + 1e-9), share, 1).passed is False
