"""Geometry of the values against behavior, trial by trial, with what the geometry can say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, canonical
from kv_claims.claims.sites import HeadCounts
from kv_claims.evidence.schema import EvidenceSaid
from kv_claims.report.view.arms import parse_arm
from kv_claims.report.view.claims import side_text
from kv_claims.report.view.experiment import Experiment
from kv_claims.report.view.scores import Scores

Points = list[tuple[float, float]]
MOST_PANELS = 12


class Panel(NamedTuple):
    """One patch: `(geometry, behavior)` of every trial of an arm. reach: what geometry can say.

    why: that in a sentence, None where it was not asked.
    """

    title: str
    reach: str | None
    why: str | None
    points: dict[str, Points]


class GeometryView(NamedTuple):
    """Panels of one outcome on a model. others: arms with a geometry that are not shown."""

    outcome: str
    unit: str
    panels: list[Panel]
    others: int


def geometry_of(
    evidence: Sequence[EvidenceSaid], scores: Scores, experiment: Experiment | None
) -> list[GeometryView]:
    """For each geometry that stands beside the verdicts of a model, a panel a patch.

    Shown are the experiment's methods where they were run, else the first patches.
    """
    arms: dict[str, EvidenceSaid] = {}
    for one in evidence:
        if one["geometry"] and "patched" in one["arms"]:
            arms.setdefault(one["arms"]["patched"], one)
    if not arms:
        return []
    chosen = _chosen(arms, experiment)
    found = []
    names = [said["outcome"] for said in next(iter(arms.values()))["geometry"]]
    for number, name in enumerate(names):
        outcome = Outcome.parse(name)
        panels = [_panel(one, number, outcome, scores) for one in chosen]
        if any(panel.points for panel in panels):
            unit = str(outcome.describe(chosen[0]["provenance"]["n_layers"])["unit"])
            found.append(GeometryView(name, unit, panels, len(arms) - len(chosen)))
    return found


def _chosen(arms: dict[str, EvidenceSaid], experiment: Experiment | None) -> list[EvidenceSaid]:
    n_layers = next(iter(arms.values()))["provenance"]["n_layers"]
    methods = experiment.methods(n_layers) if experiment else []
    wanted = dict.fromkeys(_plain(patch, n_layers) for _, patch in methods)
    by_patch = {
        _plain(patch, n_layers): one for arm, one in arms.items() if (patch := parse_arm(arm))
    }
    own = [by_patch[patch] for patch in wanted if patch in by_patch]
    return (own or list(arms.values()))[:MOST_PANELS]


def _plain(patch: Patch, n_layers: int) -> str:
    return str(canonical(patch, n_layers, HeadCounts(1, 1)) if patch.heads == "all" else patch)


def _panel(one: EvidenceSaid, number: int, outcome: Outcome, scores: Scores) -> Panel:
    said = one["geometry"][number]
    points: dict[str, Points] = {}
    n_layers = one["provenance"]["n_layers"]
    for role in ("base", "source", "patched"):
        # A published table need not have every arm.
        arm = one["arms"].get(role)
        rows = None if arm is None else scores.rows((one["model"], one["study"]), arm)
        if rows is None or (outcome.name == "rv" and n_layers < 2):
            continue
        rows = rows[(rows["pair_index"] < one["pairs"]).to_numpy()]
        geometry = scores.values(rows, outcome, n_layers)
        both = zip(geometry.tolist(), rows["score"].tolist(), strict=True)
        if known := [(x, y) for x, y in both if math.isfinite(x)]:
            points[role] = known
    title = side_text(one["patch"])
    return Panel(title, said["reach"], said["why"], points)
