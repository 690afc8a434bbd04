"""report.html: one file that needs nothing else, and in which everything stored is text.

Autoescape is on, and whatever a template writes is bounded and goes through `visible` first, so
that neither markup nor hidden characters of a model's text, a claim or a path do anything. No
script, and a Content-Security-Policy under which none would run and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from kv_claims.judging.result import WORDS
from kv_claims.report.environment import environment_of
from kv_claims.report.figures.all import ModelFigures
from kv_claims.report.figures.style import inline
from kv_claims.report.view.report import ReportView, truth_text
from kv_claims.report.view.texts import RULE

PIN_WORDS = {
    "moved": "moved from its pin",
    "undecided": "moved from its pin? undecided",
    "not compared": "not compared with its pin",
    "recorded": "pin recorded",
}
"""How a verdict stands to its pin, where the word does not say so by itself."""


def render_page(view: ReportView, figures: Mapping[str, ModelFigures]) -> str:
    """The page of a run."""
    environment = environment_of("html")
    environment.filters["whole"] = lambda value: Markup(escape(value))
    environment.globals["words"] = WORDS
    environment.globals["pin_words"] = PIN_WORDS
    return environment.get_template("report.html.j2").render(
        view=view,
        figures={anchor: _drawn(some) for anchor, some in figures.items()},
        has_arms=any(model.arms for model in view.models),
        has_geometry=any(model.geometry for model in view.models),
        has_texts=any(model.texts for model in view.models),
        rule=RULE,
        truth_text=truth_text(view),
    )


def _drawn(figures: ModelFigures) -> dict[str, Any]:
    return {
        "heatmap": inline(figures.heatmap) if figures.heatmap else None,
        "dose": inline(figures.dose) if figures.dose else None,
        "geometry": [inline(one) for one in figures.geometry],
    }
