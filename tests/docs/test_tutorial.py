"""The tutorial is followed: its files are written, its commands run, and print what it says.

Numbers are not compared, as another CPU may have others in the last digit; words and cells are.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, code
from tests.processes import inherited

PROGRAMS = {
    "kv-claims": [sys.executable, "-m", "kv_claims"],
    # By name, for an environment whose installed package is another checkout's.
    "pytest": [sys.executable, "-m", "pytest", "-p", "kv_claims.plugin.hooks"],
    "python": [sys.executable],
}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _without_numbers(text: str) -> str:
    return " ".join(NUMBER.sub("#", text).split())


def _run(command: str, folder: Path) -> str:
    program, *rest = shlex.split(command)
    ended = subprocess.run(
        [*PROGRAMS[program], *rest],
        cwd=folder,
        env={**inherited(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.stdout.replace(f"{folder}/", "")


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    folder, printed, checked = tmp_path, "", 0
    for part in code(ROOT / "docs/tutorial.md"):
        if file := re.match(r"# (\S+\.py)\n", part.text):
            (folder / file[1]).write_text(part.text, encoding="utf-8")
        elif part.text.startswith("$ "):
            for line in part.text.splitlines():
                if line.startswith("$ cd "):
                    folder /= line.removeprefix("$ cd ")
                elif line.startswith("$ "):
                    printed = _without_numbers(_run(line.removeprefix("$ "), folder))
                else:
                    for said in map(_without_numbers, line.split("...")):
                        assert said in printed
                        checked += bool(said)
    assert checked > 20
