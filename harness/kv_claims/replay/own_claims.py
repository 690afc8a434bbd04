"""Claims that stand in the description of a published table: a sentence, where it is said, what
would make it true, and the patch that it is about.

Promises: they are `Claim`s like those of a test file, with the same checks; whatever is wrong is
one error that names the key. Does not: make tests of them (`kv_claims.plugin.own_claims`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from kv_claims.claims.claim import ESTIMANDS, Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.files.keys import check_keys
from kv_claims.files.reading import unquoted
from kv_claims.study.cell import Cell

_NEEDED = ("says", "cites")
_PATCHES = ("patch", "versus")
_KNOWN = (*_NEEDED, *ESTIMANDS, "outcome", "about", "margin", *_PATCHES)
_ENDS = ("low", "high")


@dataclass(frozen=True)
class OwnClaim:
    """A claim of a table's own, and what its arms `patched` and `versus` were patched with."""

    claim: Claim
    patch: Patch | None = None
    versus: Patch | None = None


def read_own(content: Any, where: str) -> dict[str, OwnClaim]:
    """The claims of the key `own`, by id. Raises UsageError for what is none."""
    return {str(id): _one(str(id), told, where) for id, told in _mapping(content, where).items()}


def _one(id: str, content: Any, where: str) -> OwnClaim:
    here = f"{where}: {unquoted(id)}"
    told = _mapping(content, here)
    check_keys(told, _NEEDED, _KNOWN, here)
    for key in ("says", "cites", "outcome", "about"):
        if key in told and not isinstance(told[key], str):
            raise UsageError(f"{here}: {key}: {unquoted(repr(told[key]))}, expected text")
    if "margin" in told and not _is_number(told["margin"]):
        raise UsageError(f"{here}: margin: {unquoted(repr(told['margin']))}, expected a number")
    said = {name: told[name] for name in ("outcome", "about", "margin") if name in told}
    said |= {name: _region(told[name], f"{here}: {name}") for name in ESTIMANDS if name in told}
    patches = {
        name: _patch(told[name], f"{here}: {name}") if name in told else None for name in _PATCHES
    }
    try:
        claim = Claim(id, says=told["says"], cites=told["cites"], **said)
        Cell.of(claim, "only", patches["patch"], patches["versus"])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return OwnClaim(claim, **patches)


def _region(content: Any, where: str) -> Region:
    told = _mapping(content, where)
    check_keys(told, (), _ENDS, where)
    for end, value in told.items():
        if not _is_number(value):
            raise UsageError(f"{where}: {end}: {unquoted(repr(value))}, expected a number")
    try:
        return Region(told.get("low", -math.inf), told.get("high", math.inf))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _patch(content: Any, where: str) -> Patch:
    told = {key: str(value) for key, value in _mapping(content, where).items()}
    known = {one.name: one.default is MISSING for one in fields(Patch)}
    check_keys(told, [name for name, needed in known.items() if needed], known, where)
    try:
        return Patch(**told)  # type: ignore[arg-type]  # it checks what it is given
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(content: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{where}: {unquoted(repr(content)):.80}, expected a mapping")
    return content
