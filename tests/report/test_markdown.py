"""report.md: what a model generated stays inside its block or its cell."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kv_claims.plain import LONGEST_SHOWN, number, visible
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import run_facts
from kv_claims.report.markdown import delta, render
from kv_claims.report.markup import Markdown, as_text, code, fence
from kv_claims.report.view.report import report_view
from kv_claims.run.ledger import Ledger
from tests.report.in_memory import stored_of

HOSTILE = [
    "plain",
    "```\n# Out\n```",
    "`````text\n<script>alert(1)</script>",
    "| a | b |\n|---|---|",
    "~~~\n## Out\n~~~",
    "    ```\n<img src=x onerror=alert(1)>\n   ````",
    "\n\n```\n",
    "``` ```",
    "",
]
HOSTILE_IDS = ["plain", "fence", "script", "table", "tildes", "indented", "edge", "inline", "empty"]
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_LISTED = ("paragraph", "bullet_list", "list_item", "heading", "table", "thead", "tbody")
BLOCKS = {
    "inline",
    *(f"{name}_{end}" for name in (*_LISTED, "tr", "th", "td") for end in ("open", "close")),
}
# Of the characters that mean something to Markdown, and those that Markdown or Python end lines at.
markup = st.text(alphabet=st.sampled_from("`~|\\*_<>[]#&! ab\n\r\t\x0b\x0c\x85\u2028"), max_size=40)


def outside_of_fences(markdown: str) -> list[str]:
    """Lines that are not code, by CommonMark's rule for a fence of backticks (spec 0.31, 4.5)."""
    outside, mark = [], ""
    for line in re.split(r"\r\n|\n|\r", markdown):
        if mark:
            closing = re.fullmatch(r" {0,3}(`{3,})[ \t]*", line)
            if closing and len(closing[1]) >= len(mark):
                mark = ""
        elif opening := re.match(r" {0,3}(`{3,})[^`]*$", line):
            mark = opening[1]
        else:
            outside.append(line)
    assert not mark, "a fence that never closes"
    return outside


@pytest.mark.parametrize("text", HOSTILE, ids=HOSTILE_IDS)
def test_a_text_cannot_close_its_fence(text: str) -> None:
    assert outside_of_fences(f"before\n\n{fence(text)}\n\nafter") == ["before", "", "", "after"]
    assert text.strip() in fence(text)


@given(text=markup)
def test_no_text_can_close_its_fence(text: str) -> None:
    assert outside_of_fences(f"before\n{fence(text)}\nafter") == ["before", "after"]


@given(text=markup)
def test_no_text_can_leave_its_table_cell(text: str) -> None:
    cell = as_text(text)
    assert len(cell.splitlines()) <= 1
    # Every character that could end the cell or begin markup has its backslash.
    assert re.fullmatch(r"(?:\\[^A-Za-z0-9\s]|[^\\|`*_<>\[\]~$\n\r])*", cell)
    assert as_text(cell) is cell


@given(text=markup | st.text())
def test_text_is_read_as_it_is_and_marks_nothing_up(text: str) -> None:
    """By a Markdown parser: in a paragraph, a list item, a heading, and a cell of a table."""
    for before, wanted in (
        ("A ", ["paragraph_open", "inline", "paragraph_close"]),
        ("- ", ["bullet_list_open", "list_item_open", "paragraph_open", "inline"]),
        ("## ", ["heading_open", "inline", "heading_close"]),
        ("| a | b |\n|---|---|\n| x | ", ["table_open", "thead_open", "tr_open", "th_open"]),
    ):
        shown = as_text(f"x{text}" if before == "- " else text)
        tokens = PARSER.parse(f"{before}{shown}{' |' if before[0] == '|' else ''}\n")
        assert [token.type for token in tokens][: len(wanted)] == wanted
        assert not {token.type for token in tokens} - BLOCKS
        kinds = {child.type for token in tokens for child in token.children or ()}
        assert kinds <= {"text", "text_special"}
    plain = "".join(child.content for child in PARSER.parse(f"A {shown}")[1].children or ())
    assert plain.split() == f"A {visible(text)}".split()


@pytest.mark.parametrize(
    "begin", ["# a", "## a", "#", "- a", "+ a", "1. a", "12) a", "    a", "\ta"]
)
def test_text_that_begins_an_item_begins_no_block(begin: str) -> None:
    tokens = PARSER.parse(f"- {as_text(begin)}\n")
    assert [token.type for token in tokens] == [
        *("bullet_list_open", "list_item_open", "paragraph_open", "inline"),
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    ]
    assert "".join(child.content for child in tokens[3].children or ()) == begin.strip()


@given(text=markup | st.text())
def test_code_is_code(text: str) -> None:
    (_, inline, _) = PARSER.parse(f"A {code(text)} b")
    kinds = [child.type for child in inline.children or ()]
    assert kinds == (["text", "code_inline", "text"] if visible(text).strip() else ["text"])


def test_what_is_long_is_cut_and_says_so() -> None:
    for show in (as_text, code, fence):
        shown = show("a" * 1_000_000)
        assert len(shown) < LONGEST_SHOWN + 100
        assert "more characters" in shown
    assert as_text(Markdown("*ours*")) == "*ours*"
    assert as_text(-0.5) == "-0.5"


@pytest.mark.parametrize(
    ("given_value", "digits", "shown"),
    [
        *((None, 2, "-"), (float("nan"), 2, "-"), (float("inf"), 2, "-")),
        *((0.0, 2, "0.00"), (-0.0001, 2, "0.00"), (1.005, 2, "1.00")),
        *((1 / 3, 3, "0.333"), (-2.345, 1, "-2.3")),
    ],
)
def test_numbers_have_so_many_digits(given_value: float | None, digits: int, shown: str) -> None:
    assert number(given_value, digits) == shown


def report_of(state: ClaimsSession) -> str:
    return render(run_facts(state, Ledger()), state, report_view(stored_of(state)))


@pytest.mark.parametrize("text", HOSTILE[1:], ids=HOSTILE_IDS[1:])
def test_generated_text_stands_in_the_report_as_code_only(state: ClaimsSession, text: str) -> None:
    before = outside_of_fences(report_of(state))
    for one in state.evidence:
        one["texts"].update(base=text, source=text, patched=text)
    assert outside_of_fences(report_of(state)) == before


def test_a_reason_with_markup_stays_in_its_row(state: ClaimsSession) -> None:
    rows = report_of(state).count("\n|")
    for one in state.evidence:
        one["reason"] = "a | b <script>\n| new | row |"
    report = report_of(state)
    assert report.count("\n|") == rows
    assert "<script>" not in report
    assert r"a \| b \<script\> \| new \| row \|" in report


def test_lines_set_aside_are_in_the_report(state: ClaimsSession) -> None:
    run = {**run_facts(state, Ledger()), "ledger_lines_set_aside": ["main.jsonl line 3: <b>"]}
    assert "\n- main.jsonl line 3: \\<b\\>\n" in render(run, state, report_view(stored_of(state)))


def test_a_run_of_the_instrument_check_alone_has_a_report(state: ClaimsSession) -> None:
    state.evidence.clear()
    assert "Full swap on 12 pairs: passed (an instrument check, not a claim)." in report_of(state)


def test_an_estimate_that_does_not_exist_is_a_dash(state: ClaimsSession) -> None:
    for one in state.evidence:
        one.update(estimate=None, interval=None, means={}, texts={}, controls={}, verdict="invalid")
    report = report_of(state)
    assert "| - | - | - | - | - | - |" in report
    assert "Generated text samples" not in report


def tables(markdown: str) -> list[list[str]]:
    """Tables outside of code, each as its lines."""
    found: list[list[str]] = [[]]
    for line in outside_of_fences(markdown):
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def columns(line: str) -> int:
    """Cells of a table's line; a bar behind a backslash ends none."""
    return len(re.sub(r"\\.", "", line).strip().strip("|").split("|"))


def test_every_row_of_every_table_has_the_columns_of_its_head(every_kind: ClaimsSession) -> None:
    found = tables(report_of(every_kind))
    assert len(found) > 10
    for head, rule, *rows in found:
        assert set(rule) <= set("|-")
        assert rows, head
        assert {columns(line) for line in (rule, *rows)} == {columns(head)}, head


def test_every_claim_is_in_the_report_with_its_word(every_kind: ClaimsSession) -> None:
    report = report_of(every_kind)
    for one in every_kind.evidence:
        assert f"**{one['claim']}**: " in report
        assert f"**{one['verdict']}**: " in report
    assert report.count("| Part |") == 1
    assert "none: source against base" in report
    assert "kv@12/last(16) versus kv@9/last(16)" in report
    assert "kv@9/last(16) & v\\_proj@3/all" in report


def test_geometry_that_says_nothing_is_marked_so(every_kind: ClaimsSession) -> None:
    """Arms that were run are listed with their geometry, and with what reading it can tell."""
    report = report_of(every_kind)
    (methods,) = [table for table in tables(report) if table[0].startswith("| Patch | pr@27/32")]
    rows = {line.split("|")[1].strip(): line for line in methods[2:]}
    # Layer 12 is depth 25/32, one arm; and the patch that was never run has no row.
    assert set(rows) == {
        "kv@25/32/last(16)",
        "residual@12/last(2)/every\\_step",
        "kv@9/last(16) & v\\_proj@3/all",
    }
    geometry = every_kind.evidence[0]["geometry"]
    assert [f"(*{one['reach']}*)" in rows["kv@25/32/last(16)"] for one in geometry] == [
        one["reach"] != "informative" for one in geometry
    ]


def scorer_table(state: ClaimsSession) -> list[str]:
    (found,) = [table for table in tables(report_of(state)) if table[0].startswith("| AUC |")]
    assert len(found) == 3
    return [cell.strip() for cell in found[2].strip("|").split("|")]


def test_the_scorer_has_one_line_a_model(every_kind: ClaimsSession) -> None:
    found = every_kind.evidence[0]["scorer"]
    found.update(auc=0.9, interval=[0.8, 0.95], by="source", clusters=11, why=None)
    found.update(false_positives=3, false_positive_interval=[0.1, 0.5])
    shares = (0.25, 0.5, None)
    for one, share in zip(every_kind.evidence, shares, strict=False):
        one["scorer"]["repetition_share"] = {"base": 0.0, "source": 0.125, "patched": share}
    assert scorer_table(every_kind) == [
        "0.900",
        "0.800 to 0.950, by source (11)",
        "3 of 12 base texts",
        "0.100 to 0.500",
        "0.000, 0.500, 0.125",
    ]


def test_where_the_scorer_has_no_interval_it_is_said(state: ClaimsSession) -> None:
    state.evidence[0]["scorer"].update(interval=None, why="all scores are equal")
    assert scorer_table(state)[1] == "none: all scores are equal"


def test_where_nothing_was_run_the_scorer_has_no_line(state: ClaimsSession) -> None:
    for one in state.evidence:
        one["scorer"] = {}
    assert "### The scorer" not in report_of(state)


def test_a_difference_needs_both_means() -> None:
    assert delta({"patched": 3.0, "base": 1.0}) == 2.0
    for lacking in ({"patched": 3.0}, {"base": 1.0}, {"patched": None, "base": 1.0}, {}):
        assert number(delta(lacking)) == "-"
