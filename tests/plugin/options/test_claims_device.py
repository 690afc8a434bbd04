"""--claims-device: where a model runs."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


def test_it_is_handed_on(given: Given) -> None:
    assert given("--claims-device", "cpu").device == "cpu"
    assert given().device is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("gpu", "device 'gpu': expected cpu, cuda"),
        ("cuda:99", "device 'cuda:99': not there, this machine has cpu"),
        ("xpu", "device 'xpu': not there"),
    ],
    ids=["gpu", "cuda:99", "xpu"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-device={value}")
