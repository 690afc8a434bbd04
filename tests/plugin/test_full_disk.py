"""A disk that is full: one clear line, and what stands there stays whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.run.ledger import Ledger
from tests.plugin.project import SMALL, STORED, Run, run_pytest

CELLS = (
    "--model",
    STORED,
    *SMALL,
    "--batch-size",
    "8",
    "-k",
    "transfers_80 and (L18-w16 or L25-w16)",
    "-q",
)


@pytest.fixture(scope="module")
def full(shared_project: Path, serial: Run) -> dict[str, Run]:
    """Into one folder: a run without room for its ledger, one with room, one without for files."""
    out = shared_project / "full"
    shutil.copytree(serial.out, out, ignore=shutil.ignore_patterns("ledger"))
    found = {}
    one_cell = (*CELLS[:-2], "transfers_80 and L18-w16", "-q")  # whose trials are in the ledger
    for name, options, size in (
        ("ledger", CELLS, "60000"),
        ("none", CELLS, ""),
        ("files", one_cell, "9999"),
    ):
        run = run_pytest(shared_project, "claims", *options, out=out, KV_TEST_DISK=size)
        copy = Path(shutil.copytree(out, shared_project / f"full {name}"))
        found[name] = Run(run.code, run.stdout, run.stderr, copy)
    return found


def test_a_ledger_that_is_full_ends_the_run_in_one_line(full: dict[str, Run]) -> None:
    run = full["ledger"]
    assert run.code == 2, run.stdout + run.stderr
    (told,) = {
        line for line in run.stdout.splitlines() if "cannot be written" in line and line[0] != "!"
    }
    assert (
        "ledger/main.jsonl: cannot be written (File too large); what stands in it is whole" in told
    )
    assert "Traceback" not in run.stdout + run.stderr
    assert "INTERNALERROR" not in run.stdout + run.stderr


def test_files_that_find_no_room_are_one_line_and_3(full: dict[str, Run]) -> None:
    run = full["files"]
    assert run.code == 3, run.stdout + run.stderr
    assert "verdicts: 1 refuted" in run.stdout
    (told,) = (line for line in run.stdout.splitlines() if line.startswith("no file was written: "))
    assert "File too large" in told
    assert "the same command runs none of them again" in " ".join(run.stdout.split())
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.parametrize(("name", "former"), [("ledger", 8), ("files", 2)])
def test_the_former_run_and_the_ledger_stay_whole(
    full: dict[str, Run], name: str, former: int
) -> None:
    out = full[name].out
    stored = load_run(out)
    assert stored.integrity.is_whole
    assert not stored.integrity.pages
    assert len(stored.evidence) == former
    ledger = Ledger(Path(shutil.copytree(out / "ledger", out / "copy")))
    assert not ledger.bad_lines
    assert len(ledger) >= 20
    assert not [path for path in out.iterdir() if path.name.startswith((".staging", ".ready"))]


def test_with_room_again_the_run_goes_on_from_its_ledger(full: dict[str, Run]) -> None:
    run = full["none"]
    assert run.code == 0, run.stdout + run.stderr
    assert run.content["run"]["spent"]["models"][STORED]["read"] > 0
    assert run.content["run"]["complete"] is True
    assert load_run(run.out).integrity.is_whole
