"""`kv-claims`: bad usage is 2 and a reason, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kv_claims.__main__ import main

ROOT = Path(__file__).parents[2]
STATED = ["plan", "--claim", "c", "--spread", "0.3", "--transfer", "0.8"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says: its last line, after argparse's usage if that refused it."""
    try:
        code: object = main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    *usage, reason = said.err.splitlines()
    assert not usage or usage[0].startswith("usage: kv-claims")
    return reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["guess"], "argument COMMAND: invalid choice: 'guess'"),
        (["plan"], "the following arguments are required: --claim"),
        (["plan", "--claim", "c", "--nothing"], "unrecognized arguments: --nothing"),
        ([*STATED, "--pairs", "many"], "argument --pairs: invalid int value: 'many'"),
        ([*STATED, "--power", "high"], "argument --power: invalid float value: 'high'"),
        (["calibrate", "--studies", "1.5"], "argument --studies: invalid int value: '1.5'"),
    ],
    ids=["nothing", "command", "claim", "option", "pairs", "power", "studies"],
)
def test_a_line_that_cannot_be_read_is_2_and_a_reason(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert f": error: {reason}" in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--power", "2"], "power 2.0: expected above 0 and below 1"),
        (["--power", "nan"], "power nan: expected above 0 and below 1"),
        (["--pairs", "40", "--pairs", "5"], "pairs 5: expected at least 10"),
        (["--transfer", "nan"], "--transfer: expected a finite number"),
        (["--spread", "inf"], "--spread: expected a finite number"),
        (["--gap-spread", "inf"], "--gap-spread: expected a finite number"),
    ],
    ids=["power", "nan", "pairs", "transfer", "spread", "gap-spread"],
)
def test_a_number_that_no_plan_can_use_is_2_before_anything_is_looked_for(
    capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    said = refused(capsys, *STATED, "--claims", "no-such-folder", *options)
    assert said.startswith(f"kv-claims: {reason}")


def test_help_lists_the_commands_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from kv_claims.__main__ import main\n"
        "for arguments in (['--help'], ['plan', '--help'], ['calibrate', '--help']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit as error:\n"
        "        assert error.code == 0, error.code\n"
        "assert not {'torch', 'transformers', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: kv-claims [-h] COMMAND ...")
    for said in ("\n    plan ", "\n    calibrate\n", "--pilot-pairs N", "--network-studies N"):
        assert said in done.stdout


def test_the_module_ends_with_the_status_of_its_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kv_claims", *STATED, "--power", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kv-claims: power 2.0: expected above 0 and below 1\n"
