"""One writer a folder: a lock that says who holds it.

The kernel keeps the lock (`filelock`), so it ends when its holder does, however that ends: a stale
one needs no breaking. `.lock` stays in the folder for good, as a file that is taken away is no lock
for whoever waits on it; `.writer` beside it says who writes, and goes with the writer. A lock is
advice: only what asks for it is kept out. Readers never ask.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kv_claims.errors import UsageError

LOCK, WRITER = ".lock", ".writer"
ORPHANS_END = 30.0
"""Seconds in which the workers of a killed run end by themselves."""


@contextmanager
def hold(folder: Path, *, command: str, shard: str = "", wait: float = 0.0) -> Iterator[None]:
    """Be the one writer of a folder, or of one shard in it.

    command: what is run, for whoever finds the folder taken. wait: seconds to wait for another.
    Raises UsageError, naming the writer, where another holds it, and where it cannot be written.
    """
    lock = FileLock(folder / f".{shard}{LOCK}" if shard else folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise UsageError(
            f"folder {folder}: {writer_of(folder, shard)} is writing it, expected one writer a "
            "folder: let it end, or give another folder"
        ) from None
    except OSError as error:
        raise UsageError(
            f"folder {folder}: cannot be written ({error.strerror}), expected a place for reports"
        ) from error
    note = _note(folder, shard)
    try:
        with suppress(OSError):  # the lock holds without it
            note.write_text(json.dumps(_me(command)), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


@contextmanager
def hold_ledger(folder: Path, *, command: str) -> Iterator[None]:
    """Be the one writer of a ledger's folder; workers of one's own then hold a shard each.

    Workers outlive a controller that was killed by some seconds, and go on to append: they are
    waited for.
    """
    with hold(folder, command=command):
        for path in sorted(folder.glob(f".?*{LOCK}")):
            with hold(
                folder, command=command, shard=path.name[1:].removesuffix(LOCK), wait=ORPHANS_END
            ):
                pass
        yield


def writer_of(folder: Path, shard: str = "") -> str:
    """Who writes a folder, in words: what its note says, as far as there is one."""
    try:
        found = json.loads(_note(folder, shard).read_text(encoding="utf-8"))
        since = f"since {found['since']}: {found['command']}"
        told = f"process {found['pid']} on {found['host']} ({since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    # Whoever may write into the folder may have written the note.
    return "".join(c if c.isprintable() else "?" for c in told)[:400]


def _note(folder: Path, shard: str) -> Path:
    return folder / (f".{shard}{WRITER}" if shard else WRITER)


def _me(command: str) -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
    }
