"""A verdict in print: ten lines, and one."""

from __future__ import annotations

import pytest

from kv_claims.claims.claim import Region
from kv_claims.judging.verdict import judge
from tests.judging.frames import PASSED, table, wave

N = 40
BASE = 1 + 0.0 * wave(1, N)
ARMS = {
    "base": BASE,
    "source": BASE + 2 + 0.1 * wave(1, N),
    "patched": BASE + 1.6 + 0.1 * wave(3, N),
    "noise": BASE + 0.01 * wave(5, N),
}


def test_it_prints_what_was_found_and_what_it_rests_on() -> None:
    verdict = judge(table(ARMS), Region(0.7, 0.9), checks=PASSED)
    assert str(verdict).splitlines() == [
        "SUPPORTED",
        "  claimed    [0.7, 0.9]",
        "  transfer   0.800",
        "  interval   [0.783, 0.817] at 90%",
        "  pairs      40 in 40 clusters",
        "  means      base 1, source 3, patched 2.6, noise 1",
        "  controls   noise 0.000 (inside)",
        "  reason     transfer lies inside [0.7, 0.9]",
    ]
    said = "transfer 0.800, [0.783, 0.817] at 90%, claimed [0.7, 0.9], 40 pairs"
    assert repr(verdict) == f"<Verdict supported: {said}>"


@pytest.mark.parametrize("n", [N, 6])
def test_it_says_that_it_was_not_verified_and_which_checks_failed(n: int) -> None:
    arms = {arm: values[:n] for arm, values in ARMS.items()}
    printed = str(judge(table(arms), Region(high=0.1)))
    assert "(not verified: 13 checks not run)" in printed.splitlines()[0]
    assert ("  failed     enough-pairs" in printed) == (n == 6)
    assert "(not verified)" in repr(judge(table(arms), Region(high=0.1)))
    assert len(printed.splitlines()) <= 11
    assert max(map(len, printed.splitlines())) <= 96


def test_what_was_not_found_is_no_number() -> None:
    verdict = judge(table({arm: ARMS[arm] for arm in ("base", "source")}), Region(low=0.5))
    assert "  transfer   no estimate" in str(verdict)
    assert "interval" not in str(verdict).replace("no-ceiling", "")
