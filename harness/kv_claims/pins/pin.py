"""A pin: what is kept of one cell of one claim on one model, small enough to be read in a diff.

Made from evidence and from the tables that it was judged on, so a finished run can be pinned too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kv_claims.evidence.evidence import plain
from kv_claims.evidence.schema import is_own_table
from kv_claims.judging.checks import Check, instrument_failures

DIGITS = 6
"""Of a kept mean score: fresh ones are rounded alike before they are compared."""
TOKEN_DIGITS = 4
"""Of the hash of a trial's tokens: one change in 65,536 would go unseen."""
ID_DIGITS = 16
"""Of a pair's id, which is a hash of its two texts."""
BUDGET = ("pairs", "seeds", "max_new_tokens", "temperature")
"""What a run spends. Verdicts of different budgets are not held against each other."""
FINGERPRINT = (
    *("device", "hardware", "dtype", "torch", "transformers", "threads", "batch_size"),
    "weights_sha",
)
"""What has to be equal for tokens to be the same to the last one (docs/sameness.md)."""


@dataclass(frozen=True)
class ArmPin:
    """One arm of a cell.

    tokens: a short hash of each trial's token ids, by pair and then seed.
    scores: by outcome, the mean of each pair over its seeds, `[pair]`; NaN where it has none.
    """

    arm: str
    tokens: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Pin:
    """What was found of a cell.

    test: the file and function of the claim. failed: names of the checks that failed.
    parts: of each part its outcome, estimand, whether it is given, verdict, estimate, interval and
    level. pairs: ids, in order. arms: by role, empty where nothing was run.
    setup: what was spent, on what, where; `BUDGET` and `FINGERPRINT` are in it.
    plan: the claim as it was stated, with the error rate that was its share.
    """

    claim: str
    cell: str
    test: str
    verdict: str
    reason: str
    failed: tuple[str, ...]
    parts: tuple[Mapping[str, Any], ...]
    pairs: tuple[str, ...]
    arms: Mapping[str, ArmPin]
    setup: Mapping[str, Any]
    plan: Mapping[str, Any]

    @property
    def estimate(self) -> float | None:
        """That of the first part, which stands for the claim."""
        estimate: float | None = self.parts[0]["estimate"]
        return estimate

    def to_dict(self) -> dict[str, Any]:
        return dict(plain(asdict(self)))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pin:
        """The inverse of `to_dict`; a mean that is None was none."""
        arms = {
            role: ArmPin(
                one["arm"],
                tuple(one["tokens"]),
                {
                    outcome: tuple(float("nan") if mean is None else mean for mean in means)
                    for outcome, means in one["scores"].items()
                },
            )
            for role, one in content["arms"].items()
        }
        lists = {name: tuple(content[name]) for name in ("failed", "parts", "pairs")}
        return cls(**{**content, **lists, "arms": arms})


def pin_of(
    evidence: Mapping[str, Any],
    tables: Sequence[pd.DataFrame | None],
    *,
    test: str,
    pairs_asked: int,
) -> Pin:
    """The pin of a cell.

    evidence: as an object of evidence.json. pairs_asked: a claim with looks may need fewer.
    tables: for each part, the rows it was judged on (one a trial, with columns
    `pair pair_index arm seed score tokens`); None where nothing was run.
    """
    found = [table for table in tables if table is not None]
    order = _pairs(found[0]) if found else []
    return Pin(
        claim=evidence["claim"],
        cell=evidence["cell"],
        test=test,
        verdict=evidence["verdict"],
        reason=evidence["reason"],
        failed=tuple(dict.fromkeys(c["name"] for c in evidence["checks"] if c["passed"] is False)),
        parts=tuple(_part(part) for part in evidence["parts"]),
        pairs=tuple(map(short_id, order)),
        arms=_arms(evidence, tables, order),
        setup=_setup(evidence, pairs_asked),
        plan={
            **{name: value for name, value in evidence["plan"].items() if name != "sha"},
            "alpha": evidence["multiplicity"]["alpha"],
        },
    )


def why_not_pinned(evidence: Mapping[str, Any]) -> str | None:
    """Why a cell must not be pinned: its instrument failed while it ran. None where it may be.

    What is invalid before anything runs (an outcome that is null by construction, a full swap) is
    a fact of the claim, and may.
    """
    checks = [
        # Of several parts, each has its own: `part 1: no-ceiling`.
        Check(c["name"].rpartition(": ")[2], c["passed"], c["detail"])
        for c in evidence["checks"]
    ]
    failed = instrument_failures(checks) if evidence["trials"]["run"] else []
    return ", ".join(dict.fromkeys(check.name for check in failed)) or None


def _setup(evidence: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    """What a run spent, on what, and where: of its evidence and provenance, what a pin needs.

    Of a table that a test made, no more is known than its size.
    """
    seen = evidence["provenance"]
    if is_own_table(seen):
        spent = {"pairs": pairs, "seeds": evidence["seeds"]}
        return {**spent, "task": evidence["task"], "task_sha": seen["task_sha"]}
    sampling = seen["sampling"]
    return {
        "pairs": pairs,
        "seeds": evidence["seeds"],
        "max_new_tokens": sampling["max_new_tokens"],
        "temperature": sampling["temperature"],
        "task": evidence["task"],
        "task_sha": seen["task_sha"],
        **{name: seen["versions"][name] for name in ("torch", "transformers")},
        **{name: seen[name] for name in FINGERPRINT if name in seen},
    }


def short_sha(content: str, digits: int) -> str:
    """The first hex digits of a SHA-256."""
    return hashlib.sha256(content.encode()).hexdigest()[:digits]


def rounded(mean: float) -> float:
    """A mean score with the digits that are kept of it."""
    return float(f"{mean:.{DIGITS}g}")


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "outcome": part["outcome"]["name"],
        "estimand": part["estimand"],
        "given": part["given"],
        "verdict": part["verdict"],
        "estimate": None if part["estimate"] is None else rounded(part["estimate"]),
        "interval": [rounded(end) for end in part["interval"]] if part["interval"] else None,
        "level": rounded(part["level"]),
    }


def _pairs(table: pd.DataFrame) -> list[str]:
    rows = table.drop_duplicates("pair").sort_values("pair_index")
    return [str(pair) for pair in rows["pair"]]


def short_id(pair: str) -> str:
    """A pair's id as it is kept."""
    return pair[:ID_DIGITS]


def _arms(
    evidence: Mapping[str, Any], tables: Sequence[pd.DataFrame | None], order: Sequence[str]
) -> dict[str, ArmPin]:
    tokens: dict[str, tuple[str, ...]] = {}
    scores: dict[str, dict[str, tuple[float, ...]]] = {}
    for part, table in zip(evidence["parts"], tables, strict=True):
        if table is None:
            continue
        for role, rows in table.groupby("arm", sort=False):
            # A pair that some trial has no number of has no mean.
            grouped = rows.groupby("pair")["score"]
            means = grouped.mean().where(grouped.count() == grouped.size())
            kept = tuple(rounded(mean) for mean in means.reindex(list(order)))
            scores.setdefault(str(role), {})[part["outcome"]["name"]] = kept
            if role not in tokens:
                placed = rows.sort_values(["pair_index", "seed"])["tokens"]
                tokens[str(role)] = tuple(short_sha(str(one), TOKEN_DIGITS) for one in placed)
    return {role: ArmPin(evidence["arms"][role], tokens[role], scores[role]) for role in tokens}
