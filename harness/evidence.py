"""Evidence: one claim, one cell, one model, and everything found about it, as one JSON object."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

SCHEMA = 1
EVIDENCE = "claim_evidence"
INSTRUMENT = "instrument_evidence"
"""Names under which evidence travels in a test report's properties, as one JSON string."""


@dataclass(frozen=True)
class Evidence:
    """What a skeptic needs to check one verdict.

    cell: the id of the parametrized test (`L18-w16`). patch: site, layers and positions as
    claimed, and the layers as resolved on this model. outcome: what was measured, with its unit.
    expected: the word that follows from a planted model's truth, or None; `truth` says from what.
    interval: [low, high] at `level`; interval_other at the other of 0.90 and 0.95.
    trials: counts planned, run, failed. texts: one example of base, source and patched, chosen by
    the rule it states. arms: the id of the arm that stood in each role.
    """

    claim: str
    cell: str
    says: str
    cites: str
    model: str
    task: str
    patch: dict[str, Any]
    outcome: dict[str, Any]
    region: dict[str, Any]
    verdict: str
    reason: str
    verified: bool
    expected: str | None
    truth: dict[str, Any] | None
    pinned: None
    estimate: float | None
    interval: list[float] | None
    level: float
    interval_other: list[float] | None
    p_supported: float | None
    p_refuted: float | None
    pairs_needed: int | None
    means: dict[str, float]
    controls: dict[str, Any]
    pairs: int
    clusters: int
    seeds: int
    trials: dict[str, int]
    checks: list[dict[str, Any]]
    texts: dict[str, Any]
    arms: dict[str, str]
    near_ties: int
    study: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class InstrumentEvidence:
    """The outcome of an instrument check that stands on its own: no claim, no verdict word."""

    name: str
    model: str
    task: str
    passed: bool
    checks: list[dict[str, Any]]
    pairs: int
    seeds: int
    trials: dict[str, int]
    arms: dict[str, str]
    study: str
    provenance: dict[str, Any]


def to_json(content: Any, **options: Any) -> str:
    """JSON of builtin types only: no NaN, no infinity, no numpy (all of them become plain)."""
    return json.dumps(plain(content), allow_nan=False, ensure_ascii=False, **options)


def plain(content: Any) -> Any:
    """The same content in builtin types; numbers that are not finite become None."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [plain(value) for value in content]
    if isinstance(content, bool | str | int) or content is None:
        return content
    if hasattr(content, "item"):
        return plain(content.item())
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    return str(content)
