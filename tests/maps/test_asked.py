"""What a map may be asked for, and what is refused before a model is loaded."""

from __future__ import annotations

import pytest

from kv_claims.errors import UsageError
from kv_claims.maps.asked import Asked


def names(asked: Asked, n_layers: int = 2, n_heads: int = 0, shortest: int = 3) -> list[str]:
    return [str(cell.patch) for cell in asked.cells(n_layers, n_heads, shortest)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (Asked("residual", "each", "last(2, subject),at(-1)"), [
            "residual@0/last(2,subject)", "residual@0/at(-1)",
            "residual@1/last(2,subject)", "residual@1/at(-1)",
        ]),
        (Asked("mlp_out", "1", "each"), [f"mlp_out@1/at({k})" for k in (-3, -2, -1)]),
        # The last token of a prompt is in no cache yet.
        (Asked("kv", "1", "each"), ["kv@1/at(-3)", "kv@1/at(-2)"]),
        (Asked("embed", "each", "at(-1)"), ["embed@0/at(-1)"]),
        (Asked("z", "1,7", "all", "each", donor="zero"), [
            f"z@{layer}/all/heads={head}/donor=zero" for layer in (1, 7) for head in (0, 1)
        ]),
    ],
)  # fmt: skip
def test_cells_stand_row_by_row(asked: Asked, found: list[str]) -> None:
    assert names(asked, n_heads=2) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"site": "resdual"}, "did you mean 'residual'"),
        ({"outcome": "logit_dif"}, "outcome 'logit_dif'"),
        ({"outcome": "rv"}, "geometry of values is for claims"),
        ({"layers": "0,,1"}, "one comma between"),
        ({"layers": "0,1,0"}, "given twice"),
        ({"layers": "-1"}, "below 0"),
        ({"positions": "at(-1),lst(2)"}, "cannot be read"),
        ({"positions": ""}, "one comma between"),
        ({"heads": "each"}, "'residual' has no heads"),
        ({"site": "z", "heads": "each", "positions": "each"}, "one position beside --heads"),
        ({"site": "z", "heads": "0", "positions": "at(-1),at(-2)"}, "one position beside --heads"),
        ({"mode": "mixed"}, "mode"),
        ({"donor": "nobody"}, "donor"),
    ],
)
def test_what_cannot_be_read_is_one_error(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Asked(**{"site": "residual", "layers": "each", "positions": "each", **given})


def test_what_comes_from_the_source_is_a_share_and_other_donors_shift() -> None:
    assert Asked("residual", "each", "each").estimand == "transfer"
    assert Asked("residual", "each", "each", donor="mean").estimand == "shift"
