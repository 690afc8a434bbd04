"""Why a text scores under the published rule: the seed's own best cell, or any other.

Only what the seed printed of that text can be scored; it cut the text short with dots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kv_claims.published.defects import SEED
from kv_claims.published.scoring import bonus, hits
from kv_claims.tasks.scorers import Published
from kv_claims.tasks.task import Task


class Sample(NamedTuple):
    """A published text. score: what the seed gave it."""

    cell: str
    cites: str
    score: int
    text: str


BEST_CELL = Sample(
    cell="L27-w32",
    cites=f"{SEED}, Generated Text Samples, L27 Patching (Window=32) - Best Case",
    score=1,
    text=(
        "The decline of the Roman Empire, on the other hand, is a complex process that involved "
        "multiple causes, including economic, political, and military factors.\n\n"
        "Military Overextension: One of the primary..."
    ),
)


def explain(text: str, task: Task) -> dict[str, Any]:
    """What a text scores under the published rule, by which markers, and under a task's lexicon."""
    return {
        "text": text,
        "published": Published()(text),
        "hits": [hit._asdict() for hit in hits(text)],
        "bonus": bonus(text),
        "lexicon": task.by_lexicon(text),
        "lexicon_task": task.name,
    }


def explain_best_cell(task: Task) -> dict[str, Any]:
    """The seed's only cell that is not 0, explained. task: whose lexicon is held against it."""
    about = BEST_CELL._asdict()
    return {**about, "reported": about.pop("score"), **explain(BEST_CELL.text, task)}
