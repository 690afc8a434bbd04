"""What a verdict should be: the word that follows from the truth, never from a run.

Whether a test then passes is decided in `kv_claims.pins.passes`; where the truth comes from is in
`kv_claims.study.planted_truth`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kv_claims.judging.result import Word


@dataclass(frozen=True)
class Expectation:
    """The word that the truth gives; with invalid, what the reason must name.

    transfer: the true value of the first part; parts: the truth of each.
    unless: what may stand against it all the same: a control whose truth is not known.
    """

    word: Word
    because: str
    transfer: float | None = None
    controls: dict[str, float] = field(default_factory=dict)
    parts: tuple[dict[str, Any], ...] = ()
    unless: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "transfer": self.transfer,
            "controls": self.controls,
            "because": self.because,
            "unless": self.unless,
            "source": "computed from the planted weights, over the population of pairs",
        }
