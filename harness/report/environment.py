"""How both reports are rendered: Jinja, strict about names, and nothing hidden in what is written.

Whatever a template writes goes through `visible` first, so that neither markup nor hidden
characters of a model's text, a claim or a path do anything.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.plain import visible
from harness.report.published import counted, scored_by, signed


def environment_of(*, escape: bool) -> Environment:
    """Where templates are found, and what they share. escape: markup in values becomes text."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=escape,
        finalize=_shown,
    )
    environment.filters.update(signed=signed, counted=counted, scored_by=scored_by)
    return environment


def _shown(value: Any) -> Any:
    """What a template writes: markup of ours as it is, everything else with nothing hidden."""
    return value if isinstance(value, Markup) else visible(str(value))
