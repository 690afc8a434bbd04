"""How fast this machine runs a model, the best batch size, and what a study will cost; or, with
--reference, how many times as fast the engine is as a bare decode loop; or, with --gpu, how near a
step of decoding on a GPU comes to the bytes that it reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.files.reading import read_json
from kv_claims.plain import say
from kv_claims.planted.catalog import PLANTED_PREFIX

NAME = "bench"
HELP = "trials per second of a model here, and what a study will cost"

_STUDY_ARMS = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="NAME", help="as --claims-model takes it (claims_models)")
    add(
        "--task",
        type=Path,
        metavar="FILE",
        help="claims_task, the model's or the seed's",
    )
    add("--chat", action="store_true", help="its texts as a user's messages")
    add("--device", metavar="NAME")
    add("--dtype", metavar="NAME")
    add("--max-new-tokens", type=int, metavar="N", help="of a study (each profile's own)")
    add("--temperature", type=float, default=0.7, metavar="X", help="%(default)s")
    add("--pairs", type=int, default=16, metavar="N", help="that are run (%(default)s)")
    add("--reference", action="store_true", help="the engine against a bare decode loop")
    add("--gpu", action="store_true", help="time a step of a random 7B model in bfloat16")
    add("--small", action="store_true", help="with --gpu: a tiny model instead, on any device")
    add("--rounds", type=int, default=3, metavar="N", help="of --reference, --gpu (%(default)s)")
    add("--prompt-tokens", type=int, default=64, metavar="N", help="of the reference")
    add("--growth", action="store_true", help="with --reference: time and memory as work grows")
    add("--held-against", type=Path, metavar="FILE", help="a stored ratio; exit status 1 below it")
    add("--out", type=Path, metavar="DIR", help="write bench.json (and figures) there")


def run(given: argparse.Namespace) -> int:
    """Print what was measured; 1 where the reference falls below a stored ratio."""
    if given.gpu and (given.reference or given.model is not None):
        raise UsageError("bench: expected one of --gpu, --model NAME and --reference")
    if given.small and not given.gpu:
        raise UsageError("bench: --small, expected --gpu beside it")
    if given.held_against is not None and not given.reference:
        raise UsageError("bench: --held-against, expected --reference beside it")
    for name in ("pairs", "rounds", "max_new_tokens"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise UsageError(f"bench: --{name.replace('_', '-')} {number}: expected at least 1")
    from kv_claims.benching import report, study
    from kv_claims.benching.gpu import decoding
    from kv_claims.models.task import task_for

    result: dict[str, Any]
    if given.reference:
        on = None
        if given.model is not None:
            on = given.model, task_for(given.model, given.task)
        result = report.reference(
            given.prompt_tokens, given.rounds, with_growth=given.growth, on=on
        )
    elif given.gpu:
        result = decoding.measure(given.device, small=given.small, rounds=given.rounds)
    else:
        from kv_claims.commands.project import model_of, project_here

        project = project_here()
        model = model_of(project, "bench") if given.model is None else given.model
        if given.task and model.startswith(PLANTED_PREFIX):
            raise UsageError(f"bench: --task {given.task}: {model} brings its own task")
        result = study.measure(
            model,
            task_file=given.task or project.task,
            chat=given.chat,
            device=given.device,
            dtype=given.dtype,
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            n_pairs=given.pairs,
            arms=_STUDY_ARMS,
            root=project.root,
        )
    say("\n".join(result["lines"]))
    if given.out is not None:
        written = report.write(result, given.out)
        say(f"written: {', '.join(map(str, written))}")
    if given.held_against is None:
        return 0
    stored = read_json(given.held_against, "a stored ratio")
    found, wanted = result["ratio"]["median"], stored["ratio"] * (1 - stored["tolerance"])
    say(
        f"ratio to the bare decode loop {found:.2f}; stored {stored['ratio']:.2f}, "
        f"at least {wanted:.2f} is asked for: {'ok' if found >= wanted else 'TOO SLOW'}"
    )
    return int(found < wanted)
