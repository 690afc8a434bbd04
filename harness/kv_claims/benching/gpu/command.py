"""A command of a step: its output goes to the step's log, and it ends in time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from kv_claims.benching.gpu.steps import ROOT
from kv_claims.plain import say

_GRACE_SECONDS = 15.0


class Ran(NamedTuple):
    """status: the exit status; None where it was interrupted as its time was over."""

    status: int | None
    seconds: float


class Started:
    """A command that runs. It is interrupted, not killed, so that it can write what it has."""

    def __init__(self, arguments: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        say(f"$ {shlex.join(map(str, arguments))}")
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], cwd=ROOT, env={**os.environ, **(env or {})}
        )

    def wait(self, seconds: float) -> Ran:
        """Its end, at most so many seconds after its start and those that it needs to stop."""
        left = max(0.1, self._began + seconds - time.monotonic())
        try:
            status: int | None = self._process.wait(left)
        except subprocess.TimeoutExpired:
            status = None
            for number in (signal.SIGINT, signal.SIGKILL):
                self._process.send_signal(number)
                try:
                    self._process.wait(_GRACE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        return Ran(status, round(time.monotonic() - self._began, 1))


def python(*arguments: str, seconds: float, env: Mapping[str, str] | None = None) -> Ran:
    """Run this Python with these arguments in the checkout."""
    return Started(arguments, env=env).wait(seconds)


def workers(most: int = 8) -> list[str]:
    """pytest's options for several processes; none where xdist is not there."""
    count = min(most, max(1, (os.cpu_count() or 1) // 2))
    return ["-n", str(count)] if count > 1 and find_spec("xdist") else []
