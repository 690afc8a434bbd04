"""Families of headline tests over a whole run: who is in them, and Holm's procedure at the end.

Works on tests as pytest collected them and on evidence as JSON; knows nothing of a model. A family
is one of claims, so each model has its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, claim_in
from kv_claims.errors import UsageError
from kv_claims.judging.multiplicity import Share, holm, holm_word
from kv_claims.judging.result import WORDS

_P_VALUES = ("p_supported", "p_refuted")


def cells_of(item: pytest.Item) -> int:
    """How many cells the test function of a claim has, whatever part of them was selected.

    It is the product of its `parametrize` marks; models do not count.
    """
    cells = 1
    for mark in item.iter_markers("parametrize"):
        values = mark.args[1] if len(mark.args) > 1 else mark.kwargs["argvalues"]
        cells *= len(list(values))
    return cells


def check_families(items: Iterable[pytest.Item], cell_ids: Mapping[str, set[str]]) -> None:
    """Raise UsageError where a family has more cells than it says (*best-of-k*), or two sizes.

    items: tests of claims, of all models. cell_ids: by claim, the cells that were collected.
    """
    claims: dict[str, tuple[Claim, int]] = {}
    for item in items:
        if (claim := claim_in(item)) is not None:
            claims[claim.id] = claim, cells_of(item)
    members: Counter[str] = Counter()
    sizes: dict[str, tuple[int, str]] = {}
    looks: dict[str, tuple[int, str]] = {}
    for claim, cells in claims.values():
        family, n_looks = Share.of(claim, cells)
        same, first = looks.setdefault(family.name, (n_looks, claim.id))
        if same != n_looks:
            raise UsageError(
                f"family {family.name!r}: {same} looks in claim {first!r}, {n_looks} in claim "
                f"{claim.id!r}, expected one number, as they share one error rate"
            )
        # Parametrized by other means than marks, a claim can have more cells than its marks say.
        members[family.name] += max(cells, len(cell_ids.get(claim.id, ())))
        size, owner = sizes.setdefault(family.name, (family.size, claim.id))
        if size != family.size:
            raise UsageError(
                f"family {family.name!r}: {size} tests in claim {owner!r}, {family.size} in claim "
                f"{claim.id!r}, expected one size"
            )
        if members[family.name] > size:
            raise UsageError(
                f"best-of-k: family {family.name!r} is one of {size} tests, but the claims in it, "
                f"{claim.id!r} among them, have {members[family.name]}; expected "
                f"family=Family({family.name!r}, {members[family.name]}) or more"
            )


def add_holm(evidence: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holm's procedure over each family of each model; writes it into the evidence too.

    Returns one object a family: its size, how many were judged, at what level, and how many have
    which word when judged alone, at their share, and by Holm.
    """
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in evidence:
        families.setdefault((one["model"], one["multiplicity"]["family"]), []).append(one)
    return [_family(model, name, cells) for (model, name), cells in families.items()]


def _family(model: str, name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    size = int(cells[0]["multiplicity"]["size"])
    adjusted = {p: _adjusted(cells, p, size) for p in _P_VALUES}
    for number, one in enumerate(cells):
        supported, refuted = (adjusted[p].get(number, 1.0) for p in _P_VALUES)
        raw = one["multiplicity"]["raw"]
        one["multiplicity"]["holm"] = {
            "p_supported": supported,
            "p_refuted": refuted,
            "verdict": holm_word(raw, supported, refuted),
        }
    return {
        "family": name,
        "model": model,
        "size": size,
        "judged": len(cells),
        "alpha": cells[0]["multiplicity"]["alpha"],
        "words": {
            "raw": _counted(one["multiplicity"]["raw"] for one in cells),
            "share": _counted(one["verdict"] for one in cells),
            "holm": _counted(one["multiplicity"]["holm"]["verdict"] for one in cells),
        },
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    """Words with their counts, always in one order, whichever test ended first."""
    found = Counter(words)
    return {word: found[word] for word in WORDS if found[word]}


def _adjusted(cells: Sequence[dict[str, Any]], p: str, size: int) -> dict[int, float]:
    """Holm's p of the cells that have one, by number.

    A cell that is looked at several times spends its share at each look, so its p counts as often.
    """
    tested = {
        number: min(1.0, one[p] * max(1, len(one["multiplicity"]["looks"]["planned"])))
        for number, one in enumerate(cells)
        if one[p] is not None
    }
    return holm(tested, size)
