"""A claim of a cell that a map found is judged on the pairs it names, and on no others."""

from __future__ import annotations

import pandas as pd
import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.found import Found
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.study.cell import Cell
from kv_claims.study.own_table import table_study
from kv_claims.study.stated import KnownModel

PLAN, TASK = "a" * 64, "b" * 64


def cell(found: Found | None) -> Cell:
    claim = Claim("c", says="s", cites="c", transfer=Region(low=0.3), found=found)
    return Cell.of(claim, "only", Patch("kv", "1", "last(2)"))


def test_its_own_task_passes_and_any_other_is_best_of_k() -> None:
    cell(Found(PLAN, TASK)).check_task(TASK, "task file t.yaml")
    cell(None).check_task("c" * 64, "task file t.yaml")
    with pytest.raises(UsageError, match=r"best-of-k: claim 'c' .* task file t.yaml is cccc"):
        cell(Found(PLAN, TASK)).check_task("c" * 64, "task file t.yaml")


def test_a_table_does_not_show_which_pairs_it_is_of() -> None:
    rows = [
        {"pair": f"p{k}", "arm": arm, "seed": 0, "score": mean + 0.01 * k}
        for k in range(12)
        for arm, mean in (("base", 0.0), ("source", 1.0), ("patched", 0.7))
    ]
    asked, model = cell(Found(PLAN, TASK)), KnownModel("m", 4, 1, 1)
    with pytest.raises(UsageError, match=r"best-of-k: .* is a table"):
        table_study(pd.DataFrame(rows), asked, model).run_cell(asked)


@pytest.mark.parametrize("found", [{"plan": "abc", "task": TASK}, {"plan": PLAN, "task": None}])
def test_what_is_no_hash_is_refused(found: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected a SHA-256"):
        Found(**found)
    with pytest.raises(UsageError, match="expected a Found"):
        Claim("c", says="s", cites="c", transfer=Region(low=0.3), found="map")  # type: ignore[arg-type]
