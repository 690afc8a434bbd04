"""Write a project to start from: one claim, its task, pytest's settings, and a workflow that runs
the claims. Nothing that is there is written over."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

from kv_claims import __version__
from kv_claims.errors import UsageError
from kv_claims.plain import say

NAME = "init"
HELP = "write a claim, a task, settings and a workflow to start from; overwrites nothing"

_STARTER = Path(__file__).with_name("starter")
_SETTINGS = "pytest.toml"
_FILES = {
    "claims/test_register.py": "test_register.py",
    "claims/tasks/kitchen_or_harbor.yaml": "kitchen_or_harbor.yaml",
    "claims/README.md": "README.md",
    ".github/workflows/claims.yml": "claims.yml",
    _SETTINGS: _SETTINGS,
}
"""Where each file goes, and what it is here."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="of the project, there or not (default: this one)",
    )


def run(given: argparse.Namespace) -> int:
    """Write the files, and say what to do with them; 0."""
    folder: Path = given.folder
    try:
        settings = _settings_in(folder)
        names = [name for name in _FILES if name != _SETTINGS or not settings]
        _check(folder, names)
        _write(folder, names)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written ({error.strerror})") from error
    if settings:
        say(
            f"{settings} has settings of pytest, which a {_SETTINGS} would hide; put these there:\n"
            + "\n".join(f"    {line}" for line in _keys(settings))
        )
    say(f"try it: {'' if folder == Path() else f'cd {folder} && '}pytest claims")
    return 0


def _write(folder: Path, names: list[str]) -> None:
    texts = {name: (_STARTER / here).read_text("utf-8") for name, here in _FILES.items()}
    texts[".github/workflows/claims.yml"] = texts[".github/workflows/claims.yml"].replace(
        "{version}", __version__
    )
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(texts[name])
        say(f"written: {path}")


def _check(folder: Path, names: list[str]) -> None:
    """Raise UsageError for files that are there already, and for what can be no folder."""
    taken = [name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
    if taken:
        raise UsageError(
            f"init {folder}: already there: {', '.join(taken)}; nothing was written, expected a "
            "folder without them"
        )
    for place in {folder, *(folder / above for name in names for above in Path(name).parents)}:
        if place.exists() and not place.is_dir():
            raise UsageError(f"init {folder}: {place} is a file, expected a folder")


def _settings_in(folder: Path) -> Path | None:
    """The file of a folder where pytest finds its settings, other than ours; None where none is."""
    from kv_claims.commands.project import project_here

    if not folder.is_dir():
        return None
    found = project_here(folder).file
    if found is None or found.name == _SETTINGS or found.parent != folder.resolve():
        return None
    if found.name == "pyproject.toml":
        # pytest takes one without settings of its own for the mark of a project's root.
        content = tomllib.loads(found.read_text("utf-8"))
        return found if "pytest" in content.get("tool", {}) else None
    return found


def _keys(settings: Path) -> list[str]:
    """Our keys with the starter's values, as a file of settings has them."""
    lines = (_STARTER / _SETTINGS).read_text("utf-8").splitlines()
    keys = [line for line in lines if line.startswith("claims_")]
    return keys if settings.suffix == ".toml" else [re.sub(r'["\[\]]', "", key) for key in keys]
