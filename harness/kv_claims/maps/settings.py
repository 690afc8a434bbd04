"""What a map was made of, as plain data: what is asked, on what, and the hash that names it.

Promises: the hash changes with anything that may change a number of the map: the question, the
task, the pairs and how they were split, the network, its precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.maps.asked import Asked
from kv_claims.run.runner import Runner, hash_of
from kv_claims.tasks.split import RULE, split
from kv_claims.tasks.task import Pair, Task

EXPLORATORY = (
    "exploratory: many cells were looked at, no control was run, and none of this is a verdict; "
    "what it shows is claimed and judged on the confirmation part"
)


def settings(asked: Asked, runner: Runner, task: Task, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Everything that decides a map's numbers, and `plan`, the SHA-256 of it.

    task: whole, both its parts. pairs: of the discovery part, those that are run.
    """
    outcome = asked.measured
    said = {
        "asked": asdict(asked),
        "estimand": asked.estimand,
        "outcome": outcome.describe(runner.model.n_layers),
        "model": {
            "name": runner.model.name,
            "weights": runner.weights_sha,
            "dtype": runner.model.dtype_name,
            "n_layers": runner.model.n_layers,
        },
        "study": runner.study,
        "task": {"name": task.name, "sha": task.sha, "pairs": len(task.pairs)},
        "split": {
            "rule": RULE[task.pairing],
            "discovery": {"sha": runner.task.sha, "pairs": len(runner.task.pairs)},
            "confirmation": _confirmation(task),
        },
        "pairs": {"run": len(pairs), "sha": hash_of([pair.id for pair in pairs])},
    }
    return {"plan": hash_of(said), **said}


def _confirmation(task: Task) -> dict[str, Any]:
    try:
        other = split(task, "confirmation")
    except UsageError:
        return {"sha": None, "pairs": 0}
    return {"sha": other.sha, "pairs": len(other.pairs)}
