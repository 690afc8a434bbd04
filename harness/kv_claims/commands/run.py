"""Run claims: pytest, with `--model`, `--task`, `--pairs` ... for `--claims-model` and so on. With
--seed-claims: the claims of the seed experiment, which come with kv-claims, from any folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

NAME = "run"
HELP = "pytest, its options for claims in their short forms; --seed-claims: the shipped claims"

_SEED_CLAIMS = "--seed-claims"
_PLUGINS = ("-p", "kv_claims.plugin.hooks", "-p", "kv_claims.plugin.short_options")
_SETTINGS = Path(__file__).with_name("no_settings.toml")
"""Where there are none: pytest would look for some beside the shipped claims."""
_OWN = (
    "addopts=--import-mode=importlib",
    "python_files=test_*.py",
    "python_functions=test",
    "filterwarnings=",
    "required_plugins=",
    "usefixtures=",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """For its help alone: what is given goes to pytest as it is."""
    parser.add_argument(
        _SEED_CLAIMS,
        action="store_true",
        help="run the shipped claims; reports go to this folder's project, pins are its own",
    )
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENTS", help="of pytest")


def run(given: argparse.Namespace) -> int:
    """pytest's own exit status. given: `arguments`, as they were typed."""
    import pytest

    arguments = [one for one in given.arguments if one != _SEED_CLAIMS]
    if len(arguments) < len(given.arguments):
        arguments = [*_seed_claims(), *arguments]
    main: Callable[..., int | pytest.ExitCode] = pytest.main
    return int(main([*_PLUGINS, *arguments]))


def _seed_claims() -> list[str]:
    """What makes pytest run the shipped claims as if they lay in the project of this folder.

    What the project says of claims holds. What it says of its own tests would not fit these.
    """
    from kv_claims.commands.project import project_here
    from kv_claims.files.shipped import shipped

    project, folder = project_here(), shipped()
    return [
        str(folder),
        f"-c{project.file or _SETTINGS}",
        f"--rootdir={project.root}",
        # Else pytest walks there from the project, and into no environment that lies in it.
        f"--confcutdir={folder}",
        *(f"-o{setting}" for setting in _OWN),
    ]
