"""Whether a claim, or the scorer, is what it was when the trials were run; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kv_claims.evidence.claim_edits import Change, edited, stated_changes
from kv_claims.evidence.hashes import Integrity
from kv_claims.judging.checks import Check
from kv_claims.study.plan import Plan
from kv_claims.tasks.task import Task

CLAIM_EDITED, SCORER_CHANGED, FILES_EDITED = "claim-edited", "scorer-changed", "files-edited"
"""Not failures, but nothing that trials can vouch for: such checks stand as passed=None."""

_PLAIN = ("says", "cites", "family", "family_size", "looks", "alpha")
"""Edits that leave alone what is true of the patch."""


def edits_of(one: Mapping[str, Any], plan: Plan) -> list[Change]:
    """What a cell states now and did not state when it was run: old value, new value.

    Patches are compared where nothing was run: else it is seen by the arms of the trials.
    """
    now = {"plan": plan.stated, "multiplicity": {"alpha": plan.share.alpha}}
    found = stated_changes(one, now)
    by_arms = ("patch", "versus") if one["arms"] else ()
    return [change for change in found if change.what not in by_arms]


def change_truth(edits: list[Change]) -> bool:
    """Whether edits change what would be true of the same patch on the same model."""
    return any(edit.what not in _PLAIN for edit in edits)


def edit_check(one: Mapping[str, Any], edits: list[Change]) -> Check:
    """The check that says what was edited since the run; passed=None if anything was."""
    told = [f"{what}: {_shown(first)} -> {_shown(second)}" for what, first, second in edits]
    told += [f"stored evidence: {what}" for what in edited(one)]
    if told:
        detail = f"judged by a claim that was edited after its run: {'; '.join(told)}"
        return Check(CLAIM_EDITED, None, detail)
    return Check(CLAIM_EDITED, True, f"none: as stated before the run, {one['plan']['sha'][:16]}")


def scorer_check(one: Mapping[str, Any], task: Task) -> list[Check]:
    """Says that texts were scored by another task than the run's; empty where they were not."""
    own = one["provenance"]["task_sha"]
    if task.sha == own:
        return []
    detail = (
        f"texts scored again by {task.scorer.name} of {task.where} ({task.sha[:16]}), which is "
        f"not the run's own: that of task {one['task']!r} ({own[:16]})"
    )
    return [Check(SCORER_CHANGED, None, detail)]


def files_check(one: Mapping[str, Any], integrity: Integrity) -> list[Check]:
    """Says that files are not as the run wrote them; empty where they are.

    What an earlier replay found of the files that it judged is true of what it wrote.
    """
    then = [str(c["detail"]) for c in one["checks"] if c["name"] == FILES_EDITED]
    told = [*([] if integrity.is_whole else [str(integrity)]), *then]
    return [Check(FILES_EDITED, None, "; ".join(dict.fromkeys(told)))] if told else []


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
