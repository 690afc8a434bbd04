"""The ledger: every finished trial, one JSON line, appended and flushed as it finishes.

A run that was killed finds its trials here and goes on; likelihoods, answers, and what
self-patches did, are kept the same way, each in a folder of its own. One writer a file (a shard);
all shards of a folder are read. A line that cannot be read is named, copied to `set-aside.txt`, and
what it said run again: it is never silently dropped, and the lines around it are kept. Lines of
another version of the program stay where they are; how many there are is said once. A record that
two shards hold counts once where they agree; where they do not, it is kept among `disagreeing`, and
no verdict may rest on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from kv_claims.errors import UnwritableError, UsageError
from kv_claims.run.answered import Answered
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.self_write import SelfWrite
from kv_claims.run.trial import OtherFieldsError, Trial

SET_ASIDE = "set-aside.txt"
LIKELIHOODS, ANSWERS, SELF_PATCHES = "likelihoods", "answers", "self-patches"
"""The folders, inside a ledger's, of what is kept beside the trials."""


class BadLine(NamedTuple):
    """A line that is no trial, and where it stood."""

    path: Path
    number: int
    why: str

    def __str__(self) -> str:
        return f"{self.path.name} line {self.number}: {self.why}"


class Disagreement(NamedTuple):
    """One record of which two lines say different things, and the lines.

    margin: the smaller of theirs, which is how near a tie they may have parted at.
    """

    study: str
    arm: str
    pair: str
    pair_index: int
    seed: int
    first: str
    second: str
    margin: float

    def __str__(self) -> str:
        return (
            f"arm {self.arm}, pair {self.pair[:12]}, seed {self.seed}: other results in "
            f"{self.second} than in {self.first}"
        )


class Record(Protocol):
    """What a ledger keeps."""

    @property
    def key(self) -> str: ...
    @property
    def study(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def pair(self) -> str: ...
    @property
    def pair_index(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def margin(self) -> float: ...
    def says_the_same(self, other: Self, /) -> bool: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, content: dict[str, Any], /) -> Self: ...


RecordT = TypeVar("RecordT", bound=Record)


class Records(Generic[RecordT]):
    """Records of a folder by key; appends go to one shard. Without a folder, in memory only.

    shared: whether others append to their shards meanwhile, so that a last line of theirs may be
        half written yet.
    read_only: nothing is written, not even what is set aside.
    Raises UsageError when the folder cannot be written.
    """

    def __init__(
        self,
        record: type[RecordT],
        folder: Path | None = None,
        shard: str = "main",
        *,
        shared: bool = False,
        read_only: bool = False,
    ) -> None:
        self.folder = folder
        self.bad_lines: list[BadLine] = []
        self.disagreeing: dict[str, Disagreement] = {}
        self._record = record
        self._found: dict[str, RecordT] = {}
        self._places: dict[str, str] = {}
        self._shard = shard
        self._shared = shared
        self._read_only = read_only
        if folder is not None:
            if not read_only:
                check_writable(folder)
            for path in sorted(folder.glob("*.jsonl")):
                self._read(path, folder)

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> RecordT | None:
        return self._found.get(key)

    def held(self, keys: Sequence[str], what: str) -> list[RecordT]:
        """The records of all these keys, once they were made. what: they are, for the error.

        Raises RuntimeError where some did not come back.
        """
        found = [one for key in keys if (one := self.get(key)) is not None]
        if len(found) < len(keys):
            raise RuntimeError(f"{len(keys) - len(found)} of {len(keys)} {what} did not come back")
        return found

    def all(self) -> Iterable[RecordT]:
        return self._found.values()

    def append(self, records: Iterable[RecordT]) -> None:
        """Keep finished records; on disk when this returns.

        Raises UnwritableError where the disk takes no more; the shard is then as it was.
        """
        records = list(records)
        if self.folder is not None:
            bodies = (
                json.dumps(record.to_dict(), allow_nan=False, ensure_ascii=False)
                for record in records
            )
            lines = "".join(f"{_checksum(body)} {body}\n" for body in bodies)
            _append(self.folder / f"{self._shard}.jsonl", lines.encode())
        self._found.update({record.key: record for record in records})

    def _read(self, path: Path, folder: Path) -> None:
        bad = []
        of_others: list[BadLine] = []
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = self._record.from_dict(_parse(line))
                except OtherFieldsError as error:
                    of_others.append(BadLine(path, number, str(error)))
                    continue
                except (ValueError, RecursionError) as error:
                    if self._shared and not line.endswith("\n") and path.stem != self._shard:
                        continue
                    bad.append((BadLine(path, number, str(error)), line))
                    continue
                held = self._found.setdefault(record.key, record)
                place = f"{path.name} line {number}"
                first = self._places.setdefault(record.key, place)
                if not held.says_the_same(record):
                    why = f"record {record.key[:12]} has other results than one already held"
                    bad.append((BadLine(path, number, why), line))
                    self.disagreeing[record.key] = Disagreement(
                        record.study,
                        record.arm,
                        record.pair,
                        record.pair_index,
                        record.seed,
                        first,
                        place,
                        min(held.margin, record.margin),
                    )
        self.bad_lines += [entry for entry, _ in bad]
        if of_others:
            # Whole, and of no use: another version wrote them. One entry speaks for all.
            more = f" (and {len(of_others) - 1} more such lines)" if len(of_others) > 1 else ""
            self.bad_lines.append(of_others[0]._replace(why=of_others[0].why + more))
        if self._read_only:
            return
        known = _set_aside_before(folder)
        for entry, line in bad:
            content = line.rstrip("\n")
            if content not in known:
                with (folder / SET_ASIDE).open("a", encoding="utf-8") as file:
                    file.write(f"# {entry}\n{content}\n")


class Ledger(Records[Trial]):
    """Trials of a folder by key; beside them likelihoods, answers, and self-patches."""

    def __init__(
        self, folder: Path | None = None, shard: str = "main", *, shared: bool = False
    ) -> None:
        super().__init__(Trial, folder, shard, shared=shared)

        def inside(name: str) -> Path | None:
            return None if folder is None else folder / name

        self.likelihoods = Records(Likelihood, inside(LIKELIHOODS), shard, shared=shared)
        self.answers = Records(Answered, inside(ANSWERS), shard, shared=shared)
        self.self_patches = Records(SelfWrite, inside(SELF_PATCHES), shard, shared=shared)
        for kind in (self.likelihoods, self.answers, self.self_patches):
            self.bad_lines += kind.bad_lines

    def trials(self) -> Iterable[Trial]:
        return self.all()

    @property
    def disagreements(self) -> list[Disagreement]:
        """Records of every kind of which two lines say different things."""
        beside = (self.likelihoods, self.answers, self.self_patches)
        return [each for kind in (self, *beside) for each in kind.disagreeing.values()]


def archive(folder: Path) -> Path | None:
    """Move the shards of a ledger folder into a numbered folder beside them, for a fresh start."""
    places = (folder, *(folder / name for name in (LIKELIHOODS, ANSWERS, SELF_PATCHES)))
    shards = sorted(shard for place in places for shard in place.glob("*.jsonl"))
    if not shards:
        return None
    number = 1
    while (aside := folder / f"before-{number}").exists():
        number += 1
    for shard in shards:
        there = aside / shard.relative_to(folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        shard.rename(there)
    return aside


def check_writable(folder: Path) -> None:
    """Create a folder and make sure that files can be written there; else UsageError."""
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"folder {folder}: cannot be written ({error.strerror}), expected a place for reports"
        ) from error


def _parse(line: str) -> dict[str, Any]:
    checksum, _, body = line.rstrip("\n").partition(" ")
    if checksum != _checksum(body):
        raise ValueError("its checksum does not match its content")
    return msgspec.json.decode(body, type=dict[str, Any])


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _append(path: Path, lines: bytes) -> None:
    """Append whole lines, or nothing; a line that a kill cut off gets its end first.

    Opened for every batch of trials: nothing is left open by whatever ends the run.
    """
    try:
        with path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            try:
                left = memoryview(lines)
                while left:  # a disk that fills up takes a part, and then says so
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise UnwritableError(
            f"{path}: cannot be written ({error.strerror}); what stands in it is whole, and the "
            "same command goes on from there"
        ) from error


def _set_aside_before(folder: Path) -> set[str]:
    path = folder / SET_ASIDE
    if not path.exists():
        return set()
    return set(path.read_text(encoding="utf-8", errors="replace").split("\n"))
