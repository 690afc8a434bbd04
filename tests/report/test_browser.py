"""The page of a real run in a real browser: what is seen, what is asked for, who can read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.evidence.stored import StoredRun, load_run
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER
from kv_claims.plugin.write import write_again, write_reports
from tests.report.browser import Browser, Page, find
from tests.report.hostile import SCRIPT, TEXTS

LAPTOP, PHONE = (1280, 800), (390, 844)
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true })"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find()
    if executable is None:
        why = "no Chromium on this machine ($KV_CLAIMS_CHROMIUM, chromium, google-chrome)"
        # Where CI could not install one, it says so itself, in its log.
        if os.environ.get("CI") == "true" and not os.environ.get("KV_CLAIMS_NO_BROWSER"):
            pytest.fail(f"{why}: expected in CI, where .ci/run installs it", pytrace=False)
        pytest.skip(why)
    with Browser.start(executable) as started:
        yield started


@pytest.fixture(scope="module")
def run(
    finished: ClaimsSession, finished_kinds: ClaimsSession, tmp_path_factory: pytest.TempPathFactory
) -> StoredRun:
    """A run with a claim of every kind, whose model generated everything that is hostile."""
    out = tmp_path_factory.mktemp("a run")
    for state in (finished, finished_kinds):
        ledger = state.settings.out / LEDGER_FOLDER
        shutil.copytree(ledger, out / LEDGER_FOLDER, dirs_exist_ok=True)
    write_reports(
        ClaimsSession(
            replace(finished.settings, out=out),
            evidence=deepcopy([*finished.evidence, *finished_kinds.evidence]),
            instrument=deepcopy(finished.instrument),
        )
    )
    path = out / "trials.parquet"
    trials = pd.read_parquet(path)
    trials["text"] = [TEXTS[n % len(TEXTS)] for n in range(len(trials))]
    trials.to_parquet(path, index=False)
    stored = load_run(out)
    write_again(stored)
    return stored


@pytest.fixture(scope="module")
def wide(browser: Browser, run: StoredRun) -> Page:
    return browser.open(run.folder / "report.html", width=LAPTOP[0], height=LAPTOP[1])


@pytest.fixture(scope="module")
def narrow(browser: Browser, run: StoredRun) -> Page:
    return browser.open(run.folder / "report.html", width=PHONE[0], height=PHONE[1])


def test_every_verdict_has_its_row(wide: Page, run: StoredRun) -> None:
    rows = wide.run(
        "[...document.querySelectorAll('tr.cell')].map(row => [row.dataset.claim, "
        "row.querySelector('th').innerText, row.querySelector('.word').innerText, "
        "row.offsetHeight > 10])"
    )
    evidence = run.evidence.values()
    assert rows == [[one["claim"], one["cell"], one["verdict"], True] for one in evidence]


def test_every_claim_is_said_in_its_own_words(narrow: Page, run: StoredRun) -> None:
    said = narrow.run("[...document.querySelectorAll('.claim h4')].map(one => one.innerText)")
    assert set(said) == {one["says"] for one in run.evidence.values()}


def test_figures_have_a_size_and_show_text(wide: Page) -> None:
    figures = wide.run(
        "[...document.querySelectorAll('figure svg')].map(one => { const box = "
        "one.getBoundingClientRect(); return [box.width, box.height, "
        "one.querySelectorAll('text').length, one.getAttribute('aria-label')] })"
    )
    assert len(figures) == 3  # a heatmap and two geometries: no set of layers has two doses
    for width, height, texts, label in figures:
        assert width > 200
        assert height > 100
        assert texts > 4
        assert label


def test_intervals_are_drawn_where_the_numbers_say(wide: Page, run: StoredRun) -> None:
    places = wide.run(
        "[...document.querySelectorAll('tr.cell')].map(row => { const point = "
        "row.querySelector('.pt'), region = row.querySelector('.region'); if (!point) return null; "
        "const box = point.getBoundingClientRect(), band = region.getBoundingClientRect(); "
        "return (box.left - band.left) / band.width })"
    )
    checked = 0
    for one, share in zip(run.evidence.values(), places, strict=True):
        low, high = one["region"]["low"], one["region"]["high"]
        if share is None or one["estimate"] is None or low is None or high is None:
            continue
        assert share == pytest.approx((one["estimate"] - low) / (high - low), abs=0.03)
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("width", [390, 320])
def test_nothing_is_wider_than_a_phone(browser: Browser, run: StoredRun, width: int) -> None:
    page = browser.open(run.folder / "report.html", width=width, height=844)
    for script in ("0", OPEN_ALL):
        page.run(script)
        found = page.run("[document.documentElement.scrollWidth, window.innerWidth]")
        assert found == [width, width]
    page.close()


def test_nothing_is_asked_for(browser: Browser, run: StoredRun) -> None:
    path = run.folder / "report.html"
    page = browser.open(path, width=LAPTOP[0], height=LAPTOP[1])
    page.run(OPEN_ALL)
    page.run("new Promise(done => setTimeout(done, 300))")
    assert page.requests == [path.as_uri()]
    assert page.events("Log.entryAdded") == []
    assert page.events("Runtime.consoleAPICalled") == []
    page.close()


def test_under_its_policy_nothing_runs_and_nothing_is_fetched(
    browser: Browser, tmp_path: Path
) -> None:
    """The policy alone: markup that got in despite all else would do nothing."""
    from jinja2 import Environment, PackageLoader

    source = Environment(loader=PackageLoader("kv_claims.report")).loader
    assert source is not None
    head = source.get_source(Environment(), "report.html.j2")[0]
    meta = next(line for line in head.splitlines() if "Content-Security-Policy" in line)
    path = tmp_path / "bad.html"
    path.write_text(
        f"<!DOCTYPE html><head>{meta}<title>as it was</title></head><body>{SCRIPT}"
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" onload="document.title = 1">'
        '<link rel="stylesheet" href="other.css"><iframe src="other.html"></iframe></body>'
    )
    page = browser.open(path, width=600, height=400)
    assert page.run("document.title") == "as it was"
    blocked = [event["entry"]["text"] for event in page.events("Log.entryAdded")]
    assert sum("Content Security Policy" in text for text in blocked) >= 3
    page.close()


def test_what_was_generated_shows_as_text(wide: Page) -> None:
    assert wide.run("document.title").startswith("Claims about patching the KV cache")
    wide.run(OPEN_ALL)
    shown = wide.run("document.querySelector('#texts').innerText")
    for text in (SCRIPT, "onerror=", "{{ 7 * 7 }} {% raw %} &lt;b&gt;", "[U+202E]", "[U+001B]"):
        assert text in shown
    assert "\u202e" not in wide.run("document.documentElement.outerHTML")
    elements = wide.run(
        "['script', 'img', 'iframe', 'object', 'embed', 'link', 'form', 'input', 'base'].map(name "
        "=> document.getElementsByTagName(name).length)"
    )
    assert not any(elements)
    handlers = "[...document.querySelectorAll('*')].some(one => [...one.attributes].some(a => "
    assert not wide.run(handlers + "a.name.startsWith('on')))")


def test_markers_and_repetition_are_marked(wide: Page) -> None:
    wide.run(OPEN_ALL)
    again = wide.run("[...document.querySelectorAll('#texts .text .again')].map(o => o.innerText)")
    assert any("sea of the old sea of the old sea" in text for text in again)


def serious(page: Page, options: str = "") -> list[Any]:
    """What axe-core finds that is serious or critical: rule, and where."""
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    page.run(f"{axe}; 0")
    found: list[dict[str, Any]] = page.run(
        f"axe.run(document, {{{options} resultTypes: ['violations']}})"
        ".then(all => all.violations.map(one => ({id: one.id, impact: one.impact, "
        "nodes: one.nodes.slice(0, 3).map(n => n.html)})))"
    )
    return [one for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(
    ("size", "dark"), [(LAPTOP, False), (PHONE, True)], ids=["laptop-light", "phone-dark"]
)
def test_axe_finds_nothing_serious(
    browser: Browser, run: StoredRun, size: tuple[int, int], dark: bool
) -> None:
    page = browser.open(run.folder / "report.html", width=size[0], height=size[1], dark=dark)
    page.run(OPEN_ALL)
    assert serious(page) == []
    page.close()


def test_axe_would_find_it(browser: Browser, run: StoredRun) -> None:
    page = browser.open(run.folder / "report.html", width=LAPTOP[0], height=LAPTOP[1])
    page.run("document.documentElement.style.setProperty('--faint', '#c0c0c0')")
    found = serious(page, "runOnly: ['color-contrast'],")
    assert [one["id"] for one in found] == ["color-contrast"]
    page.close()


def test_it_can_be_printed(wide: Page) -> None:
    assert wide.pdf().startswith(b"%PDF-")
