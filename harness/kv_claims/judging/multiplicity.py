"""Many tests, one error rate: what share of 0.05 each is given, and Holm's correction beside it.

A verdict is reached at the share (Bonferroni over the declared family, and over planned looks),
which needs no other test of the family to have been run. Holm's procedure is reported as well,
over the whole family, with p = 1 for what was not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from kv_claims.claims.claim import Claim, Family
from kv_claims.judging.checks import Check
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import ALPHA

Key = TypeVar("Key")


class Share(NamedTuple):
    """One of `family.size` headline tests, at one of so many looks."""

    family: Family
    looks: int = 1

    @classmethod
    def of(cls, claim: Claim, cells: int = 1) -> Share:
        """The share of each of a claim's cells. cells: how many it has, whatever is selected."""
        return cls(claim.family or Family(claim.id, cells), max(1, len(claim.looks)))

    @property
    def alpha(self) -> float:
        """The error rate at which each test is judged."""
        return ALPHA / (self.family.size * self.looks)

    def __str__(self) -> str:
        looks = f", at one of {self.looks} looks" if self.looks > 1 else ""
        return f"one of {self.family.size} in {self.family.name!r}{looks}"


def best_of_k(verdict: Verdict, share: Share, parts: int) -> Check:
    """Whether a verdict was reached at its share of 0.05, as its own interval's level shows.

    parts: of the conjunction; each is refuted at 1 / parts of the share.
    """
    supported, refuted = 1 - 2 * share.alpha, 1 - share.alpha / parts
    wanted = supported if verdict.word == "supported" else refuted
    return Check(
        "best-of-k",
        abs(verdict.level - wanted) < 1e-12,
        f"{share}: judged at level {verdict.level:.6g}, {wanted:.6g} wanted",
    )


def holm(p_values: Mapping[Key, float], size: int) -> dict[Key, float]:
    """Holm's adjusted p-values of a family of which these were tested.

    size: of the family; what was not tested counts as p = 1. A p is significant at alpha exactly if
    its adjusted value is at most alpha. Source: S. Holm, A simple sequentially rejective multiple
    test procedure, Scandinavian Journal of Statistics 6 (1979) 65.
    Raises ValueError for more p-values than the family has tests.
    """
    if len(p_values) > size:
        raise ValueError(f"{len(p_values)} p-values in a family of {size}")
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (size - rank) * p))
        adjusted[key] = largest
    return adjusted


def holm_word(raw: Word, p_supported: float, p_refuted: float) -> Word:
    """The word by Holm: what was decided at 0.05, where its adjusted p-value still is.

    raw: the word at 0.05, had the test been the only one; p-values adjusted by `holm`.
    """
    stays = {"supported": p_supported <= ALPHA, "refuted": p_refuted <= ALPHA}
    return raw if stays.get(raw, True) else "inconclusive"
