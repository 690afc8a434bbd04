"""Running the calibration: jobs in several processes, each on luck that follows from its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np

from kv_claims.calibration.cells import Job, jobs
from kv_claims.calibration.rows import Row
from kv_claims.errors import UsageError


def calibrate(
    studies: int,
    network_studies: int,
    *,
    groups: Sequence[str] = (),
    workers: int = 1,
    seed: int = 0,
    done: Callable[[Job], None] = lambda _job: None,
) -> list[Row]:
    """The rows of all jobs, or of those of some groups, in the order of the report.

    studies: of each cell; network_studies: of the cell that runs the network, in all; 0 leaves it
    out. Rows do not depend on the number of workers. done: called after each job.
    Raises UsageError for a group that there is not, or numbers below what can be run.
    """
    known = list(dict.fromkeys(job.group for job in jobs()))
    if unknown := [group for group in groups if group not in known]:
        raise UsageError(f"groups {unknown}: expected some of {', '.join(known)}")
    if studies < 1 or network_studies < 0 or workers < 1:
        raise UsageError(
            f"{studies} studies, {network_studies} of the network, {workers} workers: expected at "
            "least 1, 0 and 1"
        )
    wanted = [
        job
        for job in jobs()
        if (not groups or job.group in groups) and (network_studies or not job.runs_network)
    ]
    parts = sum(job.runs_network for job in wanted)
    work = [
        (number, job, -(-network_studies // parts) if job.runs_network else studies, seed)
        for number, job in enumerate(wanted)
    ]
    found: dict[int, list[Row]] = {}
    # What takes longest goes first.
    work.sort(key=lambda one: not one[1].runs_network)
    for number, rows in _carried_out(work, workers):
        found[number] = rows
        done(wanted[number])
    return merged([row for number in sorted(found) for row in found[number]])


def merged(rows: Sequence[Row]) -> list[Row]:
    """Rows of which those that are parts of one cell are one: studies and counts add up."""
    whole: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.group, row.cell, *sorted(row.facts.items()))
        if (other := whole.get(key)) is not None:
            counts = {name: count + row.counts[name] for name, count in other.counts.items()}
            row = replace(other, studies=other.studies + row.studies, counts=counts)
        whole[key] = row
    return list(whole.values())


def _carried_out(
    work: Sequence[tuple[int, Job, int, int]], workers: int
) -> Iterator[tuple[int, list[Row]]]:
    if workers == 1:
        yield from map(_one, work)
        return
    # Workers share the cores: one thread each, and none that waits by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_one, work)


def _one(work: tuple[int, Job, int, int]) -> tuple[int, list[Row]]:
    number, job, studies, seed = work
    luck = hashlib.sha256(f"{seed}:{job.group}:{job.name}".encode()).digest()
    return number, job.run(np.random.default_rng(list(luck)), studies)
