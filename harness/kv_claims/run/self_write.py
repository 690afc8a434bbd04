"""What a self-patch did to one pair's cache: the instrument's own observation, kept like a trial.

A base that is given its own activations must be what it was. Whether it is, is looked at where the
write is carried out, and is not to be seen in any trial: so it is a record of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from kv_claims.files.reading import Count, typed
from kv_claims.run.trial import check_fields


@dataclass(frozen=True)
class SelfWrite:
    """One record of the ledger.

    key, study, pair: as in `run.trial.Trial`. arm: the patched arm whose self-patch was written;
    no seed decides anything of it.
    fired, elements, changed, beyond_rounding: see `patch.plan.Footprint`. store_unchanged: whether
    by then no prefilled cache had been written to in place, in that process.
    """

    key: str
    study: str
    pair: str
    pair_index: Count
    arm: str
    fired: Count
    elements: Count
    changed: Count
    beyond_rounding: Count
    store_unchanged: bool

    @property
    def seed(self) -> int:
        """The first, so that whatever rests on the arm rests on it."""
        return 0

    @property
    def margin(self) -> float:
        """Nothing is sampled, so nothing can be near a tie."""
        return math.inf

    def says_the_same(self, other: SelfWrite) -> bool:
        """Whether another record of the same write found as much written, and as much changed.

        Of what a prompt pass computes anew, last bits may differ from batch to batch.
        """
        return self._told() == other._told()

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SelfWrite:
        """Raises ValueError where a field is missing, unknown or of the wrong type."""
        check_fields(cls, content)
        return typed(content, cls, "a self-patch")

    def _told(self) -> tuple[int, int, int, bool]:
        return self.fired, self.elements, self.beyond_rounding, self.store_unchanged
