"""What is known to go wrong between pytest, xdist and reports, each put to the test in one run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin.project import FILES, SMALL, STORED, Run, run_pytest


@pytest.fixture(scope="module")
def trapped(shared_project: Path) -> Run:
    """One worker, JUnit, strict: `-n 1` is where a report that cannot cross passes as no tests."""
    shutil.copy(FILES / "trap_claims.py", shared_project / "test_traps.py")
    options = ["--model", STORED, *SMALL, "--claims-strict", "-n", "1", "-v", "-rf"]
    junit = f"--junitxml={shared_project / 'traps.xml'}"
    return run_pytest(
        shared_project, "test_traps.py", *options, junit, out=shared_project / "traps"
    )


def test_numbers_of_numpy_cross_to_the_controller(trapped: Run) -> None:
    """A numpy scalar in a report makes xdist lose it, and pytest end with 0 and no tests."""
    found = {one["claim"]: one for one in trapped.evidence}
    assert set(found) == {"of-numpy", "known-refuted", "in-subtests", "undecided"}
    assert found["of-numpy"]["verdict"] == "supported"
    assert found["of-numpy"]["region"] == {"low": None, "high": 0.25, "margin": 0.1, "about": None}


def test_a_failed_verdict_stays_among_the_failures(trapped: Run) -> None:
    """A report category of our own would hide it from FAILURES and from the summary."""
    assert trapped.code == 1, trapped.stdout + trapped.stderr
    assert re.search(r"^=+ FAILURES =+$", trapped.stdout, re.MULTILINE)
    assert re.search(rf"^_+ test_undecided\[{STORED}\] _+$", trapped.stdout, re.MULTILINE)
    assert "INCONCLUSIVE (failed) test_traps.py::test_undecided" in trapped.stdout
    assert re.search(r"^=+ 2 failed, 2 passed, 2 subtests passed", trapped.stdout, re.MULTILINE)


def test_a_strict_xfail_that_passes_is_not_shown_as_supported(trapped: Run) -> None:
    """pytest words it: the run fails, and our green word would say otherwise."""
    lines = [line for line in trapped.stdout.splitlines() if "supported_after_all" in line]
    assert any("FAILED" in line for line in lines)
    assert not any("SUPPORTED" in line for line in lines)
    assert "[XPASS(strict)] known to be refuted" in trapped.stdout


def test_subtests_do_not_count_a_claim_again(trapped: Run) -> None:
    assert trapped.stdout.count("SUPPORTED test_traps.py::test_in_subtests") == 1
    claims = [one["claim"] for one in trapped.evidence]
    assert len(claims) == len(set(claims))
    assert "verdicts: 3 supported, 1 inconclusive" in trapped.stdout


def test_junit_holds_the_evidence_as_one_json_string(trapped: Run) -> None:
    root = ElementTree.parse(trapped.out.parent / "traps.xml").getroot()
    found = [
        json.loads(one.attrib["value"])
        for one in root.iter("property")
        if one.attrib["name"] == "claim_evidence"
    ]
    assert {one["claim"] for one in found} == {one["claim"] for one in trapped.evidence}
