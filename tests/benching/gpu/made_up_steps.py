"""Steps that end in every way there is, for `test_run`. Not tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kv_claims.benching.gpu.steps import Finding, Findings, Given


def well(given: Given) -> Findings:
    yield Finding("first", True, [f"on {given.device}", "a | b"], {"number": float("nan")})
    yield Finding("second", None, [f"model {given.model}, small {given.small}"])


def short(_given: Given) -> Findings:
    yield Finding("fine", True, ["fine"])
    yield Finding("not so", False, ["too slow"])


def raises(_given: Given) -> Findings:
    yield Finding("before", True, ["this much was found"])
    raise ValueError("a trace to bring home")


def finds_nothing(_given: Given) -> Findings:
    yield from ()


def dies(_given: Given) -> Findings:
    yield Finding("before", None, ["found"])
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(given: Given) -> Findings:
    """With a child of its own, which must not outlive it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(given.folder / "child").write_text(str(child.pid), encoding="utf-8")
    yield Finding("before", True, ["found before it hung"])
    time.sleep(600)
