"""Text that others wrote, made safe to look at: what cannot be seen is shown by its number.

A model may generate anything, and a stored file may name anything. Markup is for the template to
escape; this is for the characters that escaping leaves as they are: controls, which steer a
terminal, and those that turn text around (bidi), which could make a word of ours read as another.
Whatever is said in a terminal goes through `say`, `line_of` or a UsageError, which is made of one
line by `line_of` too. And numbers as text and the hint at a near name, everywhere alike.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TextIO

LONGEST_LINE = 2000
"""Characters of a line; of a longer one the middle is left out."""
LONGEST_SHOWN = 4000
"""Characters of one value or text that a report shows; what is left out is in the run's files."""

_ORDER = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSEEN = "\u00ad\u180e\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_TAGS = "\U000e0000-\U000e007f"
_LONE = "\ud800-\udfff"
_HIDDEN = re.compile(f"[{_ORDER}{_UNSEEN}{_CONTROLS}{_TAGS}{_LONE}]")
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_STACKED = re.compile(f"[{_MARKS}]{{4,}}")


def visible(text: str) -> str:
    """The same text with every hidden character as `[U+202E]`; tabs and line feeds stay.

    Piles of combining marks, which would cover the lines around them, are cut to three.
    """
    shown = _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.replace("\r\n", "\n"))
    return _STACKED.sub(lambda found: found[0][:3], shown)


def line_of(text: str) -> str:
    """The same text as one line with nothing hidden, of at most `LONGEST_LINE` characters."""
    # Cut first, so that nothing is spent on what is left out; what is shown by number is longer.
    flat = cut(_BREAK.sub(" ", cut(text, 2 * LONGEST_LINE)), LONGEST_LINE)
    return cut(visible(flat).replace("\t", " "), LONGEST_LINE)


def cut(text: str, longest: int) -> str:
    """The text, or its begin and end with how much is left out between them."""
    if len(text) <= longest:
        return text
    told = f" [... {len(text) - longest:,} more characters ...] "
    end = (longest - len(told)) // 4
    return text[: longest - len(told) - end] + told + text[-end:]


def say(text: str, file: TextIO | None = None) -> None:
    """Print text, of any number of lines, with nothing hidden; to stdout, or another file."""
    print(visible(text), file=file or sys.stdout, flush=True)


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number with so many digits behind the point, or a dash for none; what rounds to nothing is
    0. sign: whether it stands before what is not negative too."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, where something known is near."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
