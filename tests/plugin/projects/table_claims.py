"""Claims whose tests make a table of their own; one runs a model as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from kv_claims import Patch, Region, claim


def table(**arms: float) -> pd.DataFrame:
    luck = np.random.default_rng(0)
    means = {"base": 1.0, "source": 11.0, **arms}
    return pd.DataFrame(
        {"pair": f"p{n}", "arm": arm, "seed": 0, "score": mean + luck.normal(0, 0.3)}
        for arm, mean in means.items()
        for n in range(24)
    )


@claim("own", says="A table.", cites="a test", transfer=Region(0.7, 0.9))
@pytest.mark.own_table
@pytest.mark.parametrize("layers", ["9", "10"])
def test_own(study: Any, layers: str) -> None:
    frame = table(patched=9.0, noise=1.0)
    study.judge_table(frame, Patch("residual", layers, "last(4)"), model="gpt2", n_layers=12)


@claim("own-geometry", says="Another.", cites="a test", gap=Region(high=20.0), outcome="rv")
@pytest.mark.own_table
def test_own_geometry(study: Any) -> None:
    study.judge_table(table(), model="gpt2", n_layers=12)


@claim("run", says="A model.", cites="a test", transfer=Region(high=0.25))
def test_run(study: Any) -> None:
    study.judge(Patch("kv", layers="9", positions="last(16)"))
