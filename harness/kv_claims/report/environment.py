"""How both reports are rendered: Jinja, strict about names, and nothing hidden in what is written.

Whatever a template writes is bounded and shown as text, of HTML or of Markdown, by default: neither
markup nor hidden characters of a model's text, a claim or a path do anything, and no template has
to remember it. Markup of ours is a `Markup` or a `Markdown`.
"""

from __future__ import annotations

from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kv_claims.plain import LONGEST_SHOWN, cut, number, visible
from kv_claims.report.markup import as_text
from kv_claims.report.published import counted, scored_by, signed


def environment_of(kind: Literal["html", "markdown"]) -> Environment:
    """Where templates are found, and what they share. kind: of markup that they are written in."""
    environment = Environment(
        loader=PackageLoader("kv_claims.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=kind == "html",
        finalize=_in_html if kind == "html" else as_text,
    )
    environment.filters.update(number=number, signed=signed, counted=counted, scored_by=scored_by)
    return environment


def _in_html(value: Any) -> Any:
    """Markup of ours as it is; all else bounded, with nothing hidden, for Jinja to escape."""
    return value if isinstance(value, Markup) else visible(cut(str(value), LONGEST_SHOWN))
