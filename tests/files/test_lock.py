"""One writer a folder, whoever they are and however the last one ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.files.lock import LOCK, WRITER, hold, hold_ledger, writer_of
from tests.processes import inherited

HOLDER = """
import sys, time
from pathlib import Path
from kv_claims.files.lock import hold
with hold(Path(sys.argv[1]), command="pytest claims", shard=sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def other_process(folder: Path, shard: str = "") -> subprocess.Popen[str]:
    """A process that holds a folder until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), shard],
        stdout=subprocess.PIPE,
        text=True,
        env=inherited(),
    )
    assert process.stdout is not None
    with process.stdout as told:
        assert told.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = other_process(tmp_path)
    try:
        with (
            pytest.raises(UsageError, match="expected one writer a folder") as refused,
            hold(tmp_path, command="mine"),
        ):
            pass
        assert f"process {first.pid} on " in str(refused.value)
        assert "pytest claims)" in str(refused.value)
        assert "\n" not in str(refused.value)
        # A refused one takes nothing away from the first.
        assert json.loads((tmp_path / WRITER).read_text())["pid"] == first.pid
    finally:
        first.kill()
        first.wait()


def test_a_lock_ends_with_its_holder_however_it_ends(tmp_path: Path) -> None:
    first = other_process(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert (tmp_path / WRITER).exists()  # what it left says nothing
    with hold(tmp_path, command="mine"):
        assert json.loads((tmp_path / WRITER).read_text())["command"] == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_process_does_not_hold_a_folder_twice(tmp_path: Path) -> None:
    with (
        hold(tmp_path, command="first"),
        pytest.raises(UsageError, match="first"),
        hold(tmp_path, command="second"),
    ):
        pass
    with hold(tmp_path, command="third"):
        pass


def test_shards_of_a_folder_have_a_writer_each(tmp_path: Path) -> None:
    with (
        hold(tmp_path, command="a"),
        hold(tmp_path, command="b", shard="gw0"),
        hold(tmp_path, command="c", shard="gw1"),
        pytest.raises(UsageError, match=r": b\) is writing"),
        hold(tmp_path, command="d", shard="gw0"),
    ):
        pass


def test_the_workers_of_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    orphan = other_process(tmp_path, "gw0")
    threading.Timer(1.0, orphan.kill).start()
    with hold_ledger(tmp_path, command="next"):
        assert orphan.wait(timeout=5) == -signal.SIGKILL


def test_workers_that_do_not_end_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kv_claims.files.lock.ORPHANS_END", 0.1)
    orphan = other_process(tmp_path, "gw0")
    try:
        with (
            pytest.raises(UsageError, match=f"process {orphan.pid} on "),
            hold_ledger(tmp_path, command="next"),
        ):
            pass
    finally:
        orphan.kill()
        orphan.wait()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="cannot be written") as refused,
        hold(tmp_path / "file" / "out", command="mine"),
    ):
        pass
    assert "expected a place for reports" in str(refused.value)


@pytest.mark.parametrize("note", ["", "no JSON", "[]", "{}", "\x00", '{"pid": 1}'])
def test_a_note_that_says_nothing_is_another_process(tmp_path: Path, note: str) -> None:
    (tmp_path / WRITER).write_text(note)
    assert writer_of(tmp_path) == "another process"


def test_what_a_note_says_reaches_no_terminal_raw(tmp_path: Path) -> None:
    note = {"pid": 1, "host": "a\x1b[2J\nb", "since": "\u202e", "command": "x" * 5000}
    (tmp_path / WRITER).write_text(json.dumps(note))
    told = writer_of(tmp_path)
    assert told.isprintable()
    assert len(told) <= 400
