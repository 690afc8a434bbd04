"""The reports of a stored run: `report.md` and `report.html`, from nothing but what is stored."""

from __future__ import annotations

from pathlib import Path

from harness.report.figures.all import figures_of
from harness.report.figures.style import save
from harness.report.markdown import render
from harness.report.page import render_page
from harness.report.view.report import report_view
from harness.stored import StoredRun


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
