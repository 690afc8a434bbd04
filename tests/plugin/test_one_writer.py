"""Two runs into one folder: the second ends at once, and the first ends as if it were alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kv_claims.__main__ import main
from kv_claims.evidence.stored import load_run
from tests.plugin.project import SMALL, STORED, Run, everything_in, run_pytest
from tests.processes import inherited

CELLS = ("--model", STORED, *SMALL, "-k", "transfers_80 and (L18-w16 or L25-w16)")


class Running(NamedTuple):
    """A run that was halted in its midst, over the files of a former run."""

    process: subprocess.Popen[bytes]
    out: Path
    former: str


@pytest.fixture(scope="module")
def running(shared_project: Path, serial: Run) -> Iterator[Running]:
    out = shared_project / "shared"
    shutil.copytree(serial.out, out, ignore=shutil.ignore_patterns("ledger"))
    command = [sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", *CELLS]
    environment = inherited()
    with (shared_project / "first.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--claims-out", str(out)],
            cwd=shared_project,
            env={**environment, "KV_TEST_SIGNAL": "SIGSTOP:2"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_halted(process.pid)
        yield Running(process, out, serial.content["run"]["id"])
    finally:
        process.kill()
        process.wait()


def _wait_until_halted(pid: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        assert state != "Z", "it ended"
        time.sleep(0.1)
    raise AssertionError("it was not halted in two minutes")


def refusal(running: Running) -> str:
    return f"folder {running.out}: process {running.process.pid} on "


@pytest.mark.parametrize(
    "options",
    [
        ["--no-resume"],
        pytest.param([], marks=pytest.mark.slow),
        ["--no-resume", "-n", "2"],
        pytest.param(["--claims-replay", "former"], marks=pytest.mark.slow),
    ],
    ids=["no-resume", "resume", "workers", "replay"],
)
def test_a_second_run_ends_at_once_in_one_line_and_touches_nothing(
    running: Running, shared_project: Path, serial: Run, options: list[str]
) -> None:
    before = everything_in(running.out)
    given = [str(serial.out) if one == "former" else one for one in options]
    own = ["--model", STORED, "-k", "L18-w16"] if "former" in options else CELLS
    run = run_pytest(shared_project, "claims", *own, "-q", *given, out=running.out)
    assert run.code == 4, run.stdout + run.stderr
    (line,) = (line for line in run.stderr.splitlines() if line.strip())
    assert line.startswith(f"ERROR: {refusal(running)}")
    assert "pytest claims" in line
    assert "evidence" not in run.stdout
    assert everything_in(running.out) == before


def test_a_folder_that_is_written_is_read_whole_or_it_is_said(
    running: Running, serial: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(running.out)
    assert main(["compare", str(running.out), str(serial.out)]) == 0
    assert main(["verify", str(running.out)]) == 0
    assert load_run(running.out).run["id"] == running.former
    capsys.readouterr()
    assert main(["report", str(running.out)]) == 2  # it would write
    assert refusal(running) in capsys.readouterr().err
    assert everything_in(running.out) == before


def test_the_first_ends_as_if_it_were_alone(
    running: Running, shared_project: Path, serial: Run
) -> None:
    """The last of this file: from here on the folder is free."""
    running.process.send_signal(signal.SIGCONT)
    assert running.process.wait(timeout=240) == 0
    alone = serial.trials
    found = load_run(running.out)
    assert found.integrity.is_whole
    assert found.run["complete"] is True
    wanted = alone[(alone.model == STORED) & alone.arm.isin(set(found.trials.arm))]
    keys = ["key", "tokens", "score"]
    assert (
        found.trials.sort_values("key")[keys]
        .reset_index(drop=True)
        .equals(wanted.sort_values("key")[keys].reset_index(drop=True))
    )
    assert not (running.out / ".writer").exists()
    again = run_pytest(shared_project, "claims", *CELLS, out=running.out)
    assert again.code == 0
    assert "2 passed" in again.stdout


@pytest.mark.slow
def test_a_run_without_claims_holds_nothing(shared_project: Path) -> None:
    """Workers do not tell what they collected until they end: their tests' ids do."""
    (shared_project / "test_plain.py").write_text("def test_it():\n    assert True\n")
    out = shared_project / "reports" / "latest"
    for options in ([], ["-n", "2"]):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "test_plain.py", "-p", "no:cacheprovider", *options],
            cwd=shared_project,
            env=inherited(),
            check=False,
        )
        assert done.returncode == 0
        assert not out.exists()


@pytest.mark.slow
def test_workers_without_an_option_hold_the_folder_as_well(
    running: Running, shared_project: Path
) -> None:
    """The folder is the default one, known by the tests that workers collected."""
    out = shared_project / "reports" / "latest"
    shutil.copytree(running.out, out, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pytest", "test_small.py", "-p", "no:cacheprovider", "-n", "2"]
    command += ["-o", f"claims_models={STORED}"]
    environment = inherited()
    from kv_claims.files.lock import hold

    with hold(out, command="another run"):
        done = subprocess.run(
            command,
            cwd=shared_project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"ERROR: folder {out}: process {os.getpid()} on " in done.stderr
