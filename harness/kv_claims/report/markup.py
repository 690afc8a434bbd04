"""Text in Markdown: everything is text that marks nothing up, but what is said to be markup.

A template's every value goes through `as_text`, so that nothing has to be remembered; what is ours
to mark up is a `Markdown`, as `code`, `fence` and the filters of `report.markdown` give.
"""

from __future__ import annotations

import re
from typing import Any

from kv_claims.plain import LONGEST_SHOWN, cut, visible

_MARKS = re.compile(r"([\\|`*_<>\[\]~$]|&(?=#?\w+;))")
_BLOCK = re.compile(r"^( ?)(#(?=[# ]|$)|[-+](?= )|\d+(?=[.)] ))")
"""What would begin a heading or a list, where a value is the first of its line or list item."""
_BLANKS = re.compile(r"\s*\n\s*|[ \t]{2,}|\t")


class Markdown(str):
    """Markdown of ours, which stands as it is."""

    __slots__ = ()


def as_text(value: Any) -> Markdown:
    """Any value as text inside a line or a table's cell: bounded, on one line, without markup."""
    if isinstance(value, Markdown):
        return value
    marked = _MARKS.sub(r"\\\1", _one_line(str(value)))
    return Markdown(_BLOCK.sub(_unblocked, marked))


def _unblocked(found: re.Match[str]) -> str:
    # A digit takes no backslash: what follows it does.
    return f"{found[1]}\\{found[2]}" if not found[2].isdigit() else f"{found[0]}\\"


def code(text: str) -> Markdown:
    """Text as code inside a line, which its own backticks cannot close; blank as text is."""
    flat = _one_line(text).strip()
    if not flat:
        return Markdown(flat)
    mark = "`" * (_longest_run(flat) + 1)
    edge = " " if flat.startswith("`") or flat.endswith("`") else ""
    return Markdown(f"{mark}{edge}{flat}{edge}{mark}")


def fence(text: str) -> Markdown:
    """Text as a code block that its own backticks cannot close; its begin, where it is long."""
    shown, left_out = text[:LONGEST_SHOWN], len(text) - LONGEST_SHOWN
    if left_out > 0:
        shown += f"\n[... {left_out:,} more characters: trials.parquet has them]"
    shown = visible(shown).strip()
    mark = "`" * max(3, _longest_run(shown) + 1)
    return Markdown(f"{mark}text\n{shown}\n{mark}")


def _one_line(text: str) -> str:
    return _BLANKS.sub(" ", visible(cut(text, LONGEST_SHOWN)))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
