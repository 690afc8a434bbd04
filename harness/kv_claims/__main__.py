"""`python -m kv_claims`: what is done with claims outside of pytest.

    python -m kv_claims plan --claim ID --model M     pairs needed for a verdict
    python -m kv_claims compare RUN_A RUN_B           whether a finding moved between two runs
    python -m kv_claims report RUN                    the reports of a stored run, again
    python -m kv_claims verify RUN [--key PUB]        whether it is as it was written, and by whom
    python -m kv_claims key NAME                      a pair of keys to sign runs with
    python -m kv_claims bench --model M               trials per second here, and what a study costs
    python -m kv_claims bench --gpu                   a decode step of a 7B model against its floor
    python -m kv_claims mini DIR                      the small trained model, trained anew
    python -m kv_claims calibrate                     how often the suite itself is wrong

Exit status: 0; 1 where a calibration falls short, runs differ, or a run was edited; 2 for bad
usage, in one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kv_claims.commands import bench, calibrate, compare, key, mini, plan, report, verify
from kv_claims.errors import UsageError
from kv_claims.plain import say

_COMMANDS = (plan, compare, report, verify, key, bench, calibrate, mini)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kv_claims", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        own = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.add_options(own)
        own.set_defaults(run=command.run)
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except UsageError as error:
        say(f"python -m kv_claims: {error}", sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
