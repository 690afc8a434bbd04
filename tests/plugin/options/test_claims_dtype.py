"""--claims-dtype: in what numbers a model runs."""

from __future__ import annotations

import pytest

from kv_claims.models.request import check_request
from tests.plugin.options.conftest import Given, Refused


def test_it_is_handed_on(given: Given) -> None:
    assert given("--claims-dtype", "bfloat16").dtype == "bfloat16"


def test_without_it_planted_models_run_in_float64(given: Given) -> None:
    settings = given()
    request = check_request(settings.models[0], device="cpu", dtype=settings.dtype)
    assert str(request.dtype) == "torch.float64"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("float8", "dtype 'float8': expected one of float64, float32, bfloat16, float16"),
        ("torch.float32", "dtype 'torch.float32': expected one of"),
    ],
    ids=["float8", "torch.float32"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-dtype={value}")
