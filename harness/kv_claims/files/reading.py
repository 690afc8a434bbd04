"""Reading what others wrote: whole, of bounded size, and of the types that are named.

Files that are stored (a run's evidence, pins, a table's description) come back from other versions,
other people and broken disks. What is read here is a plain file of a size that memory holds, JSON
as the standard has it (no NaN, no number that no float holds, no key twice, no deep nesting), and
of the types that it is asked for, so that code behind it checks none of this again. What is wrong
is one UsageError that says where; it never quotes more than a few escaped characters.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from kv_claims.errors import UsageError

MOST_BYTES = 512 * 2**20
"""Of a file of text. The evidence of 200 cells has 3 MB."""
MOST_NESTED = 40
"""Levels of lists and objects. Evidence has 9."""
_SHOWN = 60
_STEP = re.compile(r"\.\w+|\[\d+\]|\[\.\.\.\]")

Count = Annotated[int, Meta(ge=0, le=2**53)]
"""How many, or which: what every reader of JSON holds exactly."""
Number = Annotated[float, Meta(ge=-1e150, le=1e150)]
"""A number that can be squared. JSON has neither NaN nor infinity."""

Kind = TypeVar("Kind")


def read_bytes(path: Path, expected: str = "", *, where: str = "", most: int = MOST_BYTES) -> bytes:
    """The content of a plain file of at most so many bytes, of which no more is ever read.

    expected: what it should be, and where: what it is called (left out: its path), for errors.
    Raises UsageError for a folder, a pipe or a device, for a larger file, and for what cannot be
    read.
    """
    check_file(path, expected, where=where, most=most)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise _unreadable(where or str(path), error, expected) from error
    if len(content) > most:  # it grew, or its size is not told
        raise _too_large(where or str(path), len(content), expected, most)
    return content


def read_text(path: Path, where: str, *, most: int) -> str:
    """The same as text. Raises UsageError as `read_bytes` does, and for what is not UTF-8."""
    try:
        return read_bytes(path, where=where, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 ({error})") from error


def check_file(path: Path, expected: str = "", *, where: str = "", most: int = MOST_BYTES) -> None:
    """Raise UsageError unless there is a plain file of at most so many bytes."""
    where = where or str(path)
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a path may hold a NUL
        raise _unreadable(where, error, expected) from error
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise _unreadable(where, f"it is {what}", expected)
    if found.st_size > most:
        raise _too_large(where, found.st_size, expected, most)


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file. Raises UsageError as `read_bytes` and `json_of` do."""
    try:
        return json_of(read_bytes(path, expected))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path}: no JSON ({unquoted(str(error), 120)}), expected {expected}"
        ) from error


def json_of(data: bytes) -> Any:
    """JSON in builtin types. Raises ValueError for what the standard does not have or leaves open.

    Every number is one that a float holds, every text is whole Unicode, no key stands twice.
    """
    try:
        # The one decoder is strict about numbers and text, the other shows its keys.
        msgspec.json.decode(data)
        content = json.loads(data, object_pairs_hook=_once)
        _check_nesting(content, MOST_NESTED)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_NESTED} levels") from None
    return content


def typed(content: Any, kind: type[Kind], where: str) -> Kind:
    """The content as a record of some type, converted.

    where: what it is of, a file, for errors: those name the place in it as a JSON path.
    """
    try:
        return msgspec.convert(content, kind, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError(f"{where}: {_told(content, kind, str(error))}") from None


def checked(content: Any, kind: type[Kind], where: str) -> Kind:
    """The same content, if it is of some type (a TypedDict); fields that this has not stay in it.

    Raises UsageError as `typed` does.
    """
    typed(content, kind, where)
    # A TypedDict is a dict at run time, so the content is one itself.
    found: Kind = content
    return found


def inside(folder: Path, name: str, where: str) -> Path:
    """The file of a folder that something in the folder names.

    Raises UsageError for one that is elsewhere: an absolute path, `..`, a link that leads out.
    """
    try:
        is_inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        is_inside = False
    if not is_inside:
        raise UsageError(f"{where}: {shown(name)} is not in {folder}, expected a file in it")
    return folder / name


def shown(text: str, most: int = _SHOWN) -> str:
    """Text of somebody else's in an error: quoted, short, nothing in it that a terminal obeys."""
    return repr(text[:most]) + ("..." if len(text) > most else "")


def unquoted(text: str, most: int = _SHOWN) -> str:
    """The same without quotes."""
    return repr(text[:most])[1:-1] + ("..." if len(text) > most else "")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names of somebody else's in an error, the first of them where there are many."""
    more = f", ... ({len(names)})" if len(names) > most else ""
    return ", ".join(map(unquoted, names[:most])) + more


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {shown(max(names, key=names.count))} is given twice")
    return content


def _check_nesting(content: Any, left: int) -> None:
    if not left:
        raise RecursionError
    if isinstance(content, dict | list):
        for one in content.values() if isinstance(content, dict) else content:
            _check_nesting(one, left - 1)


def _told(content: Any, kind: Any, error: str) -> str:
    """`$.evidence[3].pairs: expected int, got str`, from the validator's own sentence."""
    told, _, place = error.rpartition(" - at ") if " - at " in error else (error, "", "")
    said = unquoted((told[:1].lower() + told[1:]).replace("`", ""), 120)
    return f"{_place(content, kind, error, place)}: {said}"


def _place(content: Any, kind: Any, error: str, place: str) -> str:
    """A JSON path with the names of keys, where the validator says `[...]`."""
    found, here = "$", content
    for step in _STEP.findall(place):
        if step == "[...]":
            key = next((k for k in here if _only(content, kind, here, k) == error), None)
            if key is None:
                return f"{found}[...]"
            found, here = f"{found}[{shown(key)}]", here[key]
        else:
            name = step.strip(".[]")
            found, here = found + step, here[int(name) if step[0] == "[" else name]
    return found


def _only(content: Any, kind: Any, here: dict[str, Any], key: str) -> str:
    """What is wrong where an object in the content has this key alone; '' if nothing is."""
    whole = dict(here)
    here.clear()
    here[key] = whole[key]
    try:
        msgspec.convert(content, kind, strict=True)
    except msgspec.ValidationError as error:
        return str(error)
    finally:
        here.clear()
        here.update(whole)
    return ""


def _unreadable(where: str, why: Exception | str, expected: str) -> UsageError:
    told = why.strerror if isinstance(why, OSError) else str(why)
    return UsageError(
        f"{where}: cannot be read ({told})" + (f", expected {expected}" * bool(expected))
    )


def _too_large(where: str, found: int, expected: str, most: int) -> UsageError:
    wanted = f"{expected} of at most" if expected else "at most"
    sizes = f"{found / 2**20:,.0f} MB, expected {wanted} {most / 2**20:,.0f} MB"
    return UsageError(f"{where}: {sizes}")
