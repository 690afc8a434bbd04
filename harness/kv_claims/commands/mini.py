"""Train mini, the small model that is not planted, anew; writes a model folder with its task."""

from __future__ import annotations

import argparse
from pathlib import Path

from kv_claims.errors import UsageError
from kv_claims.plain import say

NAME = "mini"
HELP = "train the embedded model mini anew, on one thread, in some minutes"
_EVERY = 200


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="a new folder, for the model and its task")
    add("--steps", type=int, metavar="N", help="of training (default: the recipe's)")
    add("--seed", type=int, default=0, metavar="N", help="of weights and texts (%(default)s)")


def run(given: argparse.Namespace) -> int:
    """Train, say how it goes, and write the folder; 0."""
    folder: Path = given.folder
    if folder.exists() or not folder.resolve().parent.is_dir():
        raise UsageError(f"mini {folder}: expected a new folder, in one that exists")
    if given.steps is not None and given.steps < 1:
        raise UsageError(f"mini: --steps {given.steps}: expected at least 1")
    import torch

    from kv_claims.models.mini import recipe

    steps = recipe.STEPS if given.steps is None else given.steps
    torch.set_num_threads(1)

    def tell(step: int, loss: float) -> None:
        if (step + 1) % _EVERY == 0 or step + 1 == steps:
            say(f"step {step + 1} of {steps}: {loss:.3f} nats a word")

    recipe.write(recipe.train(steps, seed=given.seed, told=tell), folder)
    say(f"written: {folder}; try it: kv-claims run claims --model {folder}")
    return 0
