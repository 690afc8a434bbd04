"""Figures: the same bytes each time, text that stays text, colors that follow the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import write_reports
from kv_claims.report.figures.all import figures_of
from kv_claims.report.figures.geometry import geometry_figure
from kv_claims.report.figures.heatmap import heatmap
from kv_claims.report.figures.style import Drawn, inline, save
from kv_claims.report.view.geometry import GeometryView, Panel
from kv_claims.report.view.report import report_view
from tests.report.arms import view

ARMS = [view((9,), "last(16)", 0.4, -0.3), view((12,), "all", 1.0, 0.9)]
POINTS = {"base": [(1.0, 2.0), (1.0, 2.0)], "source": [(3.0, 9.0)], "patched": [(2.0, 5.5)]}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str = "a-name", title: str = "A title") -> Drawn:
    found = heatmap(name, title, ARMS)
    assert found is not None
    return found


def test_a_figure_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
        assert [path.suffix for path in save(drawn(), folder)] == [".svg", ".pdf"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert inline(drawn()) == inline(drawn())


def test_no_date_and_text_as_text(tmp_path: Path) -> None:
    svg = save(drawn(), tmp_path)[0]
    content = svg.read_text(encoding="utf-8")
    assert "dc:date" not in content
    texts = [text.text for text in ET.fromstring(content).iter(f"{SVG}text")]
    assert {"A title", "last(16)", "-0.30", "0.90"} <= set(texts)


@pytest.mark.parametrize(
    "title",
    [
        "$x^2$ and $",
        "<script>alert(1)</script>",
        "a & b --> ]]>",
        "שלום 你好",
        r"\frac{1}{",
        "a" * 300,
    ],
)
def test_any_name_is_drawn_as_it_is(title: str) -> None:
    content = inline(drawn(title=title))
    texts = ["".join(text.itertext()) for text in ET.fromstring(str(content)).iter(f"{SVG}text")]
    assert title in texts
    assert "<script" not in content


def test_colors_follow_the_page() -> None:
    content = inline(drawn())
    assert "var(--ink)" in content
    assert "#1d1f23" not in content


def test_two_figures_of_a_page_share_no_id() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', inline(drawn(name)))) for name in ("one", "two")]
    assert not ids[0] & ids[1]


def test_what_geometry_cannot_say_is_hatched_and_named() -> None:
    panels = [
        Panel("kv@9", "informative", "why", POINTS),
        Panel("v_proj@13/" + "long" * 20, "tautological", "why", POINTS),
        Panel("kv@15", "null", "why", {}),
        Panel("k", None, None, POINTS),
    ]
    figure = geometry_figure("g", "G", GeometryView("rv", "ratio", panels, 0))
    content = inline(figure)
    assert content.count("<pattern") == 1
    assert content.count("url(#") == 2
    texts = [text.text for text in ET.fromstring(content).iter(f"{SVG}text")]
    assert [texts.count(word) for word in ("tautological", "null", "not asked")] == [1, 1, 1]


def test_a_field_that_could_not_be_measured_is_a_dash() -> None:
    unknown = ARMS[0]._replace(transfer=None, interval=None)
    content = inline(heatmap("h", "H", [unknown, ARMS[1]]) or drawn())
    assert "-" in [text.text for text in ET.fromstring(content).iter(f"{SVG}text")]


def test_nothing_to_draw_is_no_figure() -> None:
    assert heatmap("h", "H", ARMS[:1]) is None


def test_the_figures_of_a_run_have_names_that_fit_a_file(every_kind: ClaimsSession) -> None:
    for one in [*every_kind.evidence, *every_kind.instrument]:
        one["model"] = "../a model/" + one["model"]
    write_reports(every_kind)
    found = figures_of(report_view(load_run(every_kind.settings.out)))
    names = [drawn.name for some in found.values() for drawn in some.drawn]
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in names)
