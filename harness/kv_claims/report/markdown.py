"""report.md: a run as tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kv_claims.claims.reach import SEED_OUTCOMES, seed_table
from kv_claims.evidence.schema import EvidenceSaid, GeometrySaid, RunSaid
from kv_claims.evidence.stored import Reported
from kv_claims.plain import number
from kv_claims.report.environment import environment_of
from kv_claims.report.markup import Markdown, as_text, code, fence
from kv_claims.report.sentences import (
    asserted_text,
    interval_text,
    part_text,
    unpassed_text,
)
from kv_claims.report.view.claims import patch_text, side_text
from kv_claims.report.view.experiment import Experiment
from kv_claims.report.view.report import ReportView, truth_text
from kv_claims.report.view.texts import RULE


def render(run: RunSaid, state: Reported, view: ReportView) -> str:
    """The report of a run as Markdown. view: the same run as the page shows it."""
    environment = environment_of("markdown")
    environment.filters.update(
        delta=delta,
        fence=fence,
        code=code,
        interval=lambda one: Markdown(interval_text(one)),
        asserted=asserted_text,
        part_text=part_text,
        unpassed_text=unpassed_text,
        patch_text=patch_text,
        flags=_flags,
        geometry_text=geometry_text,
        has_parts=lambda one: len(one["parts"]) > 1,
        by_window=_by_window,
    )
    template = environment.get_template("report.md.j2")
    models = [_model(state, name, view.experiment) for name in _models(state)]
    shown = {model.name: model for model in view.models}
    return template.render(
        run=run,
        models=models,
        protocol=state.protocol,
        view=view,
        shown=shown,
        rule=RULE,
        truth_text=truth_text(view),
    )


def _flags(one: EvidenceSaid) -> str:
    """What stands beside a verdict's word: whether it is unverified, how it stands to its pin."""
    pinned = one.get("pinned")
    flags = ["unverified"] * (not one["verified"])
    flags += [pinned["word"]] if pinned else []
    return f" ({', '.join(flags)})" if flags else ""


def delta(means: Mapping[str, float | None]) -> float | None:
    """Patched - base, where there are both."""
    patched, base = means.get("patched"), means.get("base")
    return None if patched is None or base is None else patched - base


def geometry_text(found: GeometrySaid) -> Markdown:
    """`base, patched, source` means of a geometry, and what they can say on the patch."""
    shown, reach = _three(found["means"]), found["reach"]
    return Markdown(shown if reach in (None, "informative") else f"{shown} (*{as_text(reach)}*)")


def _three(means: Mapping[str, float | None], digits: int = 2) -> str:
    return ", ".join(number(means.get(role), digits) for role in ("base", "patched", "source"))


def _by_window(cells: list[EvidenceSaid]) -> bool:
    """Whether a claim's cells fit a table of windows and layers: a splice of K and V each, on
    behavior."""
    return all(
        one["patch"] is not None
        and len(one["patch"]["all"]) == 1
        and one["patch"]["site"] == "kv"
        and one["patch"]["mode"] == "replace"
        and one["versus"] is None
        and one["outcome"]["name"] == "behavior"
        for one in cells
    )


def _methods(evidence: list[EvidenceSaid]) -> list[dict[str, Any]]:
    """One row an arm that was run, whichever claims it served."""
    rows: dict[str, dict[str, Any]] = {}
    for one in evidence:
        if "patched" not in one["arms"]:
            continue
        row = rows.setdefault(
            one["arms"]["patched"],
            {
                "patch": side_text(one["patch"]),
                "geometry": one["geometry"],
                "behavior": "-",
                "repetition": _three(
                    {role: seen["repeated_4grams"] for role, seen in one["repetition"].items()}
                ),
            },
        )
        for part in one["parts"]:
            if part["outcome"]["name"] == "behavior" and "patched" in part["means"]:
                row["behavior"] = _three(part["means"])
    return list(rows.values())


def _scorer(evidence: list[EvidenceSaid]) -> dict[str, Any] | None:
    """The scorer as every cell of a model has it; `repeated`: its share from repetition, by arm."""
    measured = [one["scorer"] for one in evidence if one["scorer"]]
    if not measured:
        return None
    shares = [found["repetition_share"] for found in measured]
    patched = [share["patched"] for share in shares if share.get("patched") is not None]
    return {
        **measured[0],
        "repeated": _three({**shares[0], "patched": max(patched, default=None)}, 3),
    }


def _own_rows(n_layers: int) -> list[dict[str, Any]]:
    """The seed experiment's method x outcome, each cell marked, in its own order of columns."""
    rows: dict[tuple[str, str], list[str]] = {}
    if n_layers < 2:
        return []
    for cell in seed_table(n_layers=n_layers):
        rows.setdefault((cell.method, str(cell.patch)), []).append(cell.kind)
    assert all(len(kinds) == len(SEED_OUTCOMES) for kinds in rows.values())
    return [
        {"method": method, "patch": patch, "kinds": kinds}
        for (method, patch), kinds in rows.items()
    ]


def _models(state: Reported) -> list[str]:
    return list(dict.fromkeys(one["model"] for one in [*state.evidence, *state.instrument]))


def _model(state: Reported, name: str, experiment: Experiment | None) -> dict[str, Any]:
    """Everything about one model, in the order of the report."""
    evidence = [one for one in state.evidence if one["model"] == name]
    claims = [
        [one for one in evidence if one["claim"] == claim]
        for claim in dict.fromkeys(one["claim"] for one in evidence)
    ]
    shown = [one for one in evidence if one["texts"]]
    instrument = [one for one in state.instrument if one["model"] == name]
    provenance = (evidence or instrument)[0]["provenance"]
    return {
        "name": name,
        "claims": claims,
        "instrument": instrument,
        "families": [f for f in state.families if f["model"] == name and f["size"] > 1],
        "looks": [one for one in evidence if one["multiplicity"]["looks"]["planned"]],
        "best": max(shown, key=lambda one: float(one["texts"]["scores"]["patched"]), default=None),
        "methods": _methods(evidence),
        "scorer": _scorer(evidence),
        "own_table": _own_rows(provenance["n_layers"]) if experiment else [],
        "provenance": provenance,
    }
