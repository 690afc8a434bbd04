"""The `conftest.py` of a project made by a test: the plugin, and faults to order."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["kv_claims.plugin.hooks", "kv_claims.plugin.short_options"]


def pytest_addoption(parser: pytest.Parser) -> None:
    # Stands for the plugin pytest-rerunfailures, which need not be installed.
    parser.addoption("--reruns", type=int)


def pytest_configure() -> None:
    if order := os.environ.get("KV_TEST_SIGNAL"):
        name, appends, *to = order.split(":")
        # A second Ctrl-C breaks off what the first began: one worker tells the controller.
        if not to or os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
            _signal_after(int(appends), getattr(signal, name), os.getppid() if to else os.getpid())
    if size := os.environ.get("KV_TEST_DISK"):
        _fill_disk(int(size))
    if log := os.environ.get("KV_TEST_WRITES"):
        _log_writes(Path(log))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"torch is loaded: {'torch' in sys.modules}")


def _signal_after(appends: int, number: int, to: int) -> None:
    """Send a signal to a process once so many batches are in the ledger; a kill tears a line."""
    from kv_claims.run.ledger import Ledger

    # Started in the background, a process ignores Ctrl-C, and so do those that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    append, done = Ledger.append, count(1)

    def append_then_signal(self: Ledger, trials: Any) -> None:
        append(self, trials)
        if next(done) == appends:
            if number == signal.SIGKILL:
                assert self.folder is not None
                with (self.folder / "main.jsonl").open("a") as file:
                    file.write('0123456789abcdef {"key": "cut o')
            os.kill(to, number)

    Ledger.append = append_then_signal  # type: ignore[method-assign]


def _fill_disk(size: int) -> None:
    """Let no file of this process grow beyond so many bytes: an error as of a full disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _log_writes(log: Path) -> None:
    """A line in `log` for every time that this process writes the reports."""
    from kv_claims.plugin import write

    write_reports = write.write_reports

    def logged(state: Any) -> None:
        write_reports(state)
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")

    write.write_reports = logged
