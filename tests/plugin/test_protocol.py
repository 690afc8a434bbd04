"""`pytest claims --protocol published`: the replay alone runs, is reported, and judges nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kv_claims.published.defects import DEFECTS
from tests.plugin.project import PAIRS, ROOT, SMALL, STORED, Run, run_pytest

TEST = "test_published_protocol.py::test_the_published_protocol"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("published")
    options = ["--protocol", "published", "--model", STORED, *SMALL]
    junit = f"--junitxml={folder / 'junit.xml'}"
    return run_pytest(ROOT, "claims", *options, junit, "-W", "error", out=folder / "out")


def test_only_the_replay_runs_and_it_passes(published: Run) -> None:
    assert published.code == 0, published.stdout + published.stderr
    assert re.search(r"= 1 passed, \d+ deselected in ", published.stdout)
    assert not re.search(r"skipped|no evidence", published.stdout)


def test_evidence_has_the_replay_and_no_verdict(published: Run) -> None:
    content = published.content
    assert (content["evidence"], content["instrument"]) == ([], [])
    assert content["run"]["protocol"] == "published"
    (found,) = content["protocol"]
    assert TEST in found["test"]
    assert (found["model"], found["pairs"]) == (STORED, PAIRS)
    assert not {"verdict", "claim", "cell", "expected"} & set(found)
    names = [defect.name for defect in DEFECTS]
    assert [row["turned_off"] for row in found["rows"]] == [None, *names]
    assert isinstance(found["drawn"], int)
    assert found["sample"]["hits"][0]["marker"] == "process"


def test_no_trial_of_the_replay_is_among_the_trials(published: Run) -> None:
    assert published.trials.empty
    assert not list((published.out / "ledger").glob("*.jsonl"))


def test_the_report_has_the_table_and_the_seeds_best_cell(published: Run) -> None:
    report = (published.out / "report.md").read_text(encoding="utf-8")
    assert "## The published protocol, replayed" in report
    (found,) = published.content["protocol"]
    section = report.partition(f"### The published protocol on {STORED}")[2]
    lines = section.splitlines()
    (head,) = [line for line in lines if line.startswith("| Defect turned off |")]
    for row in found["rows"]:
        name = row["turned_off"] or "none: as published"
        (line,) = [one for one in lines if one.startswith(f"| {name} | {row['pairs']} |")]
        assert line.count(" | ") == head.count(" | ")
        assert f" | {row['base']:.2f} | " in line
    for row in found["engines"]:
        name = row["defect"] or "none"
        assert f"| {name} | {row['self_patch_changed']} of {PAIRS} |" in section
    best = report.partition("### The seed's best cell")[2]
    assert "is a complex process that involved" in best
    assert "published score 1 by 'process' as a word, 0.0 lexicon words per 100 words" in best


def test_the_terminal_has_a_short_table_in_80_columns(published: Run) -> None:
    start = published.stdout.index(f"published protocol (no claim) on {STORED}, {PAIRS} pairs")
    table = published.stdout[start:].split("\nevidence: ")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table[2:10]] == [
        "(as",
        *(defect.name for defect in DEFECTS),
    ]
    assert "  published score 1 by 'process' as a word" in table


def test_junit_carries_it_too(published: Run) -> None:
    junit = ElementTree.parse(published.out.parent / "junit.xml")
    entry, spent = junit.iter("property")
    assert entry.attrib["name"] == "protocol_evidence"
    assert spent.attrib["name"] == "claim_spent"
    (found,) = published.content["protocol"]
    assert json.loads(entry.attrib["value"]) == {k: v for k, v in found.items() if k != "test"}


def test_without_the_option_the_replay_is_deselected(serial: Run) -> None:
    assert TEST not in serial.stdout
    assert serial.content["protocol"] == []
    assert serial.content["run"]["protocol"] == "claims"
    assert "published protocol" not in serial.stdout
    assert "The published protocol" not in (serial.out / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "replay"), [([], False), (["--protocol", "published"], True)], ids=["claims", "it"]
)
def test_a_run_is_one_or_the_other(tmp_path: Path, options: list[str], replay: bool) -> None:
    run = run_pytest(
        ROOT, "claims", "--collect-only", "-q", "--model", STORED, *options, out=tmp_path
    )
    assert run.code == 0
    tests = [line for line in run.stdout.splitlines() if "::" in line]
    assert tests
    assert all((TEST in line) == replay for line in tests)


def test_a_project_without_the_replay_has_nothing_to_run(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("claims", "--protocol", "published", "-q")
    assert result.ret == 5


def test_an_unknown_protocol_is_bad_usage(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("claims", "--protocol", "publishd")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--protocol: invalid choice: 'publishd'*claims*published*"])
