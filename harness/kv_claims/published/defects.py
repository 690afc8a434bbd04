"""What the seed did and what was wrong with it, as data. No torch here.

Names are those of docs/failures.md where it has one. The order is the one in which a replay turns
them off: first those that leave nothing to compare (one trial, no source), so that what every
later defect does to the score is read from all pairs and as a share of source - base; then the
engine; then the scorer, whose last step alone changes the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kv_claims.claims.claim import Region
from kv_claims.claims.patch import Patch

SEED = "True KV Cache Patching Results (December 12, 2024)"


class Defect(NamedTuple):
    """A defect of the published protocol, and in a sentence what it is."""

    name: str
    says: str


ONE_TRIAL = "one-unseeded-trial"
NO_CEILING = "no-ceiling"
DUPLICATE = "duplicate-last-token"
UNROTATED = "unrotated-keys"
DEGENERATE = "degenerate-text"
SUBSTRINGS = "substring-markers"
UNCALIBRATED = "uncalibrated-markers"

DEFECTS = (
    Defect(
        ONE_TRIAL,
        "One pair and one generation a cell, each on luck of its own that nobody wrote down.",
    ),
    Defect(NO_CEILING, "The source was never scored, so there is nothing to be a share of."),
    Defect(
        DUPLICATE,
        "Patched runs cached the whole prompt and then fed its last token again; the unpatched "
        "base did not.",
    ),
    Defect(UNROTATED, "Keys were pasted as they were, turned for the positions they came from."),
    Defect(
        DEGENERATE,
        "Text of more than 10 words of which under 60% are distinct scores 5 points more; turned "
        "off, a cell whose texts collapse is invalid.",
    ),
    Defect(SUBSTRINGS, "A marker counts wherever its letters stand, also inside another word."),
    Defect(
        UNCALIBRATED,
        "The markers were never held against plain text: 'process' scores in any prose, once a "
        "text, whatever its length.",
    ),
)
ALL = frozenset(defect.name for defect in DEFECTS)
ENGINE = frozenset({DUPLICATE, UNROTATED})
"""Those that change what is generated; the others change what is run or how it is scored."""

CELLS: Mapping[str, Patch] = {
    f"{name}-w{width}": Patch("kv", layers=layers, positions=f"last({width})")
    for width in (16, 32)
    for name, layers in (
        ("L18", "18/32"),
        ("L25", "25/32"),
        ("L27", "27/32"),
        ("L25+L27", "25/32+27/32"),
    )
}
"""The seed's eight patched cells."""

CLAIMED: Mapping[str, Region] = {"~80%": Region(0.70, 0.90), "<=12%": Region(high=0.12)}
"""The transfers that the seed set out to test, and that it reports."""

EXPECTED_POINTS = (6, 8)
"""What the seed divides its best cell by: "+1 point out of ~6-8 expected"."""
