"""report.md: a run in the shape of the seed experiment's tables."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.report.terminal import interval_text, region_text
from harness.session import ClaimsSession


def render(run: dict[str, Any], state: ClaimsSession) -> str:
    """The report of a run as Markdown."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(
        number=number, fence=fence, cell_text=cell_text, interval=interval_text, region=region_text
    )
    template = environment.get_template("report.md.j2")
    return template.render(run=run, models=[_model(state, name) for name in _models(state)])


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def fence(text: str) -> str:
    """Generated text as a code block that its own backticks cannot close."""
    longest = max((len(run) for run in _backtick_runs(text)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}text\n{text.strip()}\n{mark}"


def cell_text(text: str) -> str:
    """Text inside a table: no line break, no bar, no markup."""
    flat = " ".join(str(text).split())
    for mark in "\\|`*_<>[]":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _backtick_runs(text: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]


def _models(state: ClaimsSession) -> list[str]:
    return list(dict.fromkeys(one["model"] for one in [*state.evidence, *state.instrument]))


def _model(state: ClaimsSession, name: str) -> dict[str, Any]:
    """Everything about one model, in the order of the report."""
    evidence = [one for one in state.evidence if one["model"] == name]
    claims = [
        [one for one in evidence if one["claim"] == claim]
        for claim in dict.fromkeys(one["claim"] for one in evidence)
    ]
    estimated = [one for one in evidence if one["estimate"] is not None]
    shown = [one for one in evidence if one["texts"]]
    instrument = [one for one in state.instrument if one["model"] == name]
    return {
        "name": name,
        "claims": claims,
        "instrument": instrument,
        "best": max(shown, key=lambda one: float(one["means"]["patched"]), default=None),
        "lowest": min((one["estimate"] for one in estimated), default=None),
        "highest": max((one["estimate"] for one in estimated), default=None),
        "provenance": (evidence or instrument)[0]["provenance"],
    }
