"""`kv-claims` (`python -m kv_claims`): what is done with claims beside `pytest claims`.

    kv-claims run [--seed-claims] [ARGUMENTS]   pytest, its options for claims in their short forms
    kv-claims init [DIR]                        a project to start from: a claim, a task, settings
    kv-claims get smollm2                       a small language model, to run claims on
    kv-claims map --model M --out DIR           where an outcome is moved, cell by cell
    kv-claims plan --claim ID                   pairs needed for a verdict
    kv-claims compare RUN_A [RUN_B]             whether a finding moved between two runs
    kv-claims report [RUN]                      the reports of a stored run, again
    kv-claims verify RUN [--key PUB]            whether it is as it was written, and by whom
    kv-claims key NAME                          a pair of keys to sign runs with
    kv-claims bench [--model M]                 trials per second here, and what a study costs
    kv-claims bench --gpu                       a decode step of a 7B model against its floor
    kv-claims mini DIR                          the small trained model, trained anew
    kv-claims calibrate                         how often the suite itself is wrong

What a project says in its settings of pytest (claims_models, claims_task, claims_out) holds for
`map`, `plan`, `compare`, `report` and `bench` too.

Exit status: 0; 1 where a calibration falls short, runs differ, a run was edited, or a map has
nothing to propose; 2 for bad usage, in one line; of `run`, that of pytest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kv_claims.commands import (
    bench,
    calibrate,
    compare,
    get,
    init,
    key,
    map,
    mini,
    plan,
    report,
    run,
    verify,
)
from kv_claims.errors import UsageError
from kv_claims.plain import say

PROG = "kv-claims"
_COMMANDS = (run, init, get, map, plan, compare, report, verify, key, bench, calibrate, mini)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        own = commands.add_parser(
            command.NAME, help=command.HELP, description=command.__doc__, allow_abbrev=False
        )
        command.add_options(own)
        own.set_defaults(run=command.run)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if typed[:1] == [run.NAME] and typed[1:2] not in (["-h"], ["--help"]):
        # What follows is pytest's, whatever it looks like.
        given = argparse.Namespace(run=run.run, arguments=typed[1:])
    else:
        given = parser.parse_args(typed)
    try:
        return int(given.run(given))
    except UsageError as error:
        say(f"{PROG}: {error}", sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
