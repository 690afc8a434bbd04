"""What a claim stated before its run, read back from evidence: what differs, what was edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kv_claims.evidence.evidence import plan_sha

_STATED = ("says", "cites", "about", "margin", "family", "family_size", "looks", "patch", "versus")


class Change(NamedTuple):
    """Something that is not the same in both runs. first, second: None where a run has it not."""

    what: str
    first: Any
    second: Any


def stated_changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    """What differs in the claims as they were stated, and in the share they were judged at."""
    yield from changes(_as_stated(one), _as_stated(other))


def _as_stated(one: Mapping[str, Any]) -> dict[str, Any]:
    """A plan by what a reader calls its fields; from the evidence where it has no plan."""
    plan = one.get("plan") or _plan_of(one)
    said = {name: plan.get(name) for name in _STATED}
    for kind, prefix in (("parts", ""), ("given", "given ")):
        for part in plan[kind]:
            name = f"region of {prefix}{part['outcome']} {part['estimand']}"
            said[name] = region_text(*part["region"])
    return {**said, "alpha": one["multiplicity"]["alpha"]}


def _plan_of(one: Mapping[str, Any]) -> dict[str, Any]:
    """What evidence without a plan says of its claim (of runs before there were plans)."""
    parts = one["parts"]
    patches = {
        role: [patch["text"] for patch in one[role]["all"]] if one.get(role) else []
        for role in ("patch", "versus")
    }
    return {
        "says": one["says"],
        "cites": one["cites"],
        "about": parts[0]["region"]["about"],
        "margin": parts[0]["region"]["margin"],
        "family": one["multiplicity"]["family"],
        "family_size": one["multiplicity"]["size"],
        "looks": one["multiplicity"]["looks"]["planned"],
        **patches,
        "parts": [_plan_part(part) for part in parts if not part["given"]],
        "given": [_plan_part(part) for part in parts if part["given"]],
    }


def _plan_part(part: Mapping[str, Any]) -> dict[str, Any]:
    region = part["region"]
    return {
        "outcome": part["outcome"]["name"],
        "estimand": part["estimand"],
        "region": [region["low"], region["high"]],
    }


def edited(one: Mapping[str, Any]) -> Iterator[str]:
    """What in a run's evidence is not what its plan says: it was edited after the run."""
    plan = one.get("plan")
    if not plan:
        yield "no plan: the run is of a version without one"
        return
    if plan.get("sha") != plan_sha(plan):
        yield "the plan is not the one that its hash is of"
    judged = _plan_of(one)
    for name in (*_STATED, "parts", "given"):
        if plan.get(name) != judged[name]:
            yield f"{name}: planned {plan.get(name)}, judged {judged[name]}"


def region_text(low: float | None, high: float | None) -> str:
    """A region with every digit, so that no edit of one is rounded away."""
    if low is None:
        return f"<= {high!r}"
    return f">= {low!r}" if high is None else f"[{low!r}, {high!r}]"


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    """Fields of two flat objects that differ, those of the first in its order."""
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield Change(name, first.get(name), second.get(name))
