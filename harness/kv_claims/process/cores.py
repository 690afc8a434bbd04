"""How many cores this process may use: what it is bound to, not what the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on (`taskset`, a container's set of CPUs)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads_for(workers: int = 1) -> int:
    """Threads of one of so many processes: its share of the cores.

    Never more than OMP_NUM_THREADS says, where it says a number (of a list, the first).
    """
    share = max(1, usable_cores() // workers)
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(share, int(said)) if said.isascii() and said.isdigit() and int(said) else share
