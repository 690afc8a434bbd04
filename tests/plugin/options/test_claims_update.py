"""--claims-update: write pins. Runs: `../test_claims_update.py`."""

from __future__ import annotations

from tests.plugin.options.conftest import Given, Refused


def test_it_is_off_until_asked_for(given: Given) -> None:
    assert not given().update


def test_planted_models_have_no_pins(refused: Refused) -> None:
    assert "--claims-update: planted models have no pins" in refused("--claims-update")
