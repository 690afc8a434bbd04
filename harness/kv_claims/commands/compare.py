"""Whether findings moved between two runs: verdicts, paired differences, what else differs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kv_claims.claims.claim import SAME_WITHIN
from kv_claims.errors import UsageError
from kv_claims.files.atomic import replace
from kv_claims.plain import say

NAME = "compare"
HELP = "verdicts and paired differences of two runs; 1 where a verdict changed or something moved"

_OF_A_RUN = ("evidence.json", "trials.parquet", "trials.csv", "report.md")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("first", type=Path, metavar="RUN_A", help="folder that `pytest claims` wrote")
    add(
        "second",
        type=Path,
        nargs="?",
        metavar="RUN_B",
        help="another (claims_out of the project, or reports/latest)",
    )
    add(
        "--margin",
        type=float,
        default=SAME_WITHIN,
        metavar="M",
        help="share of source - base up to which a difference does not matter (%(default)s)",
    )
    add("--out", type=Path, metavar="FILE", help="write what is printed, Markdown")
    add("--json", type=Path, metavar="FILE", help="write everything, JSON")


def run(given: argparse.Namespace) -> int:
    """Print the comparison and write it where asked; 1 where something changed or moved."""
    from kv_claims.commands.project import project_here, run_folder
    from kv_claims.evidence.compare import compare
    from kv_claims.evidence.evidence import to_json
    from kv_claims.evidence.stored import load_run
    from kv_claims.report.comparison import comparison_json, render_comparison

    if given.second is None:
        given.second = run_folder(project_here())
    _check_paths(given)
    first, second = load_run(given.first), load_run(given.second)
    for note in filter(None, (first.note, second.note)):
        say(note, sys.stderr)
    found = compare(first, second, given.margin)
    text = render_comparison(found, first, second)
    if given.out is not None:
        _write(given.out, text)
    if given.json is not None:
        _write(given.json, to_json(comparison_json(found, first, second), indent=1) + "\n")
    say(text.rstrip("\n"))
    return int(not found.holds)


def _check_paths(given: argparse.Namespace) -> None:
    """Raise UsageError for one folder twice, or a file that should not or cannot be written."""
    runs = [folder.resolve() for folder in (given.first, given.second)]
    if runs[0] == runs[1]:
        raise UsageError(f"{given.second}: the same folder twice, expected two runs")
    files = [path for path in (given.out, given.json) if path is not None]
    if len({path.resolve() for path in files}) < len(files):
        raise UsageError(f"{given.json}: --out and --json are the same file")
    for path in files:
        if path.resolve().parent in runs and path.name in _OF_A_RUN:
            raise UsageError(f"{path}: is part of a run that is compared, expected another file")
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"{path}: expected a file in a folder that exists")


def _write(path: Path, content: str) -> None:

    try:
        replace(path, lambda beside: beside.write_text(content, encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
