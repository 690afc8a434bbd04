"""--claims-profile smoke|default|full: what a run spends where nothing else is said."""

from __future__ import annotations

import pytest

from kv_claims.plugin.profiles import PROFILES
from kv_claims.plugin.terminal import describe
from tests.plugin.options.conftest import Given


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_it_sets_what_was_not_asked(given: Given, name: str) -> None:
    settings = given("--claims-profile", name)
    profile = PROFILES[name]
    assert (settings.n_seeds, settings.sampling.max_new_tokens) == (
        profile.seeds,
        profile.max_new_tokens,
    )


def test_it_is_said_before_a_run_starts(given: Given) -> None:
    line = describe(given("--claims-profile", "smoke"), 3, ["a"])
    assert "profile smoke (up to 60 pairs x 1 seed x 30 tokens)" in line


def test_an_unknown_one_is_refused_by_pytest(given: Given) -> None:
    with pytest.raises(pytest.UsageError, match="--claims-profile: invalid choice: 'quick'"):
        given("--claims-profile", "quick")
