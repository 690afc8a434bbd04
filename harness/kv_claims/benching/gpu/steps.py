"""The steps of `make gpu`, as data, in the order in which they are run.

Adding one: a function `(Given) -> Findings` in a module here, and an entry below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.errors import UsageError

HERE = "kv_claims.benching.gpu"
ROOT = Path(__file__).resolve().parents[4]
"""The checkout: steps run in it."""


class Step(NamedTuple):
    """One question, asked in a process of its own.

    does: module and function, `(Given) -> Findings`. takes: seconds that must be left for it to be
    started. most: seconds after which it is stopped. needs: packages without which it is skipped.
    """

    name: str
    asks: str
    does: str
    takes: int
    most: int
    needs: tuple[str, ...] = ()


STEPS = (
    Step(
        "machine",
        "What is this machine, and does torch see the device?",
        f"{HERE}.machine:run",
        10,
        60,
    ),
    Step(
        "gpu-tests",
        "Do the tests that need a GPU pass?",
        f"{HERE}.suites:of_a_gpu",
        30,
        150,
        ("pytest",),
    ),
    Step(
        "device-tests",
        "Do the tests of the engine and of patching pass with their models on the device?",
        f"{HERE}.suites:on_the_device",
        60,
        330,
        ("pytest",),
    ),
    Step(
        "decoding-small",
        "Is a decode step recorded and replayed at all? (a tiny model)",
        f"{HERE}.speed:small",
        20,
        90,
    ),
    Step(
        "decoding",
        "How near does a step of a 7B-shaped model come to the bytes that it reads?",
        f"{HERE}.speed:full",
        90,
        300,
    ),
    Step(
        "words",
        "Do planted models get the same words as on a CPU, in float32 and bfloat16?",
        f"{HERE}.words:run",
        90,
        330,
        ("pytest",),
    ),
    Step("sameness", "Do tokens depend on batch, run or route?", f"{HERE}.sameness:run", 40, 150),
    Step(
        "claims",
        "What are the words of the seed's KV claims on a real model, how fast, in what memory?",
        f"{HERE}.claims:run",
        60,
        270,
        ("pytest",),
    ),
    Step(
        "two-processes",
        "Do two runs on one card get along?",
        f"{HERE}.crowded:two_processes",
        30,
        120,
        ("pytest",),
    ),
    Step(
        "too-large-a-batch",
        "Does a batch that does not fit halve, and is nothing lost?",
        f"{HERE}.crowded:too_large",
        20,
        90,
    ),
    Step(
        "neighbours",
        "How do nnsight, TransformerLens and transformers' own generation do the reference work?",
        f"{HERE}.speed:neighbours",
        40,
        150,
    ),
)


class Given(NamedTuple):
    """What a step is run with.

    device: cpu, cuda or cuda:N. small: try the step, in little time and on any device.
    model: for the step that wants a real one; None takes what is at hand. folder: for its files.
    seconds: that it has.
    """

    device: str
    small: bool
    model: str | None
    folder: Path
    seconds: float


class Finding(NamedTuple):
    """An answer, or a part of one. good: None where nothing is asked of it. lines: to be read."""

    name: str
    good: bool | None
    lines: Sequence[str]
    data: dict[str, Any] = {}  # noqa: RUF012 (never written to)


Findings = Iterator[Finding]


def chosen(
    only: Collection[str] = (), skip: Collection[str] = (), first: str | None = None
) -> list[Step]:
    """The steps asked for, in their order. Raises UsageError for a name that is none of them."""
    names = [step.name for step in STEPS]
    for name in (*only, *skip, *([first] if first else [])):
        if name not in names:
            raise UsageError(f"step {name!r}: expected one of {', '.join(names)}")
    start = names.index(first) if first else 0
    return [
        step for step in STEPS[start:] if (not only or step.name in only) and step.name not in skip
    ]
