"""How far what should be the same may differ. No torch, so that checks can name it."""

from __future__ import annotations

TOLERANCE = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest |difference| / largest |logit| against the independent recomputation.

float64 is bounded by transformers' own RoPE, whose angles are float32, and by its float32 RMSNorm.
"""

NEAR_TIE = 1e-6
"""A uniform this close to an edge of the CDF: float32 may fall on the other side."""
