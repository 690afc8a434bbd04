"""Files that are too large for one transfer, cut into parts and put together again, with hashes.

`parts.json` beside them says of every file its parts in order, its size and its SHA-256; what was
not cut is one part. A part that is missing or other than it was is named, and nothing is joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.files.atomic import replace
from kv_claims.files.cache import sha256

NAME = "parts.json"
_BLOCK = 1 << 20


def cut(files: Sequence[Path], into: Path, most_bytes: int) -> dict[str, Any]:
    """Move files into a folder in parts of at most so many bytes; returns what `parts.json` has.

    Each file is removed once its parts are written: two copies of a large one need not fit.
    """
    into.mkdir(parents=True, exist_ok=True)
    listed: dict[str, Any] = {}
    for file in files:
        size, sha = file.stat().st_size, sha256(file)
        count = max(1, -(-size // most_bytes))
        names = [file.name] if count == 1 else [f"{file.name}.{n:03d}" for n in range(count)]
        with file.open("rb") as whole:
            parts = []
            for name in names:
                beside = into / f".{name}.part"
                with beside.open("wb") as part:
                    for block in _blocks(whole, most_bytes):
                        part.write(block)
                parts.append({"name": name, "bytes": beside.stat().st_size, "sha": sha256(beside)})
        file.unlink()
        for name in names:
            (into / f".{name}.part").replace(into / name)
        listed[file.name] = {"bytes": size, "sha": sha, "parts": parts}
    text = json.dumps(listed, indent=1) + "\n"
    replace(into / NAME, lambda beside: beside.write_text(text, encoding="utf-8"))
    return listed


def joined(folder: Path, into: Path) -> list[Path]:
    """Every file that `parts.json` lists, whole and checked; the parts stay as they are.

    A file of one part is taken where it lies; others are written into `into`, unless they are
    there already. Raises UsageError for a part that is missing or damaged, naming it.
    """
    listed = _listed(folder)
    found = []
    for name, about in listed.items():
        parts = [folder / part["name"] for part in about["parts"]]
        for path, part in zip(parts, about["parts"], strict=True):
            if not path.is_file():
                raise UsageError(f"{path}: not there, a part of {name}; bring it along")
            if path.stat().st_size != part["bytes"] or sha256(path) != part["sha"]:
                raise UsageError(f"{path}: damaged, a part of {name}; bring it along again")
        if len(parts) == 1:
            found.append(parts[0])
            continue
        whole = into / name
        if not (whole.is_file() and sha256(whole) == about["sha"]):
            into.mkdir(parents=True, exist_ok=True)
            replace(whole, lambda beside, parts=parts: _join(parts, beside))  # type: ignore[misc]
            if sha256(whole) != about["sha"]:
                whole.unlink()
                raise UsageError(f"{whole}: its parts make another file; {folder / NAME} is wrong")
        found.append(whole)
    return found


def _listed(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        for name, about in listed.items():
            for part in [name, *(part["name"] for part in about["parts"])]:
                if Path(part).name != part:
                    raise UsageError(f"{path}: {part!r} leaves the folder, expected a file's name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path}: no list of parts ({error}); `make gpu-pack` writes it"
        ) from error
    return dict(listed)


def _blocks(file: Any, most: int) -> Iterator[bytes]:
    while most and (block := file.read(min(_BLOCK, most))):
        most -= len(block)
        yield block


def _join(parts: Sequence[Path], into: Path) -> None:
    with into.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                for block in _blocks(file, part.stat().st_size):
                    whole.write(block)
