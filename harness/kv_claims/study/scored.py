"""Whether a task says what an outcome of generated text counts: found before any run."""

from __future__ import annotations

from collections.abc import Iterable

from kv_claims.claims.outcome import Outcome
from kv_claims.errors import UsageError
from kv_claims.tasks.scorers import Unscored
from kv_claims.tasks.task import Task


def check_scored(outcomes: Iterable[Outcome], task: Task) -> None:
    """Raise UsageError for an outcome of text that the task has no scorer, or no words, for."""
    lacks = {
        "behavior": "scorer" if isinstance(task.scorer, Unscored) else "",
        "score_lexicon": "" if task.lexicon else "lexicon",
    }
    for outcome in outcomes:
        if key := lacks.get(outcome.name):
            raise UsageError(
                f"outcome {outcome}: task {task.name!r} has no `{key}` ({task.where}); expected "
                "one, or another outcome"
            )
