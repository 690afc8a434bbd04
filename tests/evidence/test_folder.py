"""A run's files appear together: wherever a run is stopped, one whole run stands there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kv_claims.errors import UsageError
from kv_claims.evidence import folder as module
from kv_claims.evidence.folder import (
    EVIDENCE_FILE,
    FILES,
    READY,
    SIGNATURE_FILE,
    STAGING,
    finish,
    locate,
    publish,
    reads_whole,
)
from kv_claims.files.lock import hold

UNSIGNED = tuple(name for name in FILES if name != SIGNATURE_FILE)


class KilledError(BaseException):
    """Stands for a kill: nothing that ran on would run on after it."""


def write(folder: Path, text: str, names: tuple[str, ...] = FILES) -> None:
    with publish(folder) as staging:
        for name in names:
            (staging / name).write_text(f"{text} {name}")


def standing(folder: Path) -> dict[str, str]:
    """What a reader finds of each file, by the run that it is of."""
    found = {}
    for name in FILES:
        path = locate(folder, name)
        found[name] = path.read_text().partition(" ")[0] if path.exists() else "none"
    return found


def in_place(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_are_written_and_nothing_beside(tmp_path: Path) -> None:
    for text in ("first", "second"):
        write(tmp_path, text)
        assert standing(tmp_path) == dict.fromkeys(FILES, text)
        assert in_place(tmp_path) == set(FILES)


def test_a_signature_goes_with_the_evidence_that_it_is_of(tmp_path: Path) -> None:
    write(tmp_path, "first")
    write(tmp_path, "second", UNSIGNED)
    assert standing(tmp_path) == {**dict.fromkeys(FILES, "second"), SIGNATURE_FILE: "none"}
    # Pages that are made again leave it where it is.
    write(tmp_path, "third")
    write(tmp_path, "fourth", ("report.md", "report.html"))
    assert standing(tmp_path)[SIGNATURE_FILE] == "third"


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), KilledError()])
def test_what_fails_while_it_is_written_changes_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    write(tmp_path, "first")

    def write_half() -> None:
        with publish(tmp_path) as staging:
            (staging / EVIDENCE_FILE).write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert in_place(tmp_path) == set(FILES)
    assert standing(tmp_path) == dict.fromkeys(FILES, "first")


def test_what_a_kill_left_of_the_writing_goes_with_the_next(tmp_path: Path) -> None:
    write(tmp_path, "first")
    (tmp_path / f"{STAGING}dead").mkdir()
    (tmp_path / f"{STAGING}dead" / EVIDENCE_FILE).write_text("half")
    assert standing(tmp_path) == dict.fromkeys(FILES, "first")
    write(tmp_path, "second")
    assert in_place(tmp_path) == set(FILES)


@pytest.fixture
def killed_at(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], list[str]]:
    """Kill at the n-th change of names: whatever is removed, renamed or replaced is counted."""

    def arm(n: int) -> list[str]:
        done: list[str] = []
        for name in ("rename", "replace", "unlink"):
            real = getattr(Path, name)

            def counted(self: Path, *args: Any, real: Any = real, **named: Any) -> Any:
                if len(done) == n:
                    raise KilledError
                done.append(self.name)
                return real(self, *args, **named)

            monkeypatch.setattr(Path, name, counted)
        return done

    return arm


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("n", range(8))
def test_wherever_a_kill_falls_a_reader_finds_one_run(
    tmp_path: Path,
    killed_at: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    signed: bool,
) -> None:
    names = FILES if signed else UNSIGNED
    write(tmp_path, "first")
    # A kill cleans nothing up.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    done = killed_at(n)
    try:
        write(tmp_path, "second", names)
    except KilledError:
        assert len(done) == n
    monkeypatch.undo()
    new = {**dict.fromkeys(FILES, "second"), **({} if signed else {SIGNATURE_FILE: "none"})}
    found = standing(tmp_path)
    if not signed and n > 0 and (tmp_path / READY / EVIDENCE_FILE).exists():
        # The old signature may still stand, of evidence that waits to be replaced: see `finish`.
        found[SIGNATURE_FILE] = "none"
    assert found == (dict.fromkeys(FILES, "first") if n == 0 else new)
    for _ in range(2):
        finish(tmp_path)
    assert standing(tmp_path) == (dict.fromkeys(FILES, "first") if n == 0 else new)
    assert in_place(tmp_path) - {f for f in in_place(tmp_path) if f.startswith(STAGING)} <= {*FILES}


def test_a_reader_finishes_what_a_kill_left(tmp_path: Path) -> None:
    write(tmp_path, "first")
    (tmp_path / EVIDENCE_FILE).unlink()
    ready = tmp_path / READY
    ready.mkdir()
    for name in FILES:
        (ready / name).write_text(f"second {name}")
    assert reads_whole(standing)(tmp_path) == dict.fromkeys(FILES, "second")
    assert not ready.exists()


def test_a_reader_that_may_not_write_reads_what_is_ready(tmp_path: Path) -> None:
    write(tmp_path, "first")
    ready = tmp_path / READY
    ready.mkdir()
    for name in FILES:
        (ready / name).write_text(f"second {name}")
    with hold(tmp_path, command="a run"):  # its holder is moving them
        assert reads_whole(standing)(tmp_path) == dict.fromkeys(FILES, "second")
        assert ready.exists()


def test_a_reader_under_whose_hands_a_run_is_replaced_reads_again(tmp_path: Path) -> None:
    write(tmp_path, "first")
    calls: list[str] = []

    def read(folder: Path) -> tuple[str, str]:
        first = (folder / EVIDENCE_FILE).read_text().partition(" ")[0]
        calls.append(first)
        if len(calls) == 1:
            write(folder, "second")
        return first, (folder / "trials.parquet").read_text().partition(" ")[0]

    assert reads_whole(read)(tmp_path) == ("second", "second")
    assert calls == ["first", "second"]


def test_an_error_that_a_replaced_run_caused_is_none(tmp_path: Path) -> None:
    write(tmp_path, "first")
    calls: list[int] = []

    def read(folder: Path) -> str:
        calls.append(1)
        if len(calls) == 1:
            write(folder, "second")
            raise UsageError("files of two runs")
        return "read"

    assert reads_whole(read)(tmp_path) == "read"
    with pytest.raises(UsageError, match=r"^always$"):
        reads_whole(lambda _: fail("always"))(tmp_path)


def fail(why: str) -> None:
    raise UsageError(why)


def test_a_folder_that_never_rests_is_named(tmp_path: Path) -> None:
    write(tmp_path, "first")
    with pytest.raises(UsageError, match="changes while it is read"):
        reads_whole(lambda folder: write(folder, "again"))(tmp_path)


def test_what_is_ready_moves_nothing_but_files_of_a_run(tmp_path: Path) -> None:
    """A folder that somebody sent: names of other files, folders and links stay out of the way."""
    write(tmp_path, "first")
    (tmp_path / "ledger").mkdir()
    ready = tmp_path / READY
    (ready / "ledger").mkdir(parents=True)
    (ready / "conftest.py").write_text("evil")
    (ready / "report.md").mkdir()
    finish(tmp_path)
    assert in_place(tmp_path) == {*FILES, "ledger"}
    assert standing(tmp_path) == dict.fromkeys(FILES, "first")


def test_files_are_on_the_disk_before_they_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(module.os, "fsync", fsync)
    write(tmp_path, "first")
    staged = synced[: len(FILES) + 1]
    assert {*FILES} <= {*staged}
    assert staged[-1].startswith(STAGING)
