"""Each instrument check is seen to fail: the defect goes into the real pipeline, not into a mock.

And the reverse: without the defect every check passes. The defects are in `defects.py`.
"""

from __future__ import annotations

import pytest
import torch

from harness.judging.checks import INSTRUMENT_CHECKS
from tests.judging.defects import CHECKS, DEFECTS, STUDIES, failed, judged


@pytest.mark.parametrize("study", STUDIES)
def test_without_a_defect_every_check_passes(study: str) -> None:
    evidence = judged(study)
    assert failed(evidence) == set()
    made = {check["name"] for check in evidence.checks}
    assert made >= set(INSTRUMENT_CHECKS)
    assert ("likelihood-oracle" in made) is study.startswith("likelihood")


@pytest.mark.parametrize("study", ["splice", "several", "held", "likelihood"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nor_does_the_rounding_of_a_narrower_type_fail_one(study: str, dtype: torch.dtype) -> None:
    assert failed(judged(study, dtype)) == set()


def test_every_check_has_a_defect_here() -> None:
    assert {defect.check for defect in DEFECTS.values()} == CHECKS


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_makes_the_verdict_invalid_by_name(
    defect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, study, inject = DEFECTS[defect]
    inject(monkeypatch)
    evidence = judged(study)
    assert check in failed(evidence)
    assert evidence.verdict == "invalid"
    assert check in evidence.reason
