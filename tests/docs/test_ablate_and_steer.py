"""The script of docs/how-to/ablate-and-steer.md prints what the page says."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT


def test_the_script_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/how-to/ablate-and-steer.md").read_text(encoding="utf-8")
    _, tried = page.split("## Try it")
    script, printed = re.findall(r"```(?:python)?\n(.*?)```", tried, re.DOTALL)
    exec(compile(script, "docs/how-to/ablate-and-steer.md", "exec"), {})
    assert capsys.readouterr().out == printed
