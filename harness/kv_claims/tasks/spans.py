"""Parts of a prompt that a task gives a name, so that a patch can name them: which are none.

Promises: a span stands in its prompt once, so that nobody need guess which place is meant.
Does not: know tokens (`kv_claims.models.spans`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kv_claims.claims.positions import NAME
from kv_claims.errors import UsageError


def check_spans(spans: Sequence[tuple[str, str]], contents: Sequence[str], where: str) -> None:
    """Raise UsageError for a span that no patch could name, or that does not stand there once.

    contents: the prompt's text, or those of its messages.
    """
    for name, text in spans:
        here = f"{where}: span {name!r}"
        if not re.fullmatch(NAME, name):
            raise UsageError(f"{here}: expected a name of letters, digits, '_' and '-'")
        if not text or text != text.strip():
            raise UsageError(f"{here}: {text!r:.60}, expected a text without blanks around it")
        times = sum(len(places(text, content)) for content in contents)
        if times != 1:
            found = "does not stand" if not times else f"stands {times} times"
            raise UsageError(f"{here}: {text!r:.60} {found} in the prompt; expected it once")


def places(text: str, within: str) -> list[int]:
    """Where a text begins within another, overlapping places too."""
    return [found.start() for found in re.finditer(f"(?={re.escape(text)})", within)]
