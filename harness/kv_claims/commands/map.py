"""Where a model keeps what moves an outcome: layers by positions, or layers by heads, cell by cell.
A map is exploratory and never a verdict. It runs on the discovery part of a task's pairs alone, so
that what it shows can be claimed, and judged on the other part."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kv_claims.errors import UsageError
from kv_claims.plain import number, say
from kv_claims.planted.catalog import PLANTED_PREFIX

if TYPE_CHECKING:
    from kv_claims.maps.asked import Asked
    from kv_claims.maps.estimate import Estimate, Gap
    from kv_claims.maps.measure import Map, Measured
    from kv_claims.tasks.task import Task

NAME = "map"
HELP = "where an outcome is moved: layers by positions or heads; exploratory, no verdict"
DEFAULT_PAIRS = 32
TOKENS, TEMPERATURE = 50, 0.7
_STRONGEST = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="M", help="as --claims-model takes it (claims_models)")
    add("--task", type=Path, metavar="FILE", help="claims_task, the model's or the seed's")
    add("--chat", action="store_true", help="its texts as a user's messages")
    add("--site", default="residual", metavar="SITE", help="as in Patch (%(default)s)")
    add("--layers", default="each", metavar="L", help="'each', or such as 0,4,18/32 (%(default)s)")
    add("--heads", metavar="H", help="'each', or such as 0,2: a map of layers by heads")
    add(
        "--positions",
        default="each",
        metavar="P",
        help="'each' (from the last token back over the shortest prompt), or such as "
        "'at(-1),last(subject)' (%(default)s)",
    )
    add("--outcome", default="logit_diff", metavar="NAME", help="as in a claim (%(default)s)")
    add("--mode", default="replace", metavar="MODE", help="as in Patch (%(default)s)")
    add("--donor", default="source", metavar="DONOR", help="as in Patch (%(default)s)")
    add("--pairs", type=int, metavar="N", help=f"of the discovery part ({DEFAULT_PAIRS}, or all)")
    add(
        "--out", type=Path, required=True, metavar="DIR", help="for its files; the same map goes on"
    )
    add("--propose", type=Path, metavar="FILE", help="write claims of the strongest cells there")
    add("--device", metavar="NAME")
    add("--dtype", metavar="NAME")
    add("--batch-size", type=int, metavar="N")
    add("--max-new-tokens", type=int, metavar="N", help=f"of generated texts ({TOKENS})")
    add("--temperature", type=float, metavar="X", help=f"of generated texts ({TEMPERATURE})")


def run(given: argparse.Namespace) -> int:
    """Measure a map and write its files; 1 where nothing passes that could be proposed."""
    from kv_claims.maps.asked import Asked
    from kv_claims.maps.write import check_free

    names = ("site", "layers", "positions", "heads", "outcome", "mode", "donor")
    asked = Asked(**{name: getattr(given, name) for name in names})
    for name in ("max_new_tokens", "temperature"):
        if getattr(given, name) is not None and asked.measured.behind is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: nothing is generated for {asked.outcome}; expected "
                "it beside an outcome of generated texts"
            )
    check_free(given.out)
    model, task, file = _model_and_task(given)
    if given.propose is not None:
        from kv_claims.maps.propose import check_proposable

        if file is None:
            raise UsageError(f"map: --propose {given.propose}: {model} has no task file to split")
        check_proposable(given.propose, file, task)
    said, rows = _run(given, asked, model, task)
    if given.propose is None:
        return 0
    from kv_claims.maps.propose import propose

    assert file is not None
    paths = propose(given.propose, file, task, said, asked, rows, chat=given.chat)
    if not paths:
        say(f"nothing proposed: no cell passes, and {given.propose} was not written")
        return 1
    say(
        f"proposed: {', '.join(map(str, paths))}\n"
        f"judge it on the other part: pytest {paths[0]} --claims-model {model} --claims-task "
        f"{paths[1]}{' --claims-chat' if given.chat else ''}"
    )
    return 0


def _model_and_task(given: argparse.Namespace) -> tuple[str, Task, Path | None]:
    """The model's name, its whole task, and the file of that; a planted one has none."""
    from kv_claims.commands.project import model_of, project_here
    from kv_claims.models.request import check_request
    from kv_claims.models.task import task_file, task_for

    project = project_here()
    model = model_of(project, NAME) if given.model is None else given.model
    planted = model.startswith(PLANTED_PREFIX)
    if given.task and planted:
        raise UsageError(f"map: --task {given.task}: {model} brings its own task")
    check_request(model, device=given.device, dtype=given.dtype, revision=None)
    file = None if planted else task_file(model, given.task or project.task)
    return model, task_for(model, file, chat=given.chat), file


def _run(
    given: argparse.Namespace, asked: Asked, name: str, task: Task
) -> tuple[dict[str, Any], list[Estimate]]:
    """The map's settings, and its rows."""
    import torch
    from tqdm import tqdm

    from kv_claims.claims.claim import FEWEST_PAIRS
    from kv_claims.files.lock import hold, hold_ledger
    from kv_claims.maps.estimate import estimates
    from kv_claims.maps.measure import Map
    from kv_claims.maps.settings import settings
    from kv_claims.maps.write import begin, finish
    from kv_claims.models.load import load_model
    from kv_claims.run.ledger import Ledger
    from kv_claims.run.runner import Runner
    from kv_claims.run.sampling_settings import Sampling
    from kv_claims.tasks.split import split

    part = split(task, "discovery")
    n = min(DEFAULT_PAIRS, len(part.pairs)) if given.pairs is None else given.pairs
    if n < FEWEST_PAIRS:
        raise UsageError(
            f"map: {n} pairs of the discovery part (it has {len(part.pairs)} of the task's "
            f"{len(task.pairs)}), expected at least {FEWEST_PAIRS}"
        )
    pairs = part.first_pairs(n)
    sampling = Sampling(
        TOKENS if given.max_new_tokens is None else given.max_new_tokens,
        TEMPERATURE if given.temperature is None else given.temperature,
    )
    model = load_model(name, device=given.device, dtype=given.dtype)
    if model.planted is not None:
        # As `pytest claims` does: sharing so small a matrix out costs more than it gives.
        torch.set_num_threads(1)
    command, ledger = f"kv-claims {NAME}", given.out / "ledger"
    # Whatever is wrong is said before a folder is made.
    asked_of = Map(Runner(model, part, sampling, Ledger(), given.batch_size), asked, pairs)
    said = settings(asked, asked_of.runner, task, pairs)
    with hold(given.out, command=command), hold_ledger(ledger, command=command):
        asked_of.keep(Ledger(ledger))
        begin(given.out, said)
        say("\n".join(_before(asked, asked_of, task, n)))
        with tqdm(total=asked_of.rows, unit="row", file=sys.stderr, disable=None) as bar:
            found = asked_of.run(bar.update)
        rows, gap = estimates(found, asked)
        paths = finish(given.out, said, asked, rows, gap, found, asked_of.shortest)
    say("\n".join(_after(asked, rows, gap, found, model.precision)))
    say(f"written: {', '.join(map(str, paths))}")
    if asked.estimand == "transfer" and not gap.is_clear:
        return said, []  # shares of nothing: none of them passes
    return said, rows


def _before(asked: Asked, asked_of: Map, task: Task, pairs: int) -> list[str]:
    from kv_claims.maps.asked import EACH
    from kv_claims.maps.settings import EXPLORATORY
    from kv_claims.tasks.split import RULE

    part = asked_of.runner.task
    lines = [
        EXPLORATORY,
        f"{len(asked_of.cells)} cells of {asked.site} on {asked_of.runner.model.name}, "
        f"{asked.estimand} of {asked.outcome}",
        f"pairs: {pairs} of the {len(part.pairs)} of the discovery part, of {len(task.pairs)} of "
        f"{task.name}; {RULE[task.pairing]}",
    ]
    if asked.positions == EACH:
        lines.append(
            f"positions: aligned at the end, back to at({-asked_of.shortest}) as the shortest "
            f"prompt has {asked_of.shortest} tokens"
        )
    whys: dict[str, list[str]] = {}
    for one in asked_of.skipped:
        whys.setdefault(one.why.split(":")[0], []).append(str(one.cell.patch))
    for why, names in whys.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"skipped, {why}: {len(names)}: {', '.join(names[:3])}{more}")
    return lines


def _after(
    asked: Asked, rows: list[Estimate], gap: Gap, found: Measured, precision: str
) -> list[str]:
    from kv_claims.maps.estimate import Q
    from kv_claims.run.tolerances import TOLERANCE

    marked = sorted((one for one in rows if one.is_marked), key=lambda one: -abs(one.estimate))
    lines = [f"{len(marked)} of {len(rows)} cells with q < {Q:g} (Benjamini-Hochberg)"]
    if asked.estimand == "transfer" and not gap.is_clear:
        lines.append(
            f"source and base do not lie clearly apart (by {gap.mean:.3g}): transfers, shares of "
            "that, say nothing here"
        )
    if marked:
        lines.append(f"  {'strongest':<34} {asked.estimand:>8}  interval at 95%       q")
    for one in marked[:_STRONGEST]:
        ends = f"[{number(one.low, 3)}, {number(one.high, 3)}]"
        lines.append(
            f"  {one.cell.patch!s:<34} {number(one.estimate, 3):>8}  {ends:<18} {one.q:.2g}"
        )
    if found.oracle is not None:
        error, n = found.oracle
        limit = TOLERANCE[precision]
        is_off = "" if error <= limit else ": the instrument is off, and so is the map"
        lines.append(
            f"oracle: {n} rows recomputed one by one, largest relative error {error:.2g}, at most "
            f"{limit:g} wanted{is_off}"
        )
    return lines
