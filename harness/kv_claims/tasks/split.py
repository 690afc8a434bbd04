"""The two parts of a task's pairs: one to look for something in, one to judge what was found on.

Promises: the same parts for everybody, whatever their order in the file and how many there are, as
a hash decides; no prompt stands in both. Of pairs that share no prompts the SHA-256 of the pair's
id decides. Of crossed pairs that of each prompt: a pair is in the part that both its prompts are
in, and in neither where they are in two, so that about a quarter of them is in each part.
Does not: know models, or whether prompts of one family stand on both sides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from kv_claims.errors import UsageError
from kv_claims.tasks.task import Prompt, Task, sha256

Part = Literal["discovery", "confirmation"]
PARTS: tuple[Part, ...] = get_args(Part)
SALT = "kv-claims split 1:"
"""What stands before an id where it is hashed. Another one would be another split."""
RULE = {
    "one-to-one": f"by the SHA-256 of '{SALT}' and each pair's id, whose first bit is 0 in "
    "discovery and 1 in confirmation",
    "crossed": f"by the SHA-256 of '{SALT}' and each prompt's own, whose first bit is 0 in "
    "discovery and 1 in confirmation; pairs of prompts of both are in neither",
}
"""How the split is made, by the task's pairing, in words."""


def part_of(identity: str) -> Part:
    """The part that a pair, or a prompt, is in. identity: its id, hex."""
    return PARTS[int(sha256(SALT + identity)[0], 16) >> 3]


def split(task: Task, part: Part) -> Task:
    """The task with the pairs of one part alone.

    Raises UsageError where none is in it.
    """
    if task.pairing == "crossed":
        sources, bases = (
            [one for one in side if part_of(one.sha) == part] for side in (task.sources, task.bases)
        )
    else:
        pairs = [pair for pair in task.pairs if part_of(pair.id) == part]
        sources, bases = [pair.source for pair in pairs], [pair.base for pair in pairs]
    if not sources or not bases:
        raise UsageError(f"task {task.name!r}: no pair is in its {part} part ({task.where})")
    return _with(task, part, sources, bases)


def _with(task: Task, part: Part, sources: list[Prompt], bases: list[Prompt]) -> Task:
    return replace(
        task,
        name=f"{task.name} ({part})",
        sources=tuple(sources),
        bases=tuple(bases),
        where=f"{task.where}, its {part} part",
    )
