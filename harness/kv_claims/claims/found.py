"""Where a claim's cell was found: a map, and the pairs that it did not look at. No torch.

A cell that was chosen because it stood out on some pairs stands out on these, whatever is true.
Promises: a claim that says where its cell was found is judged on the pairs it names, and no others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kv_claims.errors import UsageError

_SHA = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """What a map leaves with a claim that it proposes.

    plan: hash of the map. task: SHA-256 of the task of the confirmation pairs. Both hex.
    """

    plan: str
    task: str

    def __post_init__(self) -> None:
        for name in ("plan", "task"):
            if not isinstance(value := getattr(self, name), str) or not _SHA.fullmatch(value):
                raise UsageError(f"Found({name}={value!r}): expected a SHA-256, 64 hex digits")

    def check(self, claim: str, task: str | None, where: str) -> None:
        """Raise UsageError for trials of another task. task: its SHA-256, None of a table."""
        if task != self.task:
            of = "a table, which does not show" if task is None else f"{task[:12]}, which are not"
            raise UsageError(
                f"best-of-k: claim {claim!r} is of a cell that the map {self.plan[:12]} found, and "
                f"is judged on its confirmation pairs alone, of the task {self.task[:12]}; {where} "
                f"is {of} these: expected the task file written beside the claim, unchanged"
            )
