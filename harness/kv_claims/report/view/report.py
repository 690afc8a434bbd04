"""A whole run as a report shows it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from kv_claims.evidence.cost import incomplete_text, span
from kv_claims.evidence.schema import (
    CheckSaid,
    EvidenceSaid,
    ProtocolSaid,
    Provenance,
    RunSaid,
    SpentOnModel,
    SpentSaid,
    TrialCounts,
)
from kv_claims.evidence.stored import StoredRun
from kv_claims.judging.result import WORDS
from kv_claims.report.view.arms import ArmView, arms_of
from kv_claims.report.view.claims import ClaimView, claim_view
from kv_claims.report.view.experiment import WHERE, Experiment, experiment_of, title_of
from kv_claims.report.view.geometry import GeometryView, geometry_of
from kv_claims.report.view.scores import Scores
from kv_claims.report.view.texts import TextsView, scorer_from, texts_of


class InstrumentView(NamedTuple):
    """An instrument check that stands on its own."""

    name: str
    passed: bool
    pairs: int
    trials: TrialCounts
    checks: list[CheckSaid]


class ModelView(NamedTuple):
    """Everything about one model. spent: what its trials cost, in words; None where not recorded.

    has_scorer: whether what was counted in texts can be shown.
    """

    anchor: str
    name: str
    short: str
    words: dict[str, int]
    claims: list[ClaimView]
    arms: list[ArmView]
    geometry: list[GeometryView]
    texts: list[TextsView]
    has_scorer: bool
    instrument: list[InstrumentView]
    scorer: dict[str, Any] | None
    provenance: Provenance
    task: str
    spent: str | None


class OverviewRow(NamedTuple):
    """A claim over all models. cells: by model, the claim there or None."""

    claim: str
    says: str
    cells: list[ClaimView | None]


class ReportView(NamedTuple):
    """The whole page.

    title: what its claims are about. experiment: the published one that they are of, if any; where:
    what its section on where a behavior is carried is called.
    expected: verdicts with a planted truth; matched, against: those that it agrees with, and not;
    the rest of them is inconclusive. incomplete, edited: what is amiss with the run as a whole, in
    words; empty where nothing is.
    """

    title: str
    experiment: Experiment | None
    where: str
    run: RunSaid
    words: dict[str, int]
    verdicts: int
    expected: int
    matched: int
    against: int
    unverified: int
    moved: int
    pinned: int
    overview: list[OverviewRow]
    models: list[ModelView]
    protocol: list[ProtocolSaid]
    incomplete: str
    edited: str
    again: str
    spent: str | None


def report_view(stored: StoredRun) -> ReportView:
    """Everything that a report of a stored run shows."""
    reported = stored.reported
    scores = Scores(stored)
    experiment = experiment_of(reported.evidence)
    names = dict.fromkeys(one["model"] for one in [*reported.evidence, *reported.instrument])
    models = [_model(number, name, stored, scores, experiment) for number, name in enumerate(names)]
    cells = [cell for model in models for claim in model.claims for cell in claim.cells]
    expected = [cell for cell in cells if cell.expected is not None]
    return ReportView(
        title=title_of(reported.evidence),
        experiment=experiment,
        where=experiment.where if experiment else WHERE,
        run=reported.run,
        words=_words(reported.evidence),
        verdicts=len(cells),
        expected=len(expected),
        matched=sum(cell.agrees is True for cell in expected),
        against=sum(cell.agrees is False for cell in expected),
        unverified=sum(not cell.verified for cell in cells),
        moved=sum(cell.pinned == "moved" for cell in cells),
        pinned=sum(cell.pinned is not None for cell in cells),
        overview=_overview(models),
        models=models,
        protocol=reported.protocol,
        incomplete=incomplete_text(reported.run),
        edited=str(stored.integrity),
        again=again(reported.run.get("command", "")),
        spent=_spent(reported.run.get("spent")),
    )


def truth_text(view: ReportView) -> str:
    """How verdicts compare with planted truths, in a sentence; empty without any."""
    if not view.expected:
        return ""
    undecided = view.expected - view.matched - view.against
    said = f"Of {view.expected} whose truth is known, {view.matched} are what it says"
    said += f", {undecided} inconclusive" if undecided else ""
    return said + (f", {view.against} against it." if view.against else ", none against it.")


def again(command: str) -> str:
    """The command that was typed, as it is typed in the project's folder."""
    return shlex.join(shlex.split(command) if command else ["pytest", "claims"])


def _model(
    number: int, name: str, stored: StoredRun, scores: Scores, experiment: Experiment | None
) -> ModelView:
    evidence = [one for one in stored.evidence.values() if one["model"] == name]
    instrument = [one for one in stored.instrument if one["model"] == name]
    claims = [
        [one for one in evidence if one["claim"] == claim]
        for claim in dict.fromkeys(one["claim"] for one in evidence)
    ]
    scorer, read = scorer_from(stored.run, name), stored.run.get("prompts", {}).get(name)
    first = (evidence or instrument)[0]
    spent = stored.run.get("spent")
    return ModelView(
        anchor=f"m{number}",
        name=name,
        short=name.rstrip("/").rpartition("/")[2].removeprefix("planted:") or name,
        words=_words(evidence),
        claims=[
            claim_view(f"m{number}-c{place}", cells, scores) for place, cells in enumerate(claims)
        ],
        arms=arms_of(evidence, scores),
        geometry=geometry_of(evidence, scores, experiment),
        texts=[found for cells in claims if (found := texts_of(cells, scores, scorer, read))],
        has_scorer=scorer is not None,
        instrument=[
            InstrumentView(one["name"], one["passed"], one["pairs"], one["trials"], one["checks"])
            for one in instrument
        ],
        scorer=next((one["scorer"] for one in evidence if one["scorer"]), None),
        provenance=first["provenance"],
        task=first["task"],
        spent=_spent_on(spent.get("models", {}).get(name) if spent else None),
    )


def _words(evidence: Sequence[EvidenceSaid]) -> dict[str, int]:
    found = [one["verdict"] for one in evidence]
    return {word: found.count(word) for word in WORDS if word in found}


def _overview(models: Sequence[ModelView]) -> list[OverviewRow]:
    """Claims by models, in the order in which claims were met."""
    says = {claim.claim: claim.says for model in models for claim in model.claims}
    by_model = [{claim.claim: claim for claim in model.claims} for model in models]
    return [
        OverviewRow(claim, said, [found.get(claim) for found in by_model])
        for claim, said in says.items()
    ]


def _spent(spent: SpentSaid | None) -> str | None:
    """Wall time and rate of a run, in words."""
    if not spent:
        return None
    trials, seconds = spent["trials"], spent["seconds"]
    rate = f", {trials / seconds:,.0f} trials per second" if trials and seconds else ""
    run = f", {trials:,} trials run" if trials else ""
    return f"{span(seconds)} from start to end{run}{rate}"


def _spent_on(spent: SpentOnModel | None) -> str | None:
    if not spent:
        return None
    read = f", {spent['read']:,} were in the ledger" if spent["read"] else ""
    rate = spent["run"] / spent["seconds"] if spent["seconds"] else 0.0
    fast = f", {rate:,.0f} a second with judging" if spent["run"] else ""
    return f"{spent['run']:,} trials run in {span(spent['seconds'])}{fast}{read}"
