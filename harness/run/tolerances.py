"""How far what should be the same may differ. No torch, so that checks can name it."""

from __future__ import annotations

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
