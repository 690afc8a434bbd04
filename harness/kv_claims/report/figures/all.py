"""Every figure of a report, by the model that it is about."""

from __future__ import annotations

import re
from typing import NamedTuple

from kv_claims.plain import visible
from kv_claims.report.figures.dose import dose_response
from kv_claims.report.figures.geometry import geometry_figure
from kv_claims.report.figures.heatmap import heatmap
from kv_claims.report.figures.style import Drawn
from kv_claims.report.view.report import ModelView, ReportView


class ModelFigures(NamedTuple):
    """The figures of one model; None, or none, where a run has nothing to draw."""

    heatmap: Drawn | None
    dose: Drawn | None
    geometry: list[Drawn]

    @property
    def drawn(self) -> list[Drawn]:
        """Those that there are."""
        return [one for one in (self.heatmap, self.dose, *self.geometry) if one is not None]


def figures_of(view: ReportView) -> dict[str, ModelFigures]:
    """Figures by the anchor of their model; names are unique and fit a file system."""
    return {model.anchor: _figures(model, several=len(view.models) > 1) for model in view.models}


def _figures(model: ModelView, *, several: bool) -> ModelFigures:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model.short).strip("-.")[:40] or "model"
    name = f"{model.anchor}-{name}" if several else name
    title = visible(model.name) if len(model.name) <= 60 else f"{visible(model.name)[:57]}..."
    return ModelFigures(
        heatmap(f"{name}-heatmap", f"Transfer on {title}", model.arms),
        dose_response(f"{name}-dose", f"Dose and response on {title}", model.arms),
        [
            geometry_figure(
                f"{name}-{re.sub('[^a-z0-9]+', '-', found.outcome)}",
                f"{found.outcome} and behavior on {title}",
                found,
            )
            for found in model.geometry
        ],
    )
