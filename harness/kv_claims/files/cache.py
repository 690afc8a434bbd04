"""What is fetched or made once and used again: a folder of the user's, outside any project.

That is $KV_CLAIMS_CACHE, else `kv-claims` in $XDG_CACHE_HOME, else `~/.cache/kv-claims`.
Promises: a folder in it is whole or not there, as it is written under another name, put onto the
disk and renamed; of processes that want the same one, one writes and the others wait. Does not:
take anything away again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kv_claims.errors import UsageError
from kv_claims.files.lock import hold

VARIABLE = "KV_CLAIMS_CACHE"
_LONGEST_WAIT = 3600.0
"""Seconds in which another process writes what this one waits for."""
_SPARE = 16 << 20


def cache_folder() -> Path:
    """The cache, there or not."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "kv-claims"


def sha256(path: Path) -> str:
    """Of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def once(folder: Path, size: int, write: Callable[[Path], None]) -> Path:
    """A folder of the cache, written where it is not there yet.

    size: bytes that it takes, about. write: is given an empty folder to write into.
    Raises UsageError where there is no room, or where the cache cannot be written.
    """
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with hold(folder.parent, command=f"{folder.name}", shard=folder.name, wait=_LONGEST_WAIT):
            if folder.is_dir():
                return folder
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            _check_room(folder.parent, size)
            part.mkdir()
            try:
                write(part)
                for path in [*part.rglob("*"), part]:
                    _put_onto_the_disk(path)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"cache folder {folder.parent}: cannot be written ({error.strerror or error}); make "
            f"room there, or give another by {VARIABLE}"
        ) from error
    return folder


def _check_room(place: Path, size: int) -> None:
    free = shutil.disk_usage(place).free
    if free < size + _SPARE:
        raise UsageError(
            f"cache folder {place}: has {free / 1e6:.0f} MB left, and {size / 1e6:.0f} MB are "
            f"wanted; make room there, or give another by {VARIABLE}"
        )


def _put_onto_the_disk(path: Path) -> None:
    """So that a rename never outlives what is renamed, whatever happens to the machine."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
