"""From what a cell's run found to its evidence: one JSON object that a skeptic can check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kv_claims.claims.outcome import Outcome
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging.checks import Check
from kv_claims.judging.instrument import near_ties
from kv_claims.judging.result import Verdict, Word
from kv_claims.run.arms import n_planned
from kv_claims.run.scores import Fed
from kv_claims.run.tolerances import NEAR_TIE
from kv_claims.run.trial import Trial
from kv_claims.study.plan import SHOWN_GEOMETRY, Plan, Reading
from kv_claims.study.shown import geometry, repetition, scorer_on_cell, texts
from kv_claims.study.tables import Table, Trials
from kv_claims.study.verdicts import Beside, Judged
from kv_claims.tasks.task import Task

SHOWN_ROLES = ("base", "source", "patched", "versus")


class Setting(NamedTuple):
    """What every cell of a study shares.

    study: the hash that its trials share. seeds: of a pair and arm. scorer: what
    `shown.scorer_on_ends` says, to be asked once base and source were run. no_geometry: why none
    is shown, whatever was run.
    """

    task: Task
    study: str
    seeds: int
    provenance: Mapping[str, Any]
    scorer: Callable[[], dict[str, Any]]
    no_geometry: str | None = None


class Seen(NamedTuple):
    """What there is of a plan's trials at one look.

    task: by whose scorer texts were scored; None where only scores are known. tables: of each part.
    arms: the id of the arm that stood in each role. planned, run: counts of trials. trials: by
    role, and what was fed; none where only tables are known.
    """

    task: Task | None
    tables: Sequence[Table]
    arms: Mapping[str, str]
    planned: int
    run: int
    trials: Trials = {}  # noqa: RUF012
    fed: Fed = Fed()


class Look(NamedTuple):
    """What one look at the data found. trials are those of all pairs so far."""

    pairs: int
    verdict: Word
    estimate: float | None
    p_supported: float | None
    p_refuted: float | None

    @classmethod
    def of(cls, pairs: int, judged: Judged) -> Look:
        combined = judged.combined
        return cls(
            pairs,
            combined.word,
            judged.verdicts[0].estimate,
            combined.p_supported,
            combined.p_refuted,
        )


class Found(NamedTuple):
    """What came of a plan.

    seen: at the last look; None where nothing was run. looks: what was seen at each on the way.
    pairs_not_run: pairs of the last look that were not run.
    """

    judged: Judged
    seen: Seen | None = None
    looks: tuple[Look, ...] = ()
    pairs_not_run: int = 0


def seen_of(
    plan: Plan,
    task: Task,
    tables: Sequence[Table],
    trials: Trials,
    fed: Fed,
    *,
    pairs: int,
    seeds: int,
) -> Seen:
    """What there is of trials of ours, on so many pairs."""
    planned = sum(n_planned(arm, pairs, seeds) for arm in plan.arms.values())
    run = sum(map(len, trials.values()))
    return Seen(task, tables, plan.ids, planned, run, trials, fed)


def evidence_of(setting: Setting, plan: Plan, found: Found) -> Evidence:
    """The evidence of one cell. Its first part stands at the top level, all of them in `parts`."""
    combined, verdicts = found.judged.combined, found.judged.verdicts
    seen = found.seen or Seen(None, (), {}, 0, 0)
    trials, first, expected = seen.trials, verdicts[0], plan.expected
    # Of a trial that is a few tokens long, for the instrument's sake, no text is shown.
    written = trials if plan.generates else {}
    parts = [
        {**_part(setting, plan, number, verdict), **_beside(found.judged.beside[number])}
        for number, verdict in enumerate(verdicts)
    ]
    return Evidence(
        claim=plan.claim.id,
        cell=plan.asked.id,
        says=plan.claim.says,
        cites=plan.claim.cites,
        model=plan.model.name,
        task=setting.task.name,
        patch=plan.patch,
        versus=plan.versus,
        outcome=parts[0]["outcome"],
        region=parts[0]["region"],
        parts=parts,
        verdict=combined.word,
        reason=combined.reason,
        verified=all(verdict.verified for verdict in verdicts),
        expected=expected.word if expected else None,
        truth=expected.to_dict() if expected else None,
        pinned=None,
        estimate=first.estimate,
        interval=list(first.interval) if first.interval else None,
        level=first.level,
        interval_other=list(first.interval_other) if first.interval_other else None,
        p_supported=combined.p_supported,
        p_refuted=combined.p_refuted,
        pairs_needed=max(
            (v.pairs_needed for v in verdicts if v.pairs_needed is not None), default=None
        ),
        multiplicity=_multiplicity(plan, found),
        means=first.means,
        controls=first.controls,
        pairs=first.pairs,
        clusters=first.clusters,
        seeds=setting.seeds,
        trials={"planned": seen.planned, "run": seen.run, "failed": seen.planned - seen.run},
        likelihoods=len(seen.fed.likelihoods),
        answers=len(seen.fed.answers),
        fired={role: _fired(some) for role, some in trials.items() if some},
        repetition={r: repetition(written[r]) for r in SHOWN_ROLES if written.get(r)},
        scorer=scorer_on_cell(setting.scorer(), setting.task, written) if written else {},
        geometry=_geometry(setting, plan, trials),
        checks=[check._asdict() for check in _all_checks(verdicts)],
        texts=texts(setting.task, written),
        arms=dict(seen.arms),
        near_ties=near_ties([one for some in trials.values() for one in some], NEAR_TIE),
        study=setting.study,
        provenance=dict(setting.provenance),
        plan=dict(plan.stated),
    )


def _multiplicity(plan: Plan, found: Found) -> dict[str, Any]:
    """At what share of 0.05 a cell was judged, and what it would be alone; see `Evidence`."""
    return {
        "family": plan.share.family.name,
        "size": plan.share.family.size,
        "alpha": plan.share.alpha,
        "raw": found.judged.raw,
        "holm": None,
        "looks": {
            # A table that is there is looked at once, whatever is planned for trials to come.
            "planned": list(plan.claim.looks) if plan.share.looks > 1 else [],
            "taken": [look._asdict() for look in found.looks],
            "pairs_spared": found.pairs_not_run,
        },
    }


def _geometry(setting: Setting, plan: Plan, trials: Trials) -> list[dict[str, Any]]:
    readings: Sequence[Reading] = plan.readings if trials else ()
    if setting.no_geometry is not None:
        readings = [Reading(outcome, why=setting.no_geometry) for outcome in SHOWN_GEOMETRY]
    return [geometry(one, plan.model.n_layers, trials, SHOWN_ROLES) for one in readings]


def _outcome(setting: Setting, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    said = dict(outcome.describe(plan.model.n_layers))
    if outcome.name == "behavior":
        said |= {"scorer": setting.task.scorer.name, "unit": setting.task.scorer.unit}
        if setting.task.falls:
            said |= {"falls": True, "unit": f"{said['unit']}; less of it in the source"}
    return said


def _part(setting: Setting, plan: Plan, number: int, verdict: Verdict) -> dict[str, Any]:
    planned, truths = plan.parts[number], plan.expected.parts if plan.expected else ()
    part = planned.part
    return {
        "outcome": _outcome(setting, plan, planned.outcome),
        "estimand": part.estimand,
        "region": {
            "low": part.region.low,
            "high": part.region.high,
            "margin": plan.claim.margin,
            "about": plan.claim.about,
        },
        "given": planned.is_given,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "estimate": verdict.estimate,
        "interval": list(verdict.interval) if verdict.interval else None,
        "level": verdict.level,
        "interval_other": list(verdict.interval_other) if verdict.interval_other else None,
        "p_supported": verdict.p_supported,
        "p_refuted": verdict.p_refuted,
        "pairs_needed": verdict.pairs_needed,
        "means": verdict.means,
        "controls": verdict.controls,
        "weighings": verdict.weighings,
        "spreads": [spread._asdict() for spread in verdict.spreads],
        "truth": truths[number] if truths else None,
    }


def _beside(beside: Beside) -> dict[str, Any]:
    lines, other = beside
    return {
        "sensitivity": lines.to_dict() if lines else None,
        "other_scorer": other._asdict() if other else None,
    }


def _all_checks(verdicts: Sequence[Verdict]) -> list[Check]:
    """The checks of every part: once where parts share one, numbered where they differ."""
    if len(verdicts) == 1:
        return list(verdicts[0].checks)
    shared = [c for c in verdicts[0].checks if all(c in other.checks for other in verdicts[1:])]
    own = [
        check._replace(name=f"part {number}: {check.name}")
        for number, verdict in enumerate(verdicts, start=1)
        for check in verdict.checks
        if check not in shared
    ]
    return [*shared, *own]


def _fired(trials: Sequence[Trial]) -> dict[str, int]:
    """How often an arm's patches fired and what they changed, over its trials."""
    tensors, numbers = ("planned", "fired"), ("planned_elements", "elements")
    changes = ("changed", "beyond_rounding", "known_equal")
    steps = ("planned_steps", "fired_steps", "changed_steps", "beyond_rounding_steps")
    names = (*tensors, *numbers, *changes, *steps)
    return {name: sum(getattr(trial, name) for trial in trials) for name in names}
