"""Evidence: one claim, one cell, one model, and everything found about it, as one JSON object."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

SCHEMA = 1
EVIDENCE = "claim_evidence"
INSTRUMENT = "instrument_evidence"
PROTOCOL = "protocol_evidence"
"""Names under which evidence travels in a test report's properties, as one JSON string."""


@dataclass(frozen=True)
class Evidence:
    """What a skeptic needs to check one verdict.

    cell: the id of the parametrized test (`L18-w16`). patch: the patch as claimed and as resolved
    on this model (of several, the first; all of them in `all`); None for a claim about source and
    base alone. versus: the second patch of a claim that compares two. outcome: what was measured,
    with its unit and formula. parts: everything that was judged, what is given last; the first
    stands at the top level too. Beside each stand `weighings` (the estimate by what weighs the
    same, pairs or clusters; that which was judged first) and, deciding nothing, `spreads` (means
    and covariance of its arms over clusters, for planning), `sensitivity` lines and the verdict
    under the other scorer. expected: the word that follows from a planted model's truth, or None;
    `truth` says from what. pinned: how the cell stands to its pin (`kv_claims.pins.check.Pinned`):
    `word`, the `verdict` and `estimate` of the pin, `changes` and `notes`; None where there is no
    pin. interval: [low, high] at `level`; interval_other at the other of the two levels.
    multiplicity: the family of headline tests that the cell is one of, its size, the error rate
    that was its share, the word at 0.05 had it been the only test (`raw`), that by Holm's procedure
    over the family (`holm`, at the end of the session), and its looks: pairs planned, what each
    found, and how many of the planned pairs were spared. trials: counts planned, run, failed.
    likelihoods: teacher-forced measurements made; answers: those of what the task itself puts
    behind its prompts. fired: by role, tensors planned and written,
    numbers changed, before and while generating. scorer: the task's scorer, measured: how it tells
    source from base texts (AUC, false positives, each with its interval), and by role the share of
    the score that comes from repetition. repetition, geometry: by role, beside every verdict;
    `reach` says what geometry can tell here. texts: one example of base, source and patched, chosen
    by the rule it states. arms: the id of the arm that stood in each role. plan: the claim as it
    was stated before anything was run, with `sha`, its `plan_sha`.
    """

    claim: str
    cell: str
    says: str
    cites: str
    model: str
    task: str
    patch: dict[str, Any] | None
    versus: dict[str, Any] | None
    outcome: dict[str, Any]
    region: dict[str, Any]
    parts: list[dict[str, Any]]
    verdict: str
    reason: str
    verified: bool
    expected: str | None
    truth: dict[str, Any] | None
    pinned: dict[str, Any] | None
    estimate: float | None
    interval: list[float] | None
    level: float
    interval_other: list[float] | None
    p_supported: float | None
    p_refuted: float | None
    pairs_needed: int | None
    multiplicity: dict[str, Any]
    means: dict[str, float]
    controls: dict[str, Any]
    pairs: int
    clusters: int
    seeds: int
    trials: dict[str, int]
    likelihoods: int
    answers: int
    fired: dict[str, dict[str, int]]
    repetition: dict[str, dict[str, float]]
    scorer: dict[str, Any]
    geometry: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    texts: dict[str, Any]
    arms: dict[str, str]
    near_ties: int
    study: str
    provenance: dict[str, Any]
    plan: dict[str, Any]


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


@dataclass(frozen=True)
class ProtocolEvidence:
    """The published protocol replayed on one model: a demonstration, no claim, no verdict word.

    pair: the one of the single trials; drawn: the number that their luck was made from.
    rows: the table, all defects first and none last. engines: the engine's defects, each alone.
    best: the best cell's text here, sample: the seed's own; each with why it scores.
    trials: counts planned, run, failed; none of them is in the ledger or in `trials.csv`.
    """

    name: str
    model: str
    task: str
    pairs: int
    pair: str
    drawn: int
    defects: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    engines: list[dict[str, Any]]
    best: dict[str, Any]
    sample: dict[str, Any]
    trials: dict[str, int]
    provenance: dict[str, Any]


def plan_sha(plan: dict[str, Any]) -> str:
    """SHA-256, hex, over all fields of a plan but `sha` itself, as JSON with sorted keys.

    A plan that was edited without its hash shows. It is no signature: who edits both is not caught.
    """
    stated = {name: value for name, value in plan.items() if name != "sha"}
    return hashlib.sha256(to_json(stated, sort_keys=True).encode()).hexdigest()


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
