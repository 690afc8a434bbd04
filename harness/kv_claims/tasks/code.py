"""Where code that a task names may come from, and how it is found and imported.

Promises: nothing is run to find a module, not even the packages that it is in; only a file below
the project's root, or of an installed package, is imported, and none below a folder of others; what
was imported is the file that was hashed. Does not: watch what the code does, nor hash what it
imports in its turn.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from kv_claims.errors import UsageError


@dataclass(frozen=True)
class CodeFrom:
    """root: of the project whose code may be imported. not_below: folders inside it that are not
    the project's own, such as a run that is replayed."""

    root: Path
    not_below: tuple[Path, ...] = ()

    def is_of_others(self, path: Path) -> bool:
        """Whether a file lies in a folder of others."""
        return _is_below(path, self.not_below)


@dataclass(frozen=True)
class Source:
    """A module's file, the hash of its bytes, and the folder that it is imported from."""

    module: str
    file: Path
    sha: str
    entry: str


def find_source(module: str, code: CodeFrom) -> Source:
    """Where a module's source is, which is not run. Raises UsageError where it may not be there."""
    entry, file = _found(module, _entries(code.root))
    may = f"expected a module below {code.root} or of an installed package"
    if file is None:
        raise UsageError(f"no module {module!r}, {may}")
    if file.suffix != ".py":
        raise UsageError(f"module {module!r} is {file}, expected Python source, which is hashed")
    if code.is_of_others(file):
        raise UsageError(
            f"module {module!r} is {file}, in the folder of what is replayed, {may}; "
            "--claims-allow-code imports it"
        )
    if not _is_below(file, (code.root, *_INSTALLED)):
        raise UsageError(f"module {module!r} is {file}, {may}")
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    if (first := _first_sha(file, sha)) != sha:
        raise UsageError(
            f"{file}: edited while this process runs ({first[:16]}, now {sha[:16]}); run it again"
        )
    return Source(module, file, sha, entry)


def imported(source: Source) -> ModuleType:
    """The module of a source. Raises UsageError where it cannot be imported, or is another's."""
    with _on_path(source.entry):
        try:
            found = import_module(source.module)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"importing {source.file} raises {type(error).__name__}: {error}"
            ) from error
    own = Path(getattr(found, "__file__", None) or "").resolve()
    if own != source.file:
        raise UsageError(
            f"module {source.module!r} is {own} in this process, expected {source.file}; expected "
            "a name that no other module has"
        )
    return found


_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


def _entries(root: Path) -> list[str]:
    """Of what modules are looked for in, in its order, what may be imported from; then the root."""
    allowed = [one for one in sys.path if one and _is_below(Path(one), (root, *_INSTALLED))]
    return list(dict.fromkeys([*allowed, str(root.resolve())]))


def _found(module: str, entries: list[str]) -> tuple[str, Path | None]:
    """The entry and the file of a module; no file where there is none."""
    for entry in entries:
        places, spec = [entry], None
        parts = module.split(".")
        for n in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:n]), places)
            if spec is None:
                break
            places = list(spec.submodule_search_locations or [])
        if spec is not None and spec.has_location and spec.origin:
            return entry, Path(spec.origin).resolve()
    return "", None


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder.resolve()) for folder in folders)


@contextmanager
def _on_path(entry: str) -> Iterator[None]:
    """The folder among those that modules are looked for in, behind all others, for a while."""
    if entry in sys.path:
        yield
        return
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


_SHAS: dict[Path, str] = {}


def _first_sha(file: Path, sha: str) -> str:
    """The hash that a file had when this process first looked: what is imported is that."""
    return _SHAS.setdefault(file, sha)
