"""How often the suite itself is wrong, measured against exact truth: tables and a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kv_claims.calibration import NETWORK_STUDIES, STUDIES
from kv_claims.plain import say
from kv_claims.process.cores import usable_cores

NAME = "calibrate"
HELP = "judge thousands of studies of a known truth, and count the errors"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--studies", type=int, default=STUDIES, metavar="N", help="of each cell (%(default)s)")
    add(
        "--network-studies",
        type=int,
        default=NETWORK_STUDIES,
        metavar="N",
        help="of the cell that runs the network (%(default)s); 0 leaves it out",
    )
    add("--only", action="append", default=[], metavar="GROUP", help="repeatable: these groups")
    add("--workers", type=int, default=usable_cores(), metavar="N", help="processes")
    add("--seed", type=int, default=0, metavar="N", help="of all luck (%(default)s)")
    add("--out", type=Path, default=Path("reports/calibration"), metavar="DIR")


def run(given: argparse.Namespace) -> int:
    """Write the files, say what falls short; 1 where anything does."""
    from tqdm import tqdm

    from kv_claims.calibration.cells import Job
    from kv_claims.calibration.report import summary, write
    from kv_claims.calibration.run import calibrate
    from kv_claims.run.ledger import check_writable

    check_writable(given.out)
    with tqdm(unit="job", file=sys.stderr, disable=None) as bar:

        def done(job: Job) -> None:
            bar.set_description(f"{job.group}: {job.name}")
            bar.update()

        rows = calibrate(
            given.studies,
            given.network_studies,
            groups=given.only,
            workers=given.workers,
            seed=given.seed,
            done=done,
        )
    paths = write(rows, given.out)
    say("\n".join(summary(rows)))
    say(f"written: {', '.join(map(str, paths))}")
    return int(any(row.shortfalls for row in rows))
