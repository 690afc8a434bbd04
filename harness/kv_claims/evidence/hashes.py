"""Whether a run's files are as the run wrote them: hashes of all of them, kept in `evidence.json`.

`files` has the SHA-256 of each file beside it, `sha` that of its own content without `sha`. Trials
also carry the id of their run, so that files of two runs are told from one that was edited.
What hashes do not show: an edit by somebody who makes them again. That takes a signature
(`kv_claims.evidence.signing`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow.parquet

from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import to_json
from kv_claims.evidence.folder import CSV_FILE, EVIDENCE_FILE, REPORT_FILES, TRIALS_FILE, locate

LIKELIHOODS, ANSWERS = "ledger/likelihoods", "ledger/answers"
"""Under these names of `files`: those that evidence rests on, wherever they stand there."""
Fed = Literal["likelihoods", "answers"]
"""What is kept in the ledger alone, and under this name counted in evidence."""
RUN_KEY = b"kv_claims.run"
"""Under this key of its metadata a table of trials names its run."""


class Integrity(NamedTuple):
    """How a run's files stand to its hashes. edited: names; hashed: whether there are hashes.

    pages: reports that are not as they were written; they may have been made again.
    likelihoods, answers: the hash of those that evidence rests on, which stand in the ledger.
    """

    edited: tuple[str, ...] = ()
    hashed: bool = True
    pages: tuple[str, ...] = ()
    likelihoods: str | None = None
    answers: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.hashed and not self.edited

    def __str__(self) -> str:
        if not self.hashed:
            return f"{EVIDENCE_FILE} has no hashes: nothing shows that no file was edited"
        return f"edited since the run: {', '.join(self.edited)}" if self.edited else ""


WHOLE = Integrity()


def integrity(folder: Path, content: Mapping[str, Any]) -> Integrity:
    """Hold the files of a folder against the hashes in its evidence.

    Raises UsageError for trials of another run than the evidence.
    """
    run, files = content.get("run"), content.get("files")
    of_evidence = str(run.get("id")) if isinstance(run, dict) else "None"
    of_trials = _run_in(locate(folder, TRIALS_FILE))
    if of_trials is not None and of_trials != of_evidence:
        raise UsageError(
            f"{folder}: files of two runs, {EVIDENCE_FILE} of {of_evidence[:40]} and {TRIALS_FILE} "
            f"of {of_trials[:40]}; expected those of one"
        )
    if not isinstance(files, dict) or "sha" not in content:
        return Integrity(hashed=False)

    def differing(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(n for n in names if files.get(n) != sha_of_file(locate(folder, n)))

    own = (EVIDENCE_FILE,) if content["sha"] != content_sha(content) else ()
    return Integrity(
        (*own, *differing((TRIALS_FILE, CSV_FILE))),
        pages=differing(REPORT_FILES),
        likelihoods=files.get(LIKELIHOODS),
        answers=files.get(ANSWERS),
    )


def content_sha(content: Mapping[str, Any]) -> str:
    """SHA-256, hex, over evidence but its own `sha`, as JSON with sorted keys."""
    stated = {name: value for name, value in content.items() if name != "sha"}
    text = to_json(stated, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def sha_of_file(path: Path) -> str | None:
    """SHA-256 of a file, hex; None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


class Measured(Protocol):
    """A likelihood or an answer, as the ledger has it."""

    @property
    def study(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def pair_index(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def to_dict(self) -> dict[str, Any]: ...


def fed_sha(
    evidence: Iterable[Mapping[str, Any]], fed: Fed, records: Iterable[Measured]
) -> str | None:
    """SHA-256, hex, over likelihoods, or answers, that evidence rests on; None where on none."""
    most: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in evidence:
        if one.get(fed):
            for arm in one["arms"].values():
                most.setdefault((one["study"], arm), []).append((one["pairs"], one["seeds"]))
    if not most:
        return None
    lines = sorted(
        to_json(found.to_dict(), sort_keys=True)
        for found in records
        if any(
            found.pair_index < pairs and found.seed < seeds
            for pairs, seeds in most.get((found.study, found.arm), ())
        )
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _run_in(path: Path) -> str | None:
    """The run that a table of trials names; None where it names none, or cannot be read."""
    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    except (OSError, ValueError):  # pyarrow's own errors are of these kinds
        return None
    return metadata[RUN_KEY].decode(errors="replace") if RUN_KEY in metadata else None
