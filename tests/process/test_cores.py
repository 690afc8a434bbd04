"""Threads follow what this process is bound to and OMP_NUM_THREADS, whatever the machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kv_claims.process.cores import threads_for, usable_cores


@pytest.mark.parametrize(
    ("said", "cores", "workers", "threads"),
    [
        (None, 8, 1, 8),
        (None, 8, 3, 2),
        (None, 2, 4, 1),
        ("1", 8, 1, 1),
        ("3", 8, 2, 3),
        ("3", 8, 4, 2),
        ("16", 8, 1, 8),
        ("4,2", 8, 1, 4),
        ("", 8, 1, 8),
        ("0", 8, 1, 8),
        ("many", 8, 1, 8),
    ],
)
def test_a_process_takes_its_share_and_no_more_than_it_is_told(
    said: str | None, cores: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kv_claims.process.cores.usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_for(workers) == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from kv_claims.process.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_there_is_at_least_one() -> None:
    assert usable_cores() >= 1
