"""Keys of a mapping that somebody wrote: those that are unknown, those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.files.reading import shown
from kv_claims.plain import nearest


def check_keys(
    content: Mapping[Any, Any], needed: Iterable[str], known: Iterable[str], where: str
) -> None:
    """Raise UsageError for a key that is not known, or one that is needed and not there."""
    known = list(known)
    for key in content:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {shown(str(key))}, expected {', '.join(known)}"
                f"{nearest(str(key), known)}"
            )
    if missing := [key for key in needed if key not in content]:
        raise UsageError(f"{where}: missing key {', '.join(missing)}")
