"""Make a pair of keys to sign runs with: NAME.pem, which is yours alone, and NAME.pub.pem."""

from __future__ import annotations

import argparse
from pathlib import Path

from kv_claims.plain import say

NAME = "key"
HELP = "make a pair of Ed25519 keys for --claims-sign: NAME.pem and NAME.pub.pem"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="path of the files, without .pem")


def run(given: argparse.Namespace) -> int:
    """Make both files, and say the fingerprint; 0."""
    from kv_claims.evidence.signing import new_key

    private, public = Path(f"{given.name}.pem"), Path(f"{given.name}.pub.pem")
    say(f"{private} (keep it), {public} (publish it): {new_key(private, public)}")
    return 0
