"""The project's Markdown pages, read as a reader's tools do: links, headings, code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


class Code(NamedTuple):
    """A block or a span of code. language: of a block, or empty."""

    text: str
    language: str


def pages() -> list[Path]:
    """Every Markdown page that is kept, but for the changelog, which speaks of what was."""
    found = (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"))
    kept = {path for path in found if not path.relative_to(ROOT).parts[0].startswith(".")}
    return sorted(path for path in kept if path.name != "CHANGELOG.md")


@cache
def _tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def _inline(path: Path) -> Iterator[Token]:
    for token in _tokens(path):
        yield from token.children or ()


def links(path: Path) -> list[str]:
    """Where its links and images lead, as they are written."""
    found = (token.attrGet("href") or token.attrGet("src") for token in _inline(path))
    return [str(target) for target in found if target]


def anchors(path: Path) -> set[str]:
    """What its headings are linked by, on a code host and in the site."""
    tokens = _tokens(path)
    titles = (tokens[at + 1] for at, token in enumerate(tokens) if token.type == "heading_open")
    return {_slug("".join(part.content for part in title.children or ())) for title in titles}


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def code(path: Path) -> Iterator[Code]:
    """Its blocks, each with its language, and its spans."""
    for token in _tokens(path):
        if token.type in ("fence", "code_block"):
            yield Code(token.content, token.info.strip())
    for token in _inline(path):
        if token.type == "code_inline":
            yield Code(token.content, "")
