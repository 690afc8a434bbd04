"""How figures look, and how they are saved: the same bytes for the same data.

SVG with a fixed hash salt, no date and text as text. In the page, colors become variables of its
style sheet, so that one drawing does for light and dark; in files they are what stands here.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.transforms import Transform

from kv_claims.errors import UsageError
from kv_claims.plain import visible

INK, FAINT, RULE, PAPER = "#1d1f23", "#5b6069", "#d3d6dc", "#fefefd"
BASE, SOURCE, PATCHED = "#8a8f99", "#2f3640", "#0b6bab"
SERIES = ("#0a6bac", "#b5490e", "#2a7a5c", "#8b4a9c", "#7a6a12", "#50565f")
"""Colors that differ for the color-blind, and always come with a marker of their own."""
MARKERS = ("o", "s", "^", "D", "v", "P")
WASH = "#e9ebef"
_VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    RULE: "rule",
    PAPER: "paper",
    BASE: "base",
    SOURCE: "source",
    PATCHED: "patched",
    WASH: "wash",
    **{color: f"series-{number}" for number, color in enumerate(SERIES)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
}
_COMMENTS = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.S)
_IDS = re.compile(r'(<g) id="[A-Za-z0-9_. -]+"')
_LONG = re.compile(r"(\d+\.\d\d)\d+")
_DOT = re.compile(r"M (\S+) (\S+) \nL \1 \2 \n")


class Drawn(NamedTuple):
    """A figure with its name (of a file, and the salt of its ids), and what it shows in words."""

    name: str
    figure: Figure
    says: str


class Sheet(Figure):
    """A figure that a notebook shows by itself, whether pyplot was imported or not."""

    def _repr_svg_(self) -> str:
        return _bytes(Drawn("figure", self, ""), "svg").decode("utf-8")


def sheet(width: float, height: float) -> Figure:
    """An empty figure, in inches, in this style."""
    with mpl.rc_context(_SETTINGS):
        return Sheet(figsize=(width, height))


def styled() -> AbstractContextManager[None]:
    """The settings under which a figure is drawn."""
    return mpl.rc_context(_SETTINGS)


def scatter(
    figure: Figure,
    points: list[tuple[float, float]],
    place: Transform,
    color: str,
    size: float,
    alpha: float = 0.55,
) -> None:
    """Round points as one path: a file of thousands of them stays small."""
    spots = dict.fromkeys(points)
    vertices = [end for spot in spots for end in (spot, spot)]
    outline = Outline(vertices, [Outline.MOVETO, Outline.LINETO] * len(spots))
    dots = PathPatch(outline, fill=False, edgecolor=color, linewidth=size, capstyle="round")
    dots.set_alpha(alpha)
    dots.set_transform(place)
    figure.add_artist(dots)


def inline(drawn: Drawn) -> Markup:
    """The figure as an `<svg>` element for the page; matplotlib escapes the text in it."""
    found = visible(_COMMENTS.sub("", _bytes(drawn, "svg").decode("utf-8")).strip())
    found = _LONG.sub(r"\1", _IDS.sub(r"\1", found))
    found = _DOT.sub(r"M\1 \2h0", found)
    for color, name in _VARIABLES.items():
        found = found.replace(color, f"var(--{name})")
    label = Markup.escape(visible(drawn.says))
    head = f'<svg role="img" aria-label="{label}" focusable="false" '
    return Markup(found.replace("<svg ", head, 1))


def save(drawn: Drawn, folder: Path) -> list[Path]:
    """Write the figure as SVG and PDF; returns both paths."""
    paths = [folder / f"{drawn.name}.{kind}" for kind in ("svg", "pdf")]
    for path in paths:
        save_as(drawn, path)
    return paths


def save_as(drawn: Drawn, path: Path) -> None:
    """Write the figure in the format that the path's ending names.

    Raises UsageError for an ending that names none, or a folder that is not there.
    """
    kind, known = (
        path.suffix.lower().removeprefix("."),
        drawn.figure.canvas.get_supported_filetypes(),
    )
    if kind not in known:
        raise UsageError(f"figure {path}: ending {path.suffix!r}, expected one of {sorted(known)}")
    if not path.parent.is_dir():
        raise UsageError(f"figure {path}: there is no folder {path.parent}")
    path.write_bytes(_bytes(drawn, kind))


_UNDATED: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def _bytes(drawn: Drawn, kind: str) -> bytes:
    """The figure as a file of a kind; those of two runs are the same."""
    buffer = io.BytesIO()
    with styled(), mpl.rc_context({"svg.hashsalt": drawn.name}), _quiet():
        drawn.figure.savefig(
            buffer,
            format=kind,
            transparent=kind == "svg",
            dpi=200,
            metadata=_UNDATED.get(kind),
        )
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Names in any script may be drawn: a letter that the font lacks is no reason to stop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield
