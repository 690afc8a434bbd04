"""Checks of the texts that are judged, which whoever has the texts can make: no run is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from kv_claims.judging.checks import Check
from kv_claims.judging.frame import ARMS
from kv_claims.measure.behavior import repetition
from kv_claims.run.trial import Trial
from kv_claims.tasks.patterns import FirstNamed, Pattern
from kv_claims.tasks.python_scorer import PythonScorer
from kv_claims.tasks.scorers import Scorer, inside_words
from kv_claims.tasks.task import Task
from kv_claims.tasks.words import placed_words

Texts = Mapping[str, Sequence[str]]
"""Generated texts by role."""


def texts_of(trials: Mapping[str, Sequence[Trial]]) -> dict[str, list[str]]:
    """The texts of the arms that are judged; controls are not among them."""
    return {role: [t.text for t in trials[role]] for role in ARMS if role in trials}


def degenerate_texts(texts: Texts, task: Task) -> Check:
    """No arm repeats itself beyond the share that the task declares."""
    limit = task.max_degenerate_share
    shares = {
        role: sum(repetition(text).degenerate for text in some) / max(1, len(some))
        for role, some in texts.items()
    }
    shown = ", ".join(f"{role} {share:.1%}" for role, share in shares.items())
    return Check(
        "degenerate-text",
        max(shares.values()) <= limit,
        f"texts of which over half of the 4-grams repeat: {shown}; at most {limit:.0%} wanted",
    )


def parts_of_words(texts: Texts, scorers: Sequence[Scorer]) -> Check:
    """What a scorer counted in the texts is words, and no part of one (*substring-markers*).

    scorers: those that the claim rests on; the check does not apply where there is none, nor to one
    that a task states itself, which says where a match ends.
    """
    if stated := [one for one in scorers if isinstance(one, Pattern | FirstNamed | PythonScorer)]:
        how = f"does not apply: {stated[0].name} says itself where a match begins and ends"
        return Check("substring-markers", True, how)
    if not scorers:
        return Check("substring-markers", True, "does not apply: no outcome counts words of a text")
    counted, inside = 0, Counter[str]()
    for text in (text for some in texts.values() for text in some):
        for hits in (scorer.hits(text) for scorer in scorers):
            counted += len(hits)
            inside.update(_within(text, *hit) for hit in inside_words(text, hits))
    such_as = ", such as " + ", ".join(what for what, _ in inside.most_common(3)) if inside else ""
    return Check(
        "substring-markers",
        not inside,
        f"{inside.total()} of {counted} hits of the scorer "
        f"{' and '.join(dict.fromkeys(scorer.name for scorer in scorers))} stand inside other "
        f"words{such_as}",
    )


def _within(text: str, start: int, stop: int) -> str:
    """A hit and the words that it touches, to be shown."""
    words = [w.word for w in placed_words(text) if w.start < stop and w.stop > start]
    return f"{text[start:stop].lower()!r} in {' '.join(words)!r}"
