"""Claims of the strongest cells of a map, as a test file, and the pairs that they are judged on.

Promises: the pairs are those of the confirmation part, in a task file of their own beside the
claims, and each claim names that task by its hash, so that it is judged on no other pairs
(`kv_claims.claims.found`). The region follows from the estimate by a rule that looks at nothing
else: at least half of it, on its side of 0. Estimates of what was picked for being large are too
large, and a claim is to be true of what is there. A control may do a quarter of the estimate.
Does not: run anything, or write over anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kv_claims.claims.claim import FEWEST_PAIRS, MARGIN, SHARES
from kv_claims.errors import UsageError
from kv_claims.files.atomic import replace
from kv_claims.files.given import read_yaml
from kv_claims.maps.asked import Asked
from kv_claims.maps.estimate import Estimate, Q
from kv_claims.plain import line_of
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.load import load_task
from kv_claims.tasks.split import split
from kv_claims.tasks.task import Task

MOST = 5
"""Cells that are proposed."""
REGION, CONTROL = 0.5, 0.25
"""Of an estimate: the nearer edge of the region, and how far a control may lie from 0."""

_HEAD = '''"""Claims of cells that a map found: {outcome} on {model}, site {site}.

    pytest {file} --claims-model {model} --claims-task {task_file}

Proposed by `kv-claims map`, of the map {plan}.
The map looked at {run} pairs of the discovery part. These claims are judged on the {left} pairs of
the confirmation part, which are in {task_file}; on any other task they are refused as best-of-k.
The split: {rule}.
Each region is at least half of what the map estimated, on that side of 0; edit it, and say why,
before it is judged.
"""

from kv_claims import Patch, Region, claim
from kv_claims.claims.claim import Family
from kv_claims.claims.found import Found

FOUND = Found(
    plan="{plan}",
    task="{sha}",
)
FAMILY = Family("map {short}", size={size})
'''
_CLAIM = """

@claim(
    "map-{short}-{number}",
    says={says!r},
    cites={cites!r},
    {estimand}=Region({region}),
    outcome="{outcome}",
    margin={margin},
    family=FAMILY,
    found=FOUND,
)
def test_{number}(study):
    study.judge({patch})
"""


def task_path(file: Path) -> Path:
    """Where the task of the confirmation pairs goes."""
    return file.with_suffix(".yaml")


def check_proposable(file: Path, whole: Path, task: Task) -> None:
    """Raise UsageError where nothing could be proposed into a file; nothing has run.

    whole: the file of the task. task: as the map has it.
    """
    if file.suffix != ".py" or not file.name.startswith("test_"):
        raise UsageError(f"--propose {file}: expected test_NAME.py, which pytest collects")
    for path in (file, task_path(file)):
        if path.exists():
            raise UsageError(f"--propose {file}: {path} is there already, expected a new file")
    if not file.parent.is_dir():
        raise UsageError(f"--propose {file}: there is no folder {file.parent}")
    left = len(split(task, "confirmation").pairs)
    if left < FEWEST_PAIRS:
        raise UsageError(
            f"--propose {file}: {left} pairs in the confirmation part, expected at least "
            f"{FEWEST_PAIRS} to judge what is found on the others"
        )
    directions = read_yaml(whole, "task file").get("directions", {})
    if named := [name for name, one in directions.items() if "file" in one]:
        raise UsageError(
            f"--propose {file}: task file {whole} has the direction {named[0]!r} from a file, "
            "which would not stand beside another task; expected directions of texts"
        )


def propose(
    file: Path,
    whole: Path,
    task: Task,
    said: Mapping[str, Any],
    asked: Asked,
    rows: Sequence[Estimate],
    *,
    chat: bool,
) -> list[Path]:
    """Write the claims and their task; returns both paths, none where no cell passes.

    said: the map's settings. chat: whether its texts were sent as a user's messages. Errors as in
    `check_proposable`.
    """
    marked = sorted((one for one in rows if one.q < Q), key=lambda one: -abs(one.estimate))[:MOST]
    if not marked:
        return []
    check_proposable(file, whole, task)
    beside = task_path(file)
    replace(beside, lambda path: path.write_text(_task_text(whole, task), encoding="utf-8"))
    left = load_task(beside)
    left = as_chat(left) if chat else left
    wanted = split(task, "confirmation")
    assert [pair.id for pair in left.pairs] == [pair.id for pair in wanted.pairs]
    text = _text(file, left, said, asked, marked)
    replace(file, lambda path: path.write_text(text, encoding="utf-8"))
    return [file, beside]


def _text(
    file: Path, left: Task, said: Mapping[str, Any], asked: Asked, marked: Sequence[Estimate]
) -> str:
    """The file of claims. left: the confirmation part."""
    common = {"plan": said["plan"], "short": said["plan"][:12], "outcome": str(asked.measured)}
    head = _HEAD.format(
        **common,
        model=_in_docstring(said["model"]["name"]),
        site=asked.site,
        file=_in_docstring(file.name),
        task_file=_in_docstring(task_path(file).name),
        run=said["pairs"]["run"],
        left=len(left.pairs),
        sha=left.sha,
        rule=said["split"]["rule"],
        size=len(marked),
    )
    claims = (
        _CLAIM.format(**common, estimand=asked.estimand, number=number, **_claim(one, said, asked))
        for number, one in enumerate(marked, start=1)
    )
    return head + "".join(claims)


def _in_docstring(text: str) -> str:
    return line_of(text).replace("\\", "/").replace('"', "'")


def _claim(one: Estimate, said: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """What a cell's claim says of it."""
    edge, side = f"{REGION * one.estimate:.3g}", "low" if one.estimate > 0 else "high"
    margin = CONTROL * abs(one.estimate)
    if asked.estimand in SHARES:
        margin = min(MARGIN, margin)
    verb = "moves" if one.estimate > 0 else "moves down"
    return {
        "says": f"{one.cell.patch} {verb} {asked.outcome} by itself",
        "cites": f"the map {said['plan'][:12]} of {line_of(said['task']['name'])}: "
        f"{asked.estimand} {one.estimate:.3g} [{one.low:.3g}, {one.high:.3g}], q {one.q:.2g}, on "
        f"{said['pairs']['run']} discovery pairs",
        "region": f"{side}={edge}",
        "margin": f"{margin:.3g}",
        "patch": _call(one, asked),
    }


def _call(one: Estimate, asked: Asked) -> str:
    """The patch as Python."""
    patch = one.cell.patch
    more = {
        "heads": (patch.heads, "all"),
        "mode": (patch.mode, "replace"),
        "donor": (patch.donor, "source"),
    }
    said = [f'"{asked.site}"', f'layers="{patch.layers}"', f'positions="{patch.positions}"']
    said += [f'{name}="{value}"' for name, (value, usual) in more.items() if value != usual]
    return f"Patch({', '.join(said)})"


def _task_text(whole: Path, task: Task) -> str:
    """The task file with the prompts of the confirmation part alone."""
    part, content = split(task, "confirmation"), dict(read_yaml(whole, "task file"))
    content["name"] = part.name
    for side, prompts in (("sources", part.sources), ("bases", part.bases)):
        kept = {one.id for one in prompts}
        content[side] = [entry for entry in content[side] if entry["id"] in kept]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
