"""From what a cell's run found to its evidence: one JSON object that a skeptic can check."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from kv_claims.claims.claim import Part
from kv_claims.claims.outcome import LATE, Outcome
from kv_claims.claims.patch import Patch, resolve_heads, resolve_layers
from kv_claims.claims.reach import classify
from kv_claims.errors import NoSuchCellError
from kv_claims.evidence.evidence import Evidence, plan_sha
from kv_claims.judging.checks import Check
from kv_claims.judging.instrument import near_ties
from kv_claims.judging.parts import Combined
from kv_claims.judging.result import Verdict, Word
from kv_claims.measure.behavior import behavior
from kv_claims.measure.separation import Scored, repetition_share, separation
from kv_claims.run.arms import Arm
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.scores import geometry_score
from kv_claims.run.tolerances import NEAR_TIE
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.verdicts import Beside, Judged
from kv_claims.tasks.task import Pair, Prompt, Task

SHOWN_GEOMETRY = (Outcome.parse(f"pr@{LATE}"), Outcome.parse("rv"))
"""Geometry that is reported beside every verdict, as in the seed's table."""
SHOWN_ROLES = ("base", "source", "patched", "versus")


class Subject(Protocol):
    """What is told of a model: by one that is loaded, or by what was stored of it."""

    @property
    def name(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_kv_heads(self) -> int: ...


class Setting(NamedTuple):
    """What every cell of a study shares.

    study: the hash that its trials share. arm_id, tokens: the id of an arm in one spelling, and the
    tokens of a prompt, on this model.

    planned: how many trials of an arm a cell has. scorer: what `scorer_on_ends` says, to be asked
    once base and source were run.
    """

    model: Subject
    task: Task
    study: str
    arm_id: Callable[[Arm], str]
    tokens: Callable[[Prompt], int]
    pairs: Sequence[Pair]
    n_seeds: int
    provenance: dict[str, Any]
    planned: Callable[[Arm], int]
    scorer: Callable[[], dict[str, Any]]


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
    """A cell as it was asked, and what came of it.

    stated: its plan, made before anything was run. looks: what was seen at each look on the way.
    spared: pairs of the last look that were not run.
    """

    cell: Cell
    judged: Judged
    stated: dict[str, Any]
    looks: tuple[Look, ...] = ()
    spared: int = 0


def plan_of(cell: Cell) -> dict[str, Any]:
    """What is asserted and asked, as plain JSON, and its hash as `sha`; nothing needs to have run.

    An open end of a region is None. Patches are as they were asked, not as resolved on a model.
    """
    claim, family = cell.claim, cell.share.family

    def stated(parts: Sequence[Part]) -> list[dict[str, Any]]:
        return [
            {
                "outcome": str(Outcome.parse(part.outcome)),
                "estimand": part.estimand,
                "region": [
                    float(end) if math.isfinite(end) else None
                    for end in (part.region.low, part.region.high)
                ],
            }
            for part in parts
        ]

    plan = {
        "claim": claim.id,
        "says": claim.says,
        "cites": claim.cites,
        "parts": stated(claim.parts),
        "given": stated(claim.given),
        "about": claim.about,
        "margin": float(claim.margin),
        "family": family.name,
        "family_size": family.size,
        "looks": list(claim.looks),
        "patch": [str(patch) for patch in cell.patches],
        "versus": [str(patch) for patch in cell.versus],
    }
    return {**plan, "sha": plan_sha(plan)}


def not_judged(parts: Sequence[Part], failed: Sequence[Check], pairs: int) -> Judged:
    """Verdicts on a cell that was not run, because no outcome of it could decide the claim."""
    reason = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    return _not_run(parts, "invalid", reason, pairs, tuple(failed))


def not_looked_at(cell: Cell, pairs: int) -> Judged:
    """Verdicts on a cell that was not run, as its first planned look wants more pairs."""
    first = cell.claim.looks[0]
    reason = f"not looked at yet: its first look is after {first} pairs, {pairs} were asked for"
    return _not_run(cell.parts, "inconclusive", reason, pairs, (), first)


def _not_run(
    parts: Sequence[Part],
    word: Word,
    reason: str,
    pairs: int,
    checks: tuple[Check, ...],
    pairs_needed: int | None = None,
) -> Judged:
    verdict = Verdict(
        word=word,
        reason=reason,
        verified=True,
        estimate=None,
        interval=None,
        level=0.95,
        interval_other=None,
        means={},
        pairs=pairs,
        clusters=0,
        checks=checks,
        pairs_needed=pairs_needed,
    )
    return Judged([verdict] * len(parts), Combined(word, reason), word, [Beside()] * len(parts))


def evidence_of(
    study: Setting,
    found: Found,
    expected: Expectation | None,
    trials: Mapping[str, Sequence[Trial]],
    roles: Mapping[str, Arm],
    likelihoods: Mapping[Any, Likelihood],
) -> Evidence:
    """The evidence of one cell. Its first part stands at the top level, all of them in `parts`."""
    cell, combined, verdicts = found.cell, found.judged.combined, found.judged.verdicts
    first, outcome = verdicts[0], cell.outcomes[0]
    every = [trial for some in trials.values() for trial in some]
    planned = sum(study.planned(arm) for arm in roles.values())
    parts = [
        {
            **_part(study, cell, part, verdict, expected, number),
            **_beside(found.judged.beside[number]),
        }
        for number, (part, verdict) in enumerate(zip(cell.parts, verdicts, strict=True))
    ]
    return Evidence(
        claim=cell.claim.id,
        cell=cell.id,
        says=cell.claim.says,
        cites=cell.claim.cites,
        model=study.model.name,
        task=study.task.name,
        patch=_patches(study, cell.patches),
        versus=_patches(study, cell.versus),
        outcome=_outcome(study, outcome),
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
        multiplicity=_multiplicity(found),
        means=first.means,
        controls=first.controls,
        pairs=first.pairs,
        clusters=first.clusters,
        seeds=study.n_seeds,
        trials={"planned": planned, "run": len(every), "failed": planned - len(every)},
        likelihoods=len(likelihoods),
        fired={role: _fired(trials[role]) for role in trials if role in roles and trials[role]},
        repetition={r: _repetition(study, trials[r]) for r in SHOWN_ROLES if trials.get(r)},
        scorer=_scorer(study, trials),
        geometry=[_geometry(study, cell, shown, trials) for shown in SHOWN_GEOMETRY]
        if trials
        else [],
        checks=[check._asdict() for check in _all_checks(verdicts)],
        texts=_texts(study, trials),
        arms={role: study.arm_id(arm) for role, arm in roles.items()},
        near_ties=near_ties(every, NEAR_TIE),
        study=study.study,
        provenance=study.provenance,
        plan=found.stated,
    )


def _multiplicity(found: Found) -> dict[str, Any]:
    """At what share of 0.05 a cell was judged, and what it would be alone; see `Evidence`."""
    share = found.cell.share
    return {
        "family": share.family.name,
        "size": share.family.size,
        "alpha": share.alpha,
        "raw": found.judged.raw,
        "holm": None,
        "looks": {
            "planned": list(found.cell.claim.looks),
            "taken": [look._asdict() for look in found.looks],
            "pairs_spared": found.spared,
        },
    }


def _patches(study: Setting, patches: Sequence[Patch]) -> dict[str, Any] | None:
    """A patch as it was asked and as it is on this model; of several the first, all in `all`.

    Layers and heads that the model does not have are resolved to none.
    """
    if not patches:
        return None
    described = [
        {
            **asdict(patch),
            "text": str(patch),
            "resolved_layers": _if_any(resolve_layers, patch.layers, study.model.n_layers),
            "resolved_heads": _if_any(resolve_heads, patch.heads, study.model.n_kv_heads)
            if patch.site != "residual"
            else None,
            "n_layers": study.model.n_layers,
            "semantics": "splice" if patch.is_splice else "in-prefill",
            "positions_count": "the T-1 cached tokens"
            if patch.is_splice
            else "the T prompt tokens",
        }
        for patch in patches
    ]
    return {**described[0], "all": described}


def _if_any(resolve: Callable[[str, int], Sequence[int]], text: str, size: int) -> list[int]:
    try:
        return list(resolve(text, size))
    except NoSuchCellError:
        return []


def _outcome(study: Setting, outcome: Outcome) -> dict[str, Any]:
    said = dict(outcome.describe(study.model.n_layers))
    if outcome.name == "behavior":
        said |= {"scorer": study.task.scorer.name, "unit": study.task.scorer.unit}
    return said


def _part(
    study: Setting,
    cell: Cell,
    part: Part,
    verdict: Verdict,
    expected: Expectation | None,
    number: int,
) -> dict[str, Any]:
    truth = expected.parts[number] if expected and expected.parts else None
    return {
        "outcome": _outcome(study, Outcome.parse(part.outcome)),
        "estimand": part.estimand,
        "region": {
            "low": part.region.low,
            "high": part.region.high,
            "margin": cell.claim.margin,
            "about": cell.claim.about,
        },
        "given": number >= len(cell.claim.parts),
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
        "spreads": [spread._asdict() for spread in verdict.spreads],
        "truth": truth,
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


def _repetition(study: Setting, trials: Sequence[Trial]) -> dict[str, float]:
    seen = [behavior(trial.text, study.task) for trial in trials]
    return {
        "distinct_share": statistics.fmean(one.distinct_share for one in seen),
        "repeated_4grams": statistics.fmean(one.repeated_4grams for one in seen),
        "degenerate": statistics.fmean(one.degenerate for one in seen),
        "words": statistics.fmean(one.words for one in seen),
    }


def scorer_on_ends(
    task: Task,
    clusters: Mapping[str, Mapping[str, str]],
    trials: Mapping[str, Sequence[Trial]],
) -> dict[str, Any]:
    """The task's scorer on what source and base generated: see `measure.separation`.

    clusters: as of `tasks.task.clusters_of`.
    """
    source, base = (
        [Scored(t.pair, t.seed, task.scorer(t.text)) for t in trials[role]]
        for role in ("source", "base")
    )
    return {
        "name": task.scorer.name,
        "unit": task.scorer.unit,
        **separation(source, base, clusters).to_dict(),
        "repetition_share": _repetition_shares(task, trials, ("base", "source")),
    }


def _scorer(study: Setting, trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    """The scorer on the ends, and on a cell's own arms; nothing where nothing was run."""
    if not trials:
        return {}
    ends = study.scorer()
    own = _repetition_shares(study.task, trials, ("patched", "versus"))
    return {**ends, "repetition_share": {**ends["repetition_share"], **own}}


def _repetition_shares(
    task: Task, trials: Mapping[str, Sequence[Trial]], roles: Sequence[str]
) -> dict[str, float | None]:
    return {
        role: repetition_share((trial.text for trial in trials[role]), task.scorer)
        for role in roles
        if trials.get(role)
    }


def _geometry(
    study: Setting, cell: Cell, outcome: Outcome, trials: Mapping[str, Sequence[Trial]]
) -> dict[str, Any]:
    """Mean geometry of the arms, and whether it can say anything on the patch."""
    n_layers = study.model.n_layers
    if n_layers < 2 and outcome.name == "rv":
        return {"outcome": str(outcome), "means": {}, "reach": None, "why": "one layer only"}
    means: dict[str, float | None] = {}
    for role in SHOWN_ROLES:
        if some := trials.get(role):
            scores = [geometry_score(trial, outcome, n_layers) for trial in some]
            known = [score for score in scores if score == score]
            means[role] = statistics.fmean(known) if len(known) == len(scores) else None
    reach = None
    if cell.patches:
        pair = study.pairs[0]
        source, base = study.tokens(pair.source), study.tokens(pair.base)
        fits = min(source, base) >= 16
        reach = (
            classify(
                cell.patches,
                outcome,
                n_layers=n_layers,
                source_tokens=source,
                base_tokens=base,
            )
            if fits
            else None
        )
    return {
        "outcome": str(outcome),
        "means": means,
        "reach": reach.kind if reach else None,
        "why": reach.why if reach else None,
    }


def _texts(study: Setting, trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    """Base, source and patched text of the pair whose patched score is the median."""
    if not trials.get("patched"):
        return {}
    scorer = study.task.scorer
    ranked = sorted((scorer(t.text), t.pair) for t in trials["patched"] if not t.seed)
    middle = statistics.median_low(ranked)[1]
    texts = {
        role: next(t.text for t in trials[role] if t.pair == middle and not t.seed)
        for role in ("base", "source", "patched")
    }
    return {
        "rule": "the pair of median patched score",
        "pair": middle,
        **texts,
        "scores": {role: scorer(text) for role, text in texts.items()},
    }
