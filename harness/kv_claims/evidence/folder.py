"""A run's folder: its files appear together, or none of them does.

Files are written into `.staging-ID`, brought to the disk, and the folder is renamed to `.ready`:
from that moment the new run stands. Then each is moved to its place, evidence and its signature
last. Whoever writes next, and whoever reads and may write, first finishes a `.ready` that a kill
left; whoever may not write reads from it. A kill before the rename leaves the former run whole.

What it does not promise: that a program which knows nothing of `.ready` sees no mixture in the
milliseconds of the moves, or after a kill in them until the folder is opened again. Such a mixture
shows: `kv_claims.evidence.hashes` tells files of two runs apart.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TypeVar

from kv_claims.errors import UsageError
from kv_claims.files.lock import hold

EVIDENCE_FILE, TRIALS_FILE, CSV_FILE = "evidence.json", "trials.parquet", "trials.csv"
SIGNATURE_FILE = "evidence.json.sig"
REPORT_FILES = ("report.html", "report.md")
FILES = (CSV_FILE, TRIALS_FILE, *REPORT_FILES, EVIDENCE_FILE, SIGNATURE_FILE)
"""All that a run may leave beside its ledger, in the order in which it is moved into place."""
READY, STAGING = ".ready", ".staging-"
Read = TypeVar("Read")


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """A folder to write files of `FILES` into; they appear together when the block ends well.

    Otherwise nothing of the former run has changed. For the one who holds the folder (`lock`).
    Raises UsageError where a folder stands in the place of a file.
    """
    finish(folder)
    for name in FILES:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name}: is a folder, expected no file or one of a run")
    for left in folder.glob(f"{STAGING}*"):
        shutil.rmtree(left)
    staging = folder / f"{STAGING}{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            _to_disk(path)
        _to_disk(staging)
        staging.rename(folder / READY)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _to_disk(folder)
    finish(folder)


def finish(folder: Path) -> None:
    """Move what is ready into its place; it does not matter how often, or from where on."""
    ready = folder / READY
    if not ready.is_dir():
        return
    waiting = [name for name in FILES if (ready / name).is_file()]
    # The signature goes last: evidence that waits without one has none.
    if EVIDENCE_FILE in waiting and SIGNATURE_FILE not in waiting:
        (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    for name in waiting:
        (ready / name).replace(folder / name)
    _to_disk(folder)
    shutil.rmtree(ready)


def locate(folder: Path, name: str) -> Path:
    """Where a file of a run stands: in its place, or still ready to be moved there."""
    waiting = folder / READY / name
    return waiting if waiting.is_file() else folder / name


def reads_whole(read: Callable[[Path], Read]) -> Callable[[Path], Read]:
    """Let a function that reads a run's folder read one run, though another may be published.

    It is called again when the files were replaced under its hands.
    """

    @wraps(read)
    def whole(folder: Path) -> Read:
        _finish_if_allowed(folder)
        for _ in range(5):
            before = _identity(folder)
            try:
                found = read(folder)
            except (UsageError, OSError):
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return found
        raise UsageError(f"folder {folder}: it changes while it is read, expected a run that ended")

    return whole


def _finish_if_allowed(folder: Path) -> None:
    if (folder / READY).is_dir():
        with suppress(UsageError, OSError), hold(folder, command="reading"):
            finish(folder)


def _identity(folder: Path) -> list[tuple[str, int, int]]:
    """Which files of a run stand there, and where: a path that was looked up holds as long."""
    found = []
    for place in (folder, folder / READY):
        for name in FILES:
            with suppress(OSError):
                stat = (place / name).stat()
                found.append((str(place / name), stat.st_ino, stat.st_mtime_ns))
    return found


def _to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; where folders cannot be, not."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
