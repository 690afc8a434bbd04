"""Folders of the cache: written once, whole or not at all, whoever wants them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kv_claims.errors import UsageError
from kv_claims.files.cache import VARIABLE, cache_folder, once

WRITES = """
import os, sys, time
from pathlib import Path
from kv_claims.files.cache import once
folder, log, ends = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def write(part):
    (part / "a").write_text("half")
    with log.open("a") as file:
        file.write("written\\n")
    time.sleep(0.5)
    if ends == "killed":
        os._exit(9)
    (part / "b").write_text("whole")
once(folder, 0, write)
assert (folder / "b").read_text() == "whole"
"""


def start(folder: Path, log: Path, ends: str = "well") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITES, str(folder), str(log), ends])


def test_of_several_processes_one_writes_and_all_find_it_whole(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache/one", tmp_path / "log"
    processes = [start(folder, log) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert log.read_text() == "written\n"


def test_what_a_killed_process_left_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache/one", tmp_path / "log"
    assert start(folder, log, "killed").wait(60) == 9
    assert not folder.exists()
    assert once(folder, 0, lambda part: (part / "c").touch()) == folder
    assert [path.name for path in folder.iterdir()] == ["c"]


def test_a_failure_keeps_nothing_and_is_told_as_it_is(tmp_path: Path) -> None:
    def fails(part: Path) -> None:
        (part / "a").touch()
        raise UsageError("no")

    with pytest.raises(UsageError, match=r"^no$"):
        once(tmp_path / "one", 0, fails)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cache_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=30_000_000))
    with pytest.raises(UsageError, match=rf"has 30 MB left, and 50 MB are wanted.*{VARIABLE}"):
        once(tmp_path / "one", 50_000_000, lambda _: pytest.fail("written"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file/cache", Path("/proc/cache")):
        with pytest.raises(UsageError, match=rf"{place}: cannot be written .*{VARIABLE}"):
            once(place / "one", 0, lambda _: None)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache/kv-claims"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "kv-claims"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
