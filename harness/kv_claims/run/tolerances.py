"""How far what should be the same may differ. No torch, so that checks can name it."""

from __future__ import annotations

from collections.abc import Sequence

TOLERANCE = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest |difference| / largest |logit| against the independent recomputation.

float64 is bounded by transformers' own RoPE, whose angles are float32, and by its float32 RMSNorm.
"""

NEAR_TIE = 1e-6
"""A uniform this close to an edge of the CDF: float32 may fall on the other side."""

PARTS_WITHIN = {"float64": 0.0, "float32": 1e-5}
"""Up to which distance of a uniform from an edge another batch may part tokens on one machine.

Tighter than what two machines are allowed (1e-4, docs/sameness.md): where a model is unsure, a
uniform is often that close to some edge. In half precision batches are part of a trial's key.
"""

PARTING_SHARE = 0.02
"""Of an arm's trials, at most so many part by rounding: about 1 token in 16,000 was seen to.

A trial's margin is the smallest of all its tokens', so that many a trial has a small one somewhere;
what changes more trials than this is no rounding.
"""


def parts_by_rounding(margins: Sequence[float], trials: int, dtype: str) -> bool:
    """Whether rounding may have parted the tokens of some trials of an arm.

    margins: of those that parted, each the smallest of the trial. trials: how many the arm has.
    """
    few = len(margins) <= max(1, PARTING_SHARE * trials)
    return few and all(margin <= PARTS_WITHIN.get(dtype, 0.0) for margin in margins)
