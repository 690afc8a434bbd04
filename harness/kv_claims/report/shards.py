"""Verdicts that rest on trials of which two workers recorded different tokens: none stands.

Each worker writes a shard of the ledger, and what cells share may be run by several. Equal records
count once, and so do those that part where rounding may: at a near tie, in float32. Where they
differ otherwise the run does not repeat itself, whatever any verdict says: found when all shards
are read, after the last test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kv_claims.run.ledger import Disagreement, Ledger
from kv_claims.run.tolerances import parts_by_rounding

NAME = "shards-disagree"


def invalidate(evidence: Sequence[dict[str, Any]], ledger: Ledger) -> list[dict[str, Any]]:
    """Evidence with *invalid: shards-disagree* where a trial that it rests on is in dispute."""
    return [_invalid(one, ledger.disagreements) for one in evidence]


def in_dispute(one: dict[str, Any]) -> bool:
    """Whether `invalidate` found something in an evidence."""
    return any(check["name"] == NAME for check in one["checks"])


def _invalid(one: dict[str, Any], disputed: Sequence[Disagreement]) -> dict[str, Any]:
    arms, dtype = set(one["arms"].values()), one["provenance"].get("dtype")
    by_arm: dict[str, list[Disagreement]] = {}
    for each in disputed:
        if (
            each.study == one["study"]
            and each.arm in arms
            and each.pair_index < one["pairs"]
            and each.seed < one["seeds"]
        ):
            by_arm.setdefault(each.arm, []).append(each)
    trials = one["pairs"] * one["seeds"]
    found = [
        each
        for some in by_arm.values()
        if not parts_by_rounding([each.margin for each in some], trials, dtype)
        for each in some
    ]
    if not found:
        return one
    detail = (
        f"{len(found)} trials were recorded twice with other results, such as {found[0]}; "
        "run again with --claims-no-resume"
    )
    checks = [*one["checks"], {"name": NAME, "passed": False, "detail": detail}]
    if "verdict" not in one:
        return {**one, "passed": False, "checks": checks}
    reason = f"{NAME}: {detail}"
    return {
        **one,
        "verdict": "invalid",
        "reason": reason,
        "checks": checks,
        "p_supported": None,
        "p_refuted": None,
        "parts": [
            {**part, "verdict": "invalid", "reason": reason, "p_supported": None, "p_refuted": None}
            for part in one["parts"]
        ],
        "multiplicity": {**one["multiplicity"], "raw": "invalid"},
    }
