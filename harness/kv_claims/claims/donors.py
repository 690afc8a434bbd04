"""Where the numbers that a patch writes come from, as text.

    source          the source's run of the pair (the default)
    zero            zeros
    mean            the mean over the task's bases and all their positions
    resample        another pair's base, chosen by hash
    vector(NAME)    a direction that the task names

What comes from the run of a prompt has positions of its own, and what it generates; the others are
*constants*: one vector a layer, tensor and head, whatever the prompt. Zeros, means and resampled
runs are the donors of ablations: nothing of the source is in them.
No torch here, and no prompts.
"""

from __future__ import annotations

import re

from kv_claims.errors import UsageError
from kv_claims.plain import nearest

FROM_SOURCE = "source"
ABLATIONS = ("zero", "mean", "resample")
_CONSTANTS = ("zero", "mean")
_EXPECTED = "expected one of source, zero, mean, resample, vector(NAME)"
_VECTOR = re.compile(r"vector\(([A-Za-z0-9][A-Za-z0-9_.-]*)\)")


def check_donor(text: str) -> None:
    """Raise UsageError for a text that names no donor."""
    if text not in (FROM_SOURCE, *ABLATIONS) and not _VECTOR.fullmatch(text):
        near = nearest(text, (FROM_SOURCE, *ABLATIONS, "vector"))
        raise UsageError(f"Patch(donor={text!r}): {_EXPECTED}{near}")


def vector_of(donor: str) -> str | None:
    """The name of the direction that a donor is; None where it is none."""
    found = _VECTOR.fullmatch(donor)
    return found[1] if found else None


def is_constant(donor: str) -> bool:
    """Whether it has one vector a layer, tensor and head, whatever prompt and position."""
    return donor in _CONSTANTS or vector_of(donor) is not None
