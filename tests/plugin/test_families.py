"""Families and looks in a whole run: what is selected, and how many processes, changes nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from kv_claims.judging.multiplicity import holm
from tests.plugin.project import FILES, STORED, Run, run_pytest
from tests.plugin.test_outcome import closing_table
from tests.report.test_markdown import tables

SIZE = ("--pairs", "14", "--max-new-tokens", "8", "--model", STORED)
LINE = (
    "best-of-k: family 'looked-at' is one of 1 tests, but the claims in it, 'looks' among them, "
    "have 2; expected family=Family('looked-at', 2) or more"
)


@pytest.fixture(scope="module")
def folder(shared_project: Path) -> Path:
    """The project with the claims in families."""
    shutil.copy(FILES / "family_claims.py", shared_project / "test_families.py")
    return shared_project


@pytest.fixture(scope="module")
def whole(folder: Path) -> Run:
    """All cells, in one process."""
    return run_pytest(folder, "test_families.py", *SIZE, "-q", out=folder / "whole-family")


@pytest.fixture(scope="module")
def split(folder: Path) -> Run:
    """All cells, shared out among two workers."""
    options = [*SIZE, "-q", "-n", "2"]
    return run_pytest(folder, "test_families.py", *options, out=folder / "split-family")


@pytest.fixture(scope="module")
def one(folder: Path, whole: Run) -> Run:
    """One cell of the five, and one of the two that are looked at, on the trials of `whole`."""
    out = folder / "one-of-the-family"
    shutil.copytree(whole.out / "ledger", out / "ledger")
    options = [*SIZE, "-q", "-k", "at_most and L12 or looks and L9"]
    return run_pytest(folder, "test_families.py", *options, out=out)


def by_cell(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["claim"], one["cell"]): one for one in run.evidence}


def families(run: Run) -> dict[str, dict[str, Any]]:
    """Families by name; their order is that in which tests ended."""
    found = {one["family"]: one for one in run.content["families"]}
    assert len(found) == len(run.content["families"])
    return found


def test_every_cell_is_judged_at_its_share(whole: Run) -> None:
    assert whole.code == 0, whole.stdout + whole.stderr
    assert {cell: one["multiplicity"]["alpha"] for cell, one in by_cell(whole).items()} == {
        ("at-most", "L9"): 0.01,
        ("at-most", "L12"): 0.01,
        ("at-most", "L13"): 0.01,
        ("about-80", "L9"): 0.01,
        ("about-80", "L12"): 0.01,
        # Two tests, each of which is looked at twice.
        ("looks", "L9"): 0.0125,
        ("looks", "L12"): 0.0125,
    }


def test_holm_is_over_the_family_and_in_every_evidence(whole: Run) -> None:
    five = [one for cell, one in by_cell(whole).items() if cell[0] != "looks"]
    two = [one for cell, one in by_cell(whole).items() if cell[0] == "looks"]
    for cells, size, looks in ((five, 5, 1), (two, 2, 2)):
        for p in ("p_supported", "p_refuted"):
            values = {n: min(1.0, looks * one[p]) for n, one in enumerate(cells) if one[p]}
            wanted = holm(values, size)
            for number, one in enumerate(cells):
                assert one["multiplicity"]["holm"][p] == pytest.approx(wanted.get(number, 1.0))
    assert {one["multiplicity"]["holm"]["verdict"] for one in five} >= {"supported", "refuted"}


def test_the_run_has_its_families(whole: Run) -> None:
    found = families(whole)
    assert set(found) == {"a-family-of-two-claims", "looked-at"}
    five = found["a-family-of-two-claims"]
    assert (five["model"], five["size"], five["judged"], five["alpha"]) == (STORED, 5, 5, 0.01)
    for how in ("raw", "share", "holm"):
        assert sum(five["words"][how].values()) == 5
    assert (found["looked-at"]["size"], found["looked-at"]["judged"]) == (2, 2)


def test_a_cell_alone_is_judged_as_it_is_among_all(one: Run, whole: Run) -> None:
    assert one.code == 0, one.stdout + one.stderr
    assert set(by_cell(one)) == {("at-most", "L12"), ("looks", "L9")}
    for cell, found in by_cell(one).items():
        wanted = by_cell(whole)[cell]
        for name in ("verdict", "estimate", "interval", "level", "p_supported", "checks", "pairs"):
            assert found[name] == wanted[name], name
        without_holm = [{**x["multiplicity"], "holm": None} for x in (found, wanted)]
        assert without_holm[0] == without_holm[1]
    # What was not run counts as p = 1: the p of the only one counts for the whole family.
    alone = by_cell(one)["at-most", "L12"]
    adjusted = alone["multiplicity"]["holm"]["p_refuted"]
    assert adjusted == pytest.approx(min(1.0, 5 * alone["p_refuted"]))
    assert families(one)["a-family-of-two-claims"]["size"] == 5
    assert families(one)["a-family-of-two-claims"]["judged"] == 1


@pytest.mark.slow
def test_two_workers_agree_with_one_process(split: Run, whole: Run) -> None:
    assert split.code == 0, split.stdout + split.stderr
    assert families(split) == families(whole)
    found, wanted = by_cell(split), by_cell(whole)
    assert set(found) == set(wanted)
    for cell, one in wanted.items():
        assert flat(found[cell]["multiplicity"]) == pytest.approx(flat(one["multiplicity"])), cell


def flat(multiplicity: dict[str, Any]) -> dict[str, Any]:
    """All its numbers side by side, and its words, each as a key."""
    looks = multiplicity["looks"]
    found = {**multiplicity, **multiplicity["holm"], **looks, "n_looks": len(looks["taken"])}
    for look in looks["taken"]:
        found |= {f"{name} at {look['pairs']}": value for name, value in look.items()}
    flat = {name: value for name, value in found.items() if isinstance(value, int | float)}
    words = {f"{k} is {v}": 1 for k, v in found.items() if isinstance(v, str)}
    return flat | words


def test_looks_stop_where_it_is_decided(whole: Run) -> None:
    looks = by_cell(whole)["looks", "L9"]["multiplicity"]["looks"]
    assert looks["planned"] == [10, 14]
    assert [(look["pairs"], look["verdict"]) for look in looks["taken"]] == [(10, "refuted")]
    assert looks["pairs_spared"] == 4
    assert by_cell(whole)["looks", "L9"]["pairs"] == 10


def test_the_table_of_trials_has_those_that_the_evidence_rests_on(whole: Run) -> None:
    """The cell of fewer pairs shares arms with cells of more: each trial has one row."""
    trials = whole.trials
    assert trials.key.is_unique
    for one in whole.evidence:
        rows = trials[trials.arm.isin(one["arms"].values())]
        assert rows.pair.nunique() == 14


def test_the_report_has_families_looks_and_the_scorer(whole: Run) -> None:
    report = (whole.out / "report.md").read_text(encoding="utf-8")
    for title in ("### Families", "### Looks", "### The scorer"):
        assert report.count(title) == 1, title
    found = {table[0].split("|")[1].strip(): table for table in tables(report)}
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in found["Family"][2:]}
    assert [cell.strip() for cell in rows["a-family-of-two-claims"][:3]] == ["5", "5", "0.01"]
    assert [cell.strip() for cell in rows["looked-at"][:3]] == ["2", "2", "0.0125"]
    (looks,) = [x for x in report.splitlines() if x.startswith("| looks | L9 | 10, 14 |")]
    assert re.fullmatch(r"10: refuted \(-?\d\.\d{3}\)", looks.split("|")[4].strip())
    assert looks.split("|")[5].strip() == "4"
    assert len(found["AUC"]) == 3


def test_the_terminal_says_what_families_do_in_80_columns(whole: Run) -> None:
    lines = closing_table(whole)
    # The folder of the reports may be as long as it likes.
    assert max(len(line) for line in lines if not line.startswith("evidence: ")) <= 80
    start = lines.index("7 of them in 2 families of several tests")
    for line, how in zip(lines[start + 1 : start + 4], ("share", "holm", "raw"), strict=True):
        words = {
            word: int(n) for n, word in re.findall(r"(\d+) (supp\w+|ref\w+|inc\w+|inv\w+)", line)
        }
        every = [one["words"][how] for one in whole.content["families"]]
        assert words == {w: n for w in words if (n := sum(one.get(w, 0) for one in every))}
        assert sum(words.values()) == 7


# --- a family that says too few -------------------------------------------------------------


def test_a_family_declared_too_small_is_bad_usage(folder: Path) -> None:
    out = folder / "too-small"
    run = run_pytest(
        folder, "test_families.py", *SIZE, "-k", "L9", out=out, KV_TEST_FAMILY_SIZE="1"
    )
    assert run.code == 4, run.stdout + run.stderr
    assert [line for line in run.stderr.splitlines() if line.strip()] == [f"ERROR: {LINE}"]
    assert not list(out.rglob("*.json*"))


@pytest.mark.slow
def test_under_workers_every_test_ends_with_that_line(folder: Path) -> None:
    out = folder / "too-small-for-two"
    options = [*SIZE, "-k", "L9", "-n", "2", "-q"]
    run = run_pytest(folder, "test_families.py", *options, out=out, KV_TEST_FAMILY_SIZE="1")
    assert run.code == 1, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith("3 errors in ")
    assert run.stdout.splitlines().count(LINE) == 3
    assert "no evidence: 3 of 3 selected tests ended without a verdict" in run.stdout
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert not (out / "evidence.json").exists()
