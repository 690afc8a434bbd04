"""What a run of `pytest claims` says: words in the progress, the table at the end, expectations."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.patch import Patch
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import true_transfer
from tests.plugin.project import (
    INERT,
    PAIRS,
    SMALL,
    STORED,
    TOKENS,
    Run,
    run_pytest,
    save_as_stranger,
)


def closing_table(run: Run) -> list[str]:
    """The lines from the section of claims to pytest's last line."""
    lines = run.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if re.fullmatch(r"=+ claims =+", line))
    return lines[start:]


def test_a_run_on_planted_models_passes(serial: Run) -> None:
    assert serial.code == 0, serial.stdout + serial.stderr
    assert serial.stderr == ""


def test_each_cell_is_shown_in_its_own_word(serial: Run) -> None:
    assert {one["verdict"] for one in serial.evidence} >= {"supported", "refuted", "invalid"}
    for one in serial.evidence:
        assert re.search(
            rf"^{re.escape(one['test'])}\s+{one['verdict'].upper()} ", serial.stdout, re.MULTILINE
        ), one["test"]


def test_the_table_has_a_row_a_cell_in_80_columns(serial: Run) -> None:
    # The last lines name a folder, which may be as long as it likes.
    *lines, _, _ = closing_table(serial)
    assert max(map(len, lines)) <= 80
    lines = lines[: next(i for i, line in enumerate(lines) if line.startswith("verdicts: "))]
    rows = [line.split()[:2] for line in lines if re.match(r"  \S", line) and "verdict" not in line]
    assert rows == [[one["cell"], one["verdict"].upper()] for one in serial.evidence]
    for model in (STORED, INERT):
        assert f"kv-cache-transfers-80 [0.7, 0.9] on {model}" in lines
        assert f"kv-cache-transfers-at-most-12 <= 0.12 on {model}" in lines


def test_the_table_ends_with_counts_and_with_where_the_files_are(serial: Run) -> None:
    found = Counter(one["verdict"] for one in serial.evidence)
    words = ("supported", "refuted", "inconclusive", "invalid")
    counts = ", ".join(f"{found[word]} {word}" for word in words if found[word])
    *_, verdicts, families, share, holm, alone, instrument, files, summary = closing_table(serial)
    assert verdicts == f"verdicts: {counts}"
    assert families == "8 of them in 4 families of several tests"
    assert share == f"  at their share: {counts}"
    assert holm.startswith("  by Holm:        ")
    assert alone.startswith("  alone at 0.05:  ")
    assert instrument == "instrument checks: 2 of 2 passed (full swap reproduces the source)"
    assert files == f"evidence: {serial.out}/evidence.json, report.html, report.md"
    assert " 10 passed" in summary


def test_the_instrument_check_is_no_claim(serial: Run) -> None:
    assert not [one for one in serial.evidence if "full_swap" in one["test"]]
    checks = serial.content["instrument"]
    assert [one["model"] for one in checks] == [STORED, INERT]
    for one in checks:
        assert one["passed"] is True
        assert not {"verdict", "claim", "cell"} & set(one)


def test_what_is_expected_follows_from_the_truth(serial: Run) -> None:
    """From the closed form here, and not from what the run recorded as the truth."""
    assert {one["model"] for one in serial.evidence} == {STORED, INERT}
    for one in serial.evidence:
        assert one["expected"] == word_of_truth(one), (one["claim"], one["cell"], one["model"])
        assert one["verdict"] == one["expected"]


def word_of_truth(one: dict[str, Any]) -> str:
    planted = CATALOG[one["model"].removeprefix("planted:")]
    patch = Patch(*(one["patch"][key] for key in ("site", "layers", "positions")))
    truth = true_transfer(
        planted, patch, planted_task(planted), max_new_tokens=TOKENS, temperature=0.7
    )
    if math.isnan(truth):
        return "invalid"
    low, high = one["region"]["low"], one["region"]["high"]
    inside = (low is None or low <= truth) and (high is None or truth <= high)
    return "supported" if inside else "refuted"


def test_before_it_starts_a_run_says_what_it_will_spend(serial: Run) -> None:
    (line,) = [line for line in serial.stdout.splitlines() if line.startswith("kv-claims: ")]
    assert line.startswith("kv-claims: 8 cells of 2 claims on 2 models, profile default (")
    assert f"({PAIRS} pairs x 1 seed x {TOKENS} tokens)" in line
    assert line.endswith(f", evidence in {serial.out}")


@pytest.fixture(scope="module")
def of_a_folder(shared_project: Path) -> Run:
    """A planted model saved as a folder, so that nobody knows its truth, with its own prompts."""
    save_as_stranger(shared_project)
    options = ["--model", "checkpoint", "--task", "own.yaml", *SMALL, "-k", "L18-w16"]
    return run_pytest(shared_project, "claims", *options, out=shared_project / "of-a-folder")


def test_without_a_truth_supported_passes_and_refuted_fails(of_a_folder: Run) -> None:
    assert of_a_folder.code == 1, of_a_folder.stdout + of_a_folder.stderr
    assert " 1 failed, 1 passed" in of_a_folder.stdout.splitlines()[-1]
    assert "refuted: transfer lies outside [0.7, 0.9]" in of_a_folder.stdout
    verdicts = {one["claim"]: one["verdict"] for one in of_a_folder.evidence}
    assert verdicts == {
        "kv-cache-transfers-80": "refuted",
        "kv-cache-transfers-at-most-12": "supported",
    }
    failed = [line for line in of_a_folder.stdout.splitlines() if line.startswith("REFUTED")]
    assert len(failed) == 1
    assert failed[0].startswith("REFUTED (failed) claims/test_kv_cache.py::")


def test_without_a_truth_nothing_is_expected(of_a_folder: Run) -> None:
    for one in of_a_folder.evidence:
        assert one["expected"] is None
        assert one["truth"] is None
        assert (one["model"], one["task"], one["cell"]) == ("checkpoint", "own", "L18-w16")
    assert of_a_folder.content["run"]["task_file"] == "own.yaml"
