"""Write the reports of a stored run again, and its figures for a paper."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kv_claims.errors import UsageError
from kv_claims.plain import say

NAME = "report"
HELP = (
    "write report.html and report.md of a stored run again; --figures: SVG and PDF of each figure"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "run_folder",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="folder that `pytest claims` wrote (claims_out of the project, or reports/latest)",
    )
    add("--figures", type=Path, metavar="DIR", help="also write every figure here, SVG and PDF")


def run(given: argparse.Namespace) -> int:
    """Write the files into the run's folder, and say where they are; 0."""
    from kv_claims.commands.project import project_here, run_folder
    from kv_claims.evidence.stored import load_run
    from kv_claims.plugin.write import write_again
    from kv_claims.report.render import save_figures

    if given.run_folder is None:
        given.run_folder = run_folder(project_here())
    stored = load_run(given.run_folder)
    if stored.note:
        say(stored.note, sys.stderr)
    if given.figures is not None:
        _check_folder(given.figures)
    try:
        write_again(stored)
        say(f"{given.run_folder / 'report.html'}, report.md")
        if given.figures is not None:
            given.figures.mkdir(exist_ok=True)
            paths = save_figures(stored, given.figures)
            say(f"{given.figures}: {len(paths)} files" if paths else "no figure: nothing to draw")
    except OSError as error:
        place = error.filename or given.run_folder
        raise UsageError(f"{place}: cannot be written ({error.strerror})") from error
    return 0


def _check_folder(folder: Path) -> None:
    if folder.is_file() or not folder.resolve().parent.is_dir():
        raise UsageError(f"--figures {folder}: expected a folder, or a new one in one that exists")
