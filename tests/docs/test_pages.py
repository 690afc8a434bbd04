"""What the pages promise is there: links, files, options, keys, commands, names of Python."""

from __future__ import annotations

import argparse
import ast
import json
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

import kv_claims
from kv_claims.__main__ import _COMMANDS
from kv_claims.plugin import hooks, short_options
from tests.docs.pages import ROOT, anchors, code, links, pages

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
OF_PYTEST = {"--collect-only", "--junitxml", "--dist", "--maxfail", "--reruns", "--rootdir"}
OF_OTHERS = {"--help", "--constraint", "--with", "--has", "--python", "--file", "--part-mb"}
"""Of pip, and of programs of ours that are no command (`make gpu-pack` and the like)."""
OF_A_LAB = ("tutorial.md", "ci.md")
"""Pages whose `claims/` is the reader's."""


@PAGES
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@PAGES
def test_every_file_of_ours_that_is_named_is_there(page: Path) -> None:
    ours = "harness|tests|docs" if page.name in OF_A_LAB else "harness|tests|docs|claims"
    named = re.compile(rf"(?<![\w./-])(?:{ours})/[\w./-]*\w\.(?:py|md|yaml|json)\b")
    found = {path for part in code(page) for path in named.findall(part.text)}
    assert [path for path in sorted(found) if not (ROOT / path).exists()] == []


class _Asked:
    """A pytest parser that only keeps the names that a plugin adds."""

    def __init__(self, *plugins: object) -> None:
        self.options: set[str] = set()
        self.keys: set[str] = set()
        for plugin in plugins:
            plugin.pytest_addoption(self)  # type: ignore[attr-defined]

    def getgroup(self, *_names: str, **_rest: object) -> _Asked:
        return self

    def addoption(self, *names: str, **_rest: object) -> None:
        self.options.update(name for name in names if name.startswith("--"))

    def addini(self, name: str, *_rest: object, **_more: object) -> None:
        self.keys.add(name)


LONG = _Asked(hooks)
SHORT = _Asked(short_options)


def _of_commands() -> dict[str, set[str]]:
    found = {}
    for command in _COMMANDS:
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        found[command.NAME] = set(OPTION.findall(parser.format_help()))
    return found


COMMANDS = _of_commands()


@PAGES
def test_every_option_that_is_named_exists(page: Path) -> None:
    known = LONG.options | SHORT.options | OF_PYTEST | OF_OTHERS | set().union(*COMMANDS.values())
    named = {option for part in code(page) for option in OPTION.findall(part.text)}
    assert sorted(named - known) == []


def _calls(page: Path) -> Iterator[tuple[str, str]]:
    """The command lines of a page: the program (with its command), and the rest."""
    program = re.compile(r"^(?:\$ )?(?:\S*python -m )?(pytest|kv-claims|kv_claims) ([^#\n]*)")
    for part in code(page):
        for line in part.text.splitlines():
            if found := program.match(line.strip()):
                rest = found[2].strip()
                if found[1] == "pytest":
                    yield "pytest", rest
                else:
                    command, _, rest = rest.partition(" ")
                    yield command, rest


@PAGES
def test_every_command_is_called_with_options_of_its_own(page: Path) -> None:
    wrong = []
    for command, rest in _calls(page):
        if command in ("COMMAND", "..."):
            continue
        known = {
            "pytest": LONG.options | SHORT.options | OF_PYTEST,
            "run": LONG.options | SHORT.options | OF_PYTEST | COMMANDS.get("run", set()),
        }.get(command, COMMANDS.get(command))
        if known is None or set(OPTION.findall(rest)) - known:
            wrong.append(f"{command} {rest}")
    assert wrong == []


def test_every_option_key_and_command_is_documented() -> None:
    page = ROOT / "docs/options.md"
    spans = " ".join(part.text for part in code(page))
    named = set(OPTION.findall(spans))
    assert sorted((LONG.options | SHORT.options) - named) == []
    assert sorted(key for key in LONG.keys if key not in spans.split()) == []
    assert sorted(name for name in COMMANDS if f"kv-claims {name}" not in spans) == []


@PAGES
def test_python_on_a_page_can_be_read_and_its_imports_are_there(page: Path) -> None:
    for part in code(page):
        if part.language != "python":
            continue
        for node in ast.walk(ast.parse(part.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kv_claims"):
                module = import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "kv_claims"
            ):
                assert node.attr in kv_claims.__all__


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    module, _, rest = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        return bool(module) and hasattr(import_module(module), rest) if _is_there(module) else False
    return True


@PAGES
def test_every_name_of_python_that_is_given_is_there(page: Path) -> None:
    dotted = re.compile(r"(?<![\w.:/-])kv_claims(?:\.[a-z_]\w*)+(?![\w-])")
    named = {name for part in code(page) for name in dotted.findall(part.text)}
    assert [name for name in sorted(named) if not _is_there(name)] == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=\[ ]", one)[0] for one in asked}
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    stubs = {name for name in names if name.endswith("-stubs") or name.startswith("types-")}
    assert [name for name in sorted(names - stubs) if name.lower() not in page] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert [name for name in kv_claims.__all__ if f":: kv_claims.{name}\n" not in text] == []


def test_every_page_is_in_the_table_of_contents() -> None:
    """Sphinx says so too, but only when the site is built."""
    text = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    (globbed,) = re.findall(r"^(\w+)/\*$", text, re.MULTILINE)
    listed = set(re.findall(r"^[\w/-]+$", text, re.MULTILINE))
    docs = [
        path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")
    ]
    kept = {str(path) for path in docs if path.parts[0] not in (globbed, "examples")}
    assert kept - {"index"} <= listed


def test_the_results_of_the_readme_are_those_that_are_pinned() -> None:
    pins = json.loads((ROOT / "claims/pins/mini.json").read_text(encoding="utf-8"))["claims"]
    row = re.compile(r"^\| .* \| `([\w-]+)`, `([\w+-]+)` \| (.*?) ?\| (\w+)", re.MULTILINE)
    rows = row.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(rows) == 4
    for claim, cell, numbers, word in rows:
        pin = pins[claim]["cells"][cell]
        (part,) = pin["parts"]
        assert word == pin["verdict"]
        told = (
            ""
            if part["estimate"] is None
            else (f"{part['estimate']:.3f} [{part['interval'][0]:.3f}, {part['interval'][1]:.3f}]")
        )
        assert numbers.strip() == told


EXAMPLES = [
    path
    for path in sorted((ROOT / "docs/examples/neighbours").glob("*.py"))
    if path.name != "run_all.py"
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_is_shown_of_neighbours_is_what_runs(path: Path) -> None:
    """`make docs-neighbours` runs the files."""
    assert path.read_text(encoding="utf-8") in (ROOT / "docs/coming-from.md").read_text(
        encoding="utf-8"
    )
