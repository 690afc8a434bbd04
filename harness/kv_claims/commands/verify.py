"""Whether a stored run is as it was written, and by whom it was signed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kv_claims.plain import say

if TYPE_CHECKING:
    from kv_claims.evidence.stored import StoredRun

NAME = "verify"
HELP = "whether a run's files are as it wrote them, and who signed them; 1 where not"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_folder", type=Path, metavar="RUN", help="folder that `pytest claims` wrote")
    add("--key", type=Path, metavar="PUB.pem", help="the public key that it must be signed by")


def run(given: argparse.Namespace) -> int:
    """Print what holds, a line each; 0 where all does, 1 where not."""
    good = True
    for line, holds in (*_files(given.run_folder), *_signature(given.run_folder, given.key)):
        say(line)
        good = good and holds
    return int(not good)


class _Line(NamedTuple):
    said: str
    holds: bool = True


def _files(folder: Path) -> Iterator[_Line]:
    """Every file against its hash."""
    from kv_claims.evidence.cost import incomplete_text
    from kv_claims.evidence.folder import CSV_FILE, EVIDENCE_FILE, REPORT_FILES, TRIALS_FILE
    from kv_claims.evidence.stored import load_run
    from kv_claims.replay.run import integrity_of, read_answers, read_likelihoods

    stored = load_run(folder)
    found = integrity_of(stored, read_likelihoods(folder), read_answers(folder))
    if found.hashed:
        # A page that was made again, by this version, is as good as the one that the run made.
        pages = [name for name in found.pages if not _is_made_again(stored, name)]
        found = found._replace(edited=(*found.edited, *pages))
    whole = f"whole: {', '.join((EVIDENCE_FILE, TRIALS_FILE, CSV_FILE, *REPORT_FILES))}"
    yield _Line(str(found) or whole, found.is_whole)
    if told := incomplete_text(stored.run):
        yield _Line(told)


def _is_made_again(stored: StoredRun, name: str) -> bool:
    """Whether a page is what this version makes of the stored evidence and trials."""
    from jinja2 import UndefinedError

    from kv_claims.evidence.folder import locate
    from kv_claims.report.render import render_reports

    try:
        return locate(stored.folder, name).read_bytes() == render_reports(stored)[name].encode()
    except (OSError, KeyError, TypeError, UndefinedError):  # the latter of evidence that was edited
        return False


def _signature(folder: Path, key: Path | None) -> Iterator[_Line]:
    """By whom the evidence, and so all that it has the hashes of, is signed."""
    from kv_claims.evidence.folder import EVIDENCE_FILE, SIGNATURE_FILE, locate

    signature = locate(folder, SIGNATURE_FILE)
    if not signature.is_file():
        yield _Line("not signed", key is None)
        return
    from kv_claims.evidence.signing import fingerprint_in, signed_by

    found = signed_by(locate(folder, EVIDENCE_FILE).read_bytes(), signature)
    wanted = None if key is None else fingerprint_in(key)
    if not found.fits:
        yield _Line(f"the signature, by {found.fingerprint}, is not of this {EVIDENCE_FILE}", False)
    elif wanted is None:
        yield _Line(f"signed by {found.fingerprint} (a key that you did not name)")
    elif found.fingerprint == wanted:
        yield _Line(f"signed by {found.fingerprint} (the key you gave)")
    else:
        yield _Line(f"signed by {found.fingerprint}, not by the key you gave ({wanted})", False)
