"""report.html without a browser: whatever is stored, it renders, and as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.plugin.session import ClaimsSession
from kv_claims.report.page import render_page
from kv_claims.report.render import render_reports
from kv_claims.report.view.report import again, report_view, truth_text
from tests.report.hostile import TEXTS
from tests.report.in_memory import stored_of
from tests.runs import edited_copy

VOID = {"meta", "br", "path", "stop", "use", "rect"}


class Elements(HTMLParser):
    """Names of all elements, in order; fails on a tag that closes none."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page_of(state: ClaimsSession) -> str:
    """The page; without trials there is nothing to draw."""
    return render_page(report_view(stored_of(state)), {})


def replaced(content: Any, text: str) -> Any:
    """The same evidence with every free text of it replaced."""
    free = {"says", "cites", "reason", "model", "task", "detail", "hardware", "because", "cell"}
    if isinstance(content, dict):
        return {
            key: f"{text}{key}" if key in free and isinstance(value, str) else replaced(value, text)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [replaced(value, text) for value in content]
    return content


def test_no_text_of_the_evidence_makes_an_element(every_kind: ClaimsSession) -> None:
    plain = Elements(page_of(_told(every_kind, "plain ")))
    hostile = Elements(page_of(_told(every_kind, "\n".join(TEXTS))))
    assert hostile.names == plain.names
    assert hostile.attributes == plain.attributes
    assert "script" not in hostile.names


def _told(state: ClaimsSession, text: str) -> ClaimsSession:
    evidence = [
        {**replaced(one, text), "cell": f"{text}{number}", "model": state.settings.models[0]}
        for number, one in enumerate(state.evidence)
    ]
    return ClaimsSession(state.settings, evidence=evidence, instrument=state.instrument)


def test_hidden_characters_are_shown(state: ClaimsSession) -> None:
    shown = render_reports(stored_of(_told(state, "a\u202eb\x1b")))
    for content in shown.values():
        assert re.search(r"a\\?\[U\+202E\\?\]b\\?\[U\+001B", content)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", content)


def test_a_run_that_found_nothing_has_a_page(state: ClaimsSession) -> None:
    state.evidence.clear()
    assert "instrument: full-swap on 12 pairs passed" in page_of(state)
    state.instrument.clear()
    page = page_of(state)
    assert "No verdict was reached in this run." in page
    assert 'id="verdicts"' not in page
    assert page.endswith("</html>\n")


def test_one_verdict_is_in_the_singular(state: ClaimsSession) -> None:
    del state.evidence[1:]
    assert "1 verdict on 1 claim and 1 model." in page_of(state)


def test_a_failed_instrument_stands_out(state: ClaimsSession) -> None:
    failed = '<span class="flag loud">FAILED</span>'
    before = page_of(state).count(failed)
    state.instrument[0]["passed"] = False
    state.evidence[0]["checks"][0]["passed"] = False
    state.evidence[0]["checks"][1]["passed"] = None
    page = page_of(state)
    assert page.count(failed) == before + 2
    assert '<span class="flag">not run</span>' in page


def test_an_unknown_verdict_word_is_shown_and_not_trusted(state: ClaimsSession) -> None:
    state.evidence[0]["verdict"] = '"><b>'
    assert '<span class="word invalid">&#34;&gt;&lt;b&gt;</span>' in page_of(state)


def test_truth_and_verdict_are_compared_as_tests_do(state: ClaimsSession) -> None:
    view = report_view(stored_of(state))
    assert truth_text(view) == "Of 2 whose truth is known, 2 are what it says, none against it."
    state.evidence[0].update(verdict="supported")
    state.evidence[1].update(verdict="inconclusive")
    view = report_view(stored_of(state))
    said = "Of 2 whose truth is known, 0 are what it says, 1 inconclusive, 1 against it."
    assert truth_text(view) == said
    assert page_of(state).count('<span class="flag loud">truth: refuted</span>') == 1


@pytest.mark.parametrize(
    ("typed", "again_typed"),
    [
        ("pytest claims -k 'a b'", "pytest claims -k 'a b'"),
        ("", "pytest claims"),
    ],
)
def test_the_command_is_one_that_can_be_typed(typed: str, again_typed: str) -> None:
    assert again(typed) == again_typed


def test_prompts_that_were_rendered_stand_with_their_texts_and_hide_nothing(
    a_run: Path, tmp_path: Path
) -> None:
    """Of a run on chats; a run on texts shows none."""
    bare = render_reports(load_run(a_run))
    assert not any("as the model read" in page for page in bare.values())
    ids = load_run(a_run).trials[["source", "base"]].drop_duplicates()
    rendered = "<|im_start|>user\n{}, </p><script>alert(1)</script>\u202e<|im_end|>"
    read = {
        f"{side}s": {one: rendered.format(one) for one in ids[side]} for side in ("source", "base")
    }
    chat = {"template_sha": "c0ffee" * 10, "date": "2024-07-26", "forms": []}

    def as_chat(content: dict[str, Any]) -> None:
        content["run"]["prompts"] = {"planted:stored-at-layer": read}
        for one in content["evidence"]:
            one["provenance"]["tokens"]["chat"] = chat

    pages = render_reports(load_run(edited_copy(a_run, tmp_path / "chat", as_chat)))
    assert "script" not in Elements(pages["report.html"]).names
    for page in pages.values():
        assert "as the model read" in page
        assert "told that it is 2024" in page
        assert "[U+202E]" in page
        assert "\u202e" not in page
    assert re.search(r"&lt;\|im_start\|&gt;user\nsource-\d+,", pages["report.html"])
    assert re.search(r"^<\|im_start\|>user\nsource-\d+,", pages["report.md"], re.MULTILINE)
