"""Every text of an evidence.json may be anything: none of it arrives as markup in a report.

All are replaced by what would be markup, and the report is parsed: it must have the elements that
it has where plain text stands there. What is refused as no evidence arrives nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from typing import Any

import pytest
from markdown_it import MarkdownIt

from kv_claims.errors import UsageError
from kv_claims.evidence.stored import StoredRun
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import run_facts
from kv_claims.report.markdown import render
from kv_claims.report.page import render_page
from kv_claims.report.view.report import report_view
from kv_claims.run.ledger import Ledger
from tests.report.in_memory import stored_of
from tests.report.test_page import Elements

HOSTILE = (
    "x<script>alert(1)</script> | `a` ``` **b** __c__ ~~d~~ $e$ &lt; ![i](http://192.0.2.1/x.png) "
    "[x](javascript:alert(1)) <http://192.0.2.1>\n\n# Heading\n\n- list\n\n```\ncode\n```\n\n"
    "| new | row |\n|---|---|\n\" onmouseover='alert(1)' x=\"]]>-->\r\x1b[2J\u202e"
)
PLAIN = "plain text"
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
Path = tuple[str, ...]
REFUSED: tuple[Path, ...] = (
    ("evidence", "[]", "parts", "[]", "outcome", "name"),
    ("evidence", "[]", "geometry", "[]", "outcome"),
)
CHOOSING = frozenset(
    {"verdict", "expected", "estimand", "site", "mode", "name", "word", "kind", "reach", "why"}
)
"""Keys whose texts decide what a report shows."""


def texts_in(content: Any, path: Path = ()) -> Iterator[Path]:
    """Where texts stand, elements of a list and of mappings by names that are data alike."""
    if isinstance(content, str):
        yield path
    for key, value in _inner(content):
        yield from texts_in(value, (*path, key))


def replaced(content: Any, path: Path, text: str) -> Any:
    """A copy with each text at a place replaced; what it was stands behind, to keep it apart."""
    if not path:
        return f"{text} {content}" if isinstance(content, str) else content
    if isinstance(content, list):
        return [replaced(one, path[1:], text) if path[0] == "[]" else one for one in content]
    if isinstance(content, dict):
        return {
            key: replaced(value, path[1:], text) if path[0] == key else value
            for key, value in content.items()
        }
    return content


def renamed(content: Any, text: str) -> Any:
    """A copy in which names that are data (of versions, controls, models) are others."""
    if isinstance(content, list):
        return [renamed(one, text) for one in content]
    if not isinstance(content, dict):
        return content
    return {
        key: {f"{text}{n}": one for n, one in enumerate(value.values())}
        if key in ("versions", "not_replayed") and isinstance(value, dict)
        else renamed(value, text)
        for key, value in content.items()
    }


def _inner(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, list):
        yield from (("[]", one) for one in content)


def whole(state: ClaimsSession) -> dict[str, Any]:
    """What evidence.json has, with what only some runs have."""
    run = run_facts(state, Ledger())
    run["ledger_lines_set_aside"] = ["main.jsonl line 3: no JSON"]
    run["not_replayed"] = {"it needs a model": 2}
    run["replay"] = {
        "folder": "a folder",
        "kind": "foreign",
        "trials_sha": "0" * 64,
        "scored_by": {"task": "a task", "sha": "1" * 64},
    }
    families = [
        {
            **{"model": state.evidence[0]["model"], "family": "a family", "size": 2, "judged": 1},
            **{"alpha": 0.025, "words": {how: {"refuted": 1} for how in ("share", "holm", "raw")}},
        }
    ]
    for one in state.evidence[:1]:
        one["pinned"] = {"word": "moved", "changes": ["verdict: a -> b"], "notes": []}
        one["verified"] = False
    return {
        "run": run,
        "evidence": state.evidence,
        "instrument": state.instrument,
        "families": families,
    }


def markdown_of(state: ClaimsSession, content: dict[str, Any]) -> list[str]:
    """The elements of report.md, without what stands in them."""
    stored = stored_in(state, content)
    tokens = PARSER.parse(render(content["run"], stored.reported, report_view(stored)))
    found = []
    for token in tokens:
        found.append(f"{token.type} {token.tag}")
        inner = (child.type for child in token.children or ())
        # Text beside text, and escapes, are one text.
        found += [kind for kind in inner if kind not in ("text", "text_special")]
    return found


def page_of(state: ClaimsSession, content: dict[str, Any]) -> tuple[list[str], set[str]]:
    stored = stored_in(state, content)
    elements = Elements(render_page(report_view(stored), {}))
    return elements.names, elements.attributes


def stored_in(state: ClaimsSession, content: dict[str, Any]) -> StoredRun:
    stored = stored_of(state)
    evidence = dict(zip(stored.evidence, content["evidence"], strict=True))
    lists = (tuple(content["instrument"]), tuple(content["families"]), ())
    return StoredRun(stored.folder, content["run"], evidence, stored.trials, *lists)


@pytest.mark.parametrize("of", [markdown_of, page_of])
@pytest.mark.parametrize("kept", [frozenset(), CHOOSING], ids=["all", "all-but-choices"])
def test_no_text_arrives_as_markup(
    every_kind: ClaimsSession, of: Any, kept: frozenset[str]
) -> None:
    content = whole(every_kind)
    paths = [
        path
        for path in dict.fromkeys(texts_in(content))
        if path not in REFUSED and path[-1] not in kept
    ]
    assert len(paths) > 60
    plain, hostile = (
        of(every_kind, reduce(lambda some, path: replaced(some, path, text), paths, content))
        for text in (PLAIN, HOSTILE)
    )
    assert plain == hostile


@pytest.mark.parametrize("path", REFUSED, ids=".".join)
def test_what_has_words_of_its_own_is_refused(every_kind: ClaimsSession, path: Path) -> None:
    content = replaced(whole(every_kind), path, HOSTILE)
    with pytest.raises(UsageError):
        markdown_of(every_kind, content)


@pytest.mark.parametrize("of", [markdown_of, page_of])
def test_no_name_arrives_as_markup(every_kind: ClaimsSession, of: Any) -> None:
    content = whole(every_kind)
    plain, hostile = (of(every_kind, renamed(content, text)) for text in (PLAIN, HOSTILE))
    assert plain == hostile
    assert of(every_kind, deepcopy(content))
