"""`-n 2`: the same claims, verdicts and trials as one process, written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.project import SMALL, STORED, Run, everything_in, run_pytest

NUMBERS = ["estimate", "interval", "interval_other", "level", "p_supported", "p_refuted", "means"]
WORDS = ["verdict", "reason", "expected", "verified", "pairs", "clusters", "seeds", "trials"]


@pytest.fixture(scope="module")
def parallel(shared_project: Path, selected: tuple[str, ...]) -> Run:
    return run_pytest(
        shared_project,
        "claims",
        *("--model", STORED, *selected, "-n", "2"),
        out=shared_project / "parallel",
        KV_TEST_WRITES=str(shared_project / "writes.txt"),
    )


def by_cell(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    """Evidence on the one model that both runs have."""
    return {(one["claim"], one["cell"]): one for one in run.evidence if one["model"] == STORED}


def test_two_workers_reach_the_same_verdicts_as_one_process(parallel: Run, serial: Run) -> None:
    assert parallel.code == serial.code == 0, parallel.stdout + parallel.stderr
    found, wanted = by_cell(parallel), by_cell(serial)
    assert set(found) == set(wanted)
    assert len(parallel.evidence) == len(wanted) == 4
    for cell, one in wanted.items():
        assert {name: found[cell][name] for name in WORDS} == {name: one[name] for name in WORDS}
        for name in NUMBERS:
            assert found[cell][name] == pytest.approx(one[name], rel=1e-9, abs=1e-9), (cell, name)


def test_the_evidence_of_workers_is_as_complete(parallel: Run, serial: Run) -> None:
    for cell, one in by_cell(serial).items():
        assert set(by_cell(parallel)[cell]) == set(one)
        assert by_cell(parallel)[cell]["test"] == one["test"]
    assert len(parallel.content["instrument"]) == 1
    assert parallel.content["run"].keys() == serial.content["run"].keys()


def test_two_workers_run_the_same_trials(parallel: Run, serial: Run) -> None:
    found, wanted = (
        run.trials[run.trials.model == STORED]
        .sort_values("key")[["key", "arm", "pair", "tokens", "score"]]
        .reset_index(drop=True)
        for run in (parallel, serial)
    )
    assert len(found) == len(parallel.trials)
    assert found.equals(wanted)


def test_the_reports_are_written_once_and_by_the_controller(parallel: Run) -> None:
    assert len((parallel.out.parent / "writes.txt").read_text().splitlines()) == 1
    kinds = ("ledger", "ledger/self-patches")
    shards = {f"{kind}/{worker}.jsonl" for kind in kinds for worker in ("gw0", "gw1")}
    reports = {"evidence.json", "report.html", "report.md", "trials.csv", "trials.parquet"}
    locks = {".lock", "ledger/.lock", "ledger/.gw0.lock", "ledger/.gw1.lock"}
    assert set(everything_in(parallel.out)) == reports | shards | locks


def test_the_words_are_shown_as_in_one_process(parallel: Run, serial: Run) -> None:
    def rows(run: Run) -> set[str]:
        return {line for line in run.stdout.splitlines() if line.startswith("  L")}

    assert len(rows(parallel)) == 4
    assert rows(parallel) < rows(serial)
    assert "verdicts: 1 supported, 3 refuted" in parallel.stdout.splitlines()


def test_each_worker_has_a_shard_of_its_own(parallel: Run) -> None:
    trials = parallel.trials.set_index("key")
    keys = set()
    for worker in ("gw0", "gw1"):
        lines = (parallel.out / f"ledger/{worker}.jsonl").read_text().splitlines()
        own = [json.loads(line.partition(" ")[2]) for line in lines]
        assert len({one["key"] for one in own}) == len(own)
        assert all(
            trials.loc[one["key"], "tokens"] == " ".join(map(str, one["tokens"])) for one in own
        )
        keys |= {one["key"] for one in own}
    assert keys == set(trials.index)


@pytest.fixture(scope="module")
def one_worker(shared_project: Path) -> Run:
    """`-n 1 --no-resume` over an earlier ledger, with a test that passes and judges nothing."""
    out = shared_project / "one-worker"
    (out / "ledger").mkdir(parents=True)
    (out / "ledger/main.jsonl").write_text("an earlier run\n")
    options = ["--model", STORED, *SMALL, "-k", "never_judged", "--no-resume", "-n", "1"]
    return run_pytest(shared_project, "test_small.py", *options, out=out)


def test_a_test_that_judges_nothing_passes_as_a_test(one_worker: Run) -> None:
    assert "= 1 passed in " in one_worker.stdout, one_worker.stdout + one_worker.stderr


def test_a_claim_without_evidence_is_1_under_workers_too(one_worker: Run) -> None:
    assert one_worker.code == 1


def test_no_resume_moves_earlier_trials_aside_under_workers_too(one_worker: Run) -> None:
    assert (one_worker.out / "ledger/before-1/main.jsonl").exists()


@pytest.mark.slow
def test_bad_usage_is_4_under_workers_too(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("claims", "--model", STORED, "-n", "auto", "--pairs", "0")
    assert result.ret == 4
    assert "ERROR: pairs 0: expected at least 1" in result.errlines


@pytest.mark.slow
def test_collecting_only_moves_nothing_aside_under_workers_too(project: pytest.Pytester) -> None:
    ledger = project.path / "reports/latest/ledger"
    ledger.mkdir(parents=True)
    (ledger / "main.jsonl").write_text("an earlier run\n")
    result = project.runpytest_subprocess("claims", "-n", "1", "--no-resume", "--collect-only")
    assert result.ret == 0
    assert (ledger / "main.jsonl").exists()
