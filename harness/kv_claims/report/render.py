"""The reports of a stored run: `report.md` and `report.html`, from nothing but what is stored."""

from __future__ import annotations

from pathlib import Path

from kv_claims.evidence.stored import StoredRun
from kv_claims.report.figures.all import figures_of
from kv_claims.report.figures.style import save
from kv_claims.report.markdown import render
from kv_claims.report.page import render_page
from kv_claims.report.view.report import report_view


def render_reports(stored: StoredRun) -> dict[str, str]:
    """Text by file name; the same bytes for the same run."""
    view = report_view(stored)
    return {
        "report.md": render(stored.run, stored.reported, view),
        "report.html": render_page(view, figures_of(view)),
    }


def save_figures(stored: StoredRun, folder: Path) -> list[Path]:
    """Write every figure of a run as SVG and PDF; returns the paths."""
    figures = figures_of(report_view(stored)).values()
    return [path for some in figures for drawn in some.drawn for path in save(drawn, folder)]
