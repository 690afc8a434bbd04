"""A run that was stopped: by a kill (it resumes), by a signal, by a failure, on purpose."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.run.arms import PROBE_PAIRS
from kv_claims.run.ledger import Ledger
from tests.plugin.project import INERT, PAIRS, SMALL, STORED, Run, everything_in, run_pytest

CORRUPT_LINE = 5
IN_MEMORY_TOO = ["key", "pair", "arm", "seed", "tokens", "text", "score"]


class Stopped(NamedTuple):
    """A killed run, what it left in the ledger (with one line then corrupted), and the next run."""

    killed: Run
    left: list[str]
    resumed: Run


@pytest.fixture(scope="module")
def stopped(shared_project: Path) -> Stopped:
    out = shared_project / "killed"
    # Batches of 8, so that the kill comes between the batches of one arm.
    options = ["--model", STORED, *SMALL, "--batch-size", "8", "-k", "L18-w16", "-q"]
    killed = run_pytest(shared_project, "claims", *options, out=out, KV_TEST_SIGNAL="SIGKILL:8")
    ledger = out / "ledger/main.jsonl"
    left = ledger.read_text().splitlines()
    assert not (out / "evidence.json").exists()
    line = left[CORRUPT_LINE - 1]
    ledger.write_text(ledger.read_text().replace(line, line.replace('"seed": 0', '"seed": 1')))
    resumed = run_pytest(shared_project, "claims", *options, "-W", "error", out=out)
    return Stopped(killed, left, resumed)


def test_a_killed_run_leaves_its_trials_and_a_torn_line(stopped: Stopped) -> None:
    assert stopped.killed.code == -signal.SIGKILL
    *whole, torn = stopped.left
    assert 20 < len(whole) < 96
    assert torn.endswith("cut o")


def test_a_resumed_run_ends_with_the_trials_of_one_that_was_never_stopped(
    stopped: Stopped, serial: Run
) -> None:
    assert stopped.resumed.code == 0, stopped.resumed.stdout + stopped.resumed.stderr
    found = stopped.resumed.trials
    wanted = serial.trials
    wanted = wanted[(wanted.model == STORED) & wanted.arm.isin(set(found.arm))]
    assert len(found) == len(wanted) == 7 * PAIRS + PROBE_PAIRS
    order = ["arm", "pair", "seed"]
    found, wanted = (
        table.sort_values(order)[IN_MEMORY_TOO].reset_index(drop=True) for table in (found, wanted)
    )
    assert found.equals(wanted)


def test_its_verdicts_are_those_of_a_run_that_was_never_stopped(
    stopped: Stopped, serial: Run
) -> None:
    wanted = {
        (one["claim"], one["cell"]): (one["verdict"], one["estimate"], one["interval"])
        for one in serial.evidence
        if one["model"] == STORED and one["cell"] == "L18-w16"
    }
    assert wanted == {
        (one["claim"], one["cell"]): (one["verdict"], one["estimate"], one["interval"])
        for one in stopped.resumed.evidence
    }


def test_nothing_that_was_recorded_runs_again(stopped: Stopped) -> None:
    """Each trial has one whole line; the one of the corrupt line, a new one."""
    lines = stopped.resumed.ledger_lines()
    assert [line for line in lines[: len(stopped.left)] if line not in stopped.left] == [
        lines[CORRUPT_LINE - 1]
    ]
    bad = (CORRUPT_LINE, len(stopped.left))
    keys = [
        json.loads(line.partition(" ")[2])["key"]
        for number, line in enumerate(lines, start=1)
        if number not in bad
    ]
    assert len(keys) == len(set(keys)) == 7 * PAIRS + PROBE_PAIRS


def test_lines_that_cannot_be_read_are_reported(stopped: Stopped) -> None:
    named = stopped.resumed.content["run"]["ledger_lines_set_aside"]
    assert [line.partition(":")[0] for line in named] == [
        f"main.jsonl line {CORRUPT_LINE}",
        f"main.jsonl line {len(stopped.left)}",
    ]
    assert named[0].endswith("its checksum does not match its content")
    report = (stopped.resumed.out / "report.md").read_text()
    assert all(f"- {line}" in report for line in named)
    aside = (stopped.resumed.out / "ledger/set-aside.txt").read_text()
    assert stopped.left[-1] in aside


@pytest.fixture(scope="module")
def fresh(shared_project: Path, stopped: Stopped) -> tuple[dict[str, bytes], Run]:
    """`--no-resume` over a copy of the resumed run's folder, and what was there before."""
    out = shared_project / "fresh"
    shutil.copytree(stopped.resumed.out, out)
    before = everything_in(out)
    options = ["--model", STORED, *SMALL, "--no-resume", "-rs", "-q"]
    return before, run_pytest(shared_project, "test_small.py", *options, out=out)


def test_no_resume_moves_earlier_trials_aside_and_runs_all_again(
    fresh: tuple[dict[str, bytes], Run],
) -> None:
    before, run = fresh
    assert (run.out / "ledger/before-1/main.jsonl").read_bytes() == before["ledger/main.jsonl"]
    assert (run.out / "ledger/set-aside.txt").read_bytes() == before["ledger/set-aside.txt"]
    keys = [json.loads(line.partition(" ")[2])["key"] for line in run.ledger_lines()]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(run.trials.key)
    assert run.content["run"]["ledger_lines_set_aside"] == []


def test_without_evidence_the_exit_status_is_1_though_no_test_failed(
    fresh: tuple[dict[str, bytes], Run],
) -> None:
    _, run = fresh
    assert run.code == 1
    assert run.stdout.splitlines()[-1].startswith("2 passed, 2 skipped")
    # One passes without judging, one is skipped; the skip that has evidence is a verdict.
    first = f"test_small.py::test_never_judged[{STORED}]"
    assert (
        f"no evidence: 2 of 4 selected tests ended without a verdict, such as {first}"
    ) in run.stdout


def test_an_inconclusive_verdict_is_a_skip_with_its_reason_and_with_evidence(
    fresh: tuple[dict[str, bytes], Run],
) -> None:
    _, run = fresh
    assert [(one["claim"], one["verdict"]) for one in run.evidence] == [
        ("decides", "supported"),
        ("cannot-decide", "inconclusive"),
    ]
    assert "inconclusive: the interval meets an edge of [" in run.stdout
    assert run.evidence[1]["pairs_needed"] is None or run.evidence[1]["pairs_needed"] > 12


@pytest.fixture(scope="module")
def interrupted(shared_project: Path) -> Run:
    """Ctrl-C after the third batch: the arms that are shared, the first cell's, the second's."""
    options = ["--model", STORED, *SMALL, "-k", "transfers_80 and (L18-w16 or L25-w16)", "-q"]
    return run_pytest(
        shared_project,
        "claims",
        *options,
        out=shared_project / "interrupted",
        KV_TEST_SIGNAL="SIGINT:3",
    )


def test_ctrl_c_is_2_and_keeps_what_was_reached(interrupted: Run) -> None:
    assert interrupted.code == 2, interrupted.stdout + interrupted.stderr
    assert [(one["cell"], one["verdict"]) for one in interrupted.evidence] == [
        ("L18-w16", "refuted")
    ]
    assert "  L18-w16           REFUTED " in interrupted.stdout
    assert "verdicts: 1 refuted" in interrupted.stdout
    assert "no evidence: 1 of 2 selected tests ended without a verdict" in interrupted.stdout
    assert "KeyboardInterrupt" in interrupted.stdout
    says_incomplete(interrupted, judged=1, planned=2)


def says_incomplete(run: Run, *, judged: int, planned: int) -> None:
    """In the evidence, in both reports and in the terminal."""
    assert run.content["run"]["complete"] is False
    assert run.content["run"]["cells"] == {"planned": planned, "judged": judged}
    told = f"incomplete: {judged} of {planned} cells"
    assert f"\n{told}\n" in run.stdout
    for name in ("report.md", "report.html"):
        assert told in (run.out / name).read_text(encoding="utf-8")


def test_ctrl_c_keeps_the_ledger_and_whole_files(interrupted: Run) -> None:
    # The trials of the cell that was not judged are in the ledger, and not in the tables.
    arms = {json.loads(line.partition(" ")[2])["arm"] for line in interrupted.ledger_lines()}
    assert "source>kv@12/last(16)" in arms
    assert set(interrupted.trials.arm) == set(interrupted.evidence[0]["arms"].values()) < arms
    assert "L18-w16" in (interrupted.out / "report.md").read_text()
    hidden = {Path(name).name for name in everything_in(interrupted.out) if "/." in f"/{name}"}
    assert hidden == {".lock"}


CELLS = ("--model", STORED, *SMALL, "-k", "transfers_80 and (L18-w16 or L25-w16)", "-q")


def torn(out: Path) -> list[str]:
    """Lines of a ledger that a reader could not use."""
    return [str(bad) for bad in Ledger(Path(shutil.copytree(out, out.with_name("read")))).bad_lines]


@pytest.mark.slow
def test_sigterm_is_shown_and_kept_as_ctrl_c_is(shared_project: Path, interrupted: Run) -> None:
    out = shared_project / "terminated"
    run = run_pytest(shared_project, "claims", *CELLS, out=out, KV_TEST_SIGNAL="SIGTERM:3")
    assert run.code == 2, run.stdout + run.stderr
    assert "  L18-w16           REFUTED " in run.stdout
    assert "verdicts: 1 refuted" in run.stdout
    assert "KeyboardInterrupt: SIGTERM" in run.stdout
    says_incomplete(run, judged=1, planned=2)
    assert run.ledger_lines() == interrupted.ledger_lines()
    assert load_run(out).integrity.is_whole


@pytest.mark.slow
@pytest.mark.parametrize("to", [":parent", ""], ids=["controller", "worker"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_workers_leave_whole_ledgers_behind(shared_project: Path, name: str, to: str) -> None:
    """A signal to the controller from a worker, or to a worker, after its fourth batch."""
    out = shared_project / f"{name}{len(to)}"
    # Two models, two workers: one of them ends a cell before the other's signal comes.
    options = ["--model", STORED, "--model", INERT, *SMALL, "-k", "transfers_80", "-n", "2"]
    run = run_pytest(shared_project, "claims", *options, out=out, KV_TEST_SIGNAL=f"{name}:4{to}")
    assert run.code == 2, run.stdout + run.stderr
    judged = len(run.evidence)
    assert 0 < judged < 16
    says_incomplete(run, judged=judged, planned=16)
    assert f"no evidence: {16 - judged} of 16 selected tests" in run.stdout
    assert not torn(out / "ledger")
    assert load_run(out).integrity.is_whole


def test_x_says_incomplete(shared_project: Path) -> None:
    out = shared_project / "x first"
    options = ["--model", STORED, *SMALL, "-q", "-x", "--claims-strict"]
    run = run_pytest(shared_project, "test_small.py", *options, out=out)
    assert run.code == 1
    says_incomplete(run, judged=2, planned=4)


@pytest.mark.slow
def test_maxfail_with_workers_says_incomplete(shared_project: Path) -> None:
    out = shared_project / "maxfail"
    options = ["--model", STORED, *SMALL, "-n", "2", "--maxfail", "1", "--claims-strict"]
    run = run_pytest(shared_project, "test_small.py", *options, out=out)
    assert run.code != 0
    says_incomplete(run, judged=len(run.evidence), planned=4)
