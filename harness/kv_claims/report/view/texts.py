"""Generated texts side by side, chosen by a rule, with what was counted in them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from kv_claims.claims.outcome import Outcome
from kv_claims.errors import UsageError
from kv_claims.evidence.schema import EvidenceSaid, PromptsSaid, RunSaid, is_own_table
from kv_claims.measure.behavior import NGRAM
from kv_claims.plain import LONGEST_SHOWN
from kv_claims.report.view.claims import side_text
from kv_claims.report.view.scores import PLACE, Scores
from kv_claims.tasks.scorers import Lexicon, Published, Scorer
from kv_claims.tasks.words import placed_words

RULE = (
    "Of each claim the cell with the largest estimate; in it, by patched - base score with the "
    "first sampling seed, the pair of median, of largest and of smallest difference (the first of "
    "equals)."
)


class Piece(NamedTuple):
    """A stretch of text. marker: it was counted. repeated: it is inside a 4-gram said before."""

    text: str
    marker: bool
    repeated: bool


class TextView(NamedTuple):
    """One generation, or its begin. left_out: characters that are not shown."""

    role: str
    score: float
    pieces: list[Piece]
    repeats: bool
    left_out: int


class Example(NamedTuple):
    """One pair. which: median, best or worst. source, base: the prompts' ids.

    prompts: what the model read, by side, where it was made of messages; else nothing.
    """

    which: str
    pair: str
    source: str
    base: str
    texts: list[TextView]
    prompts: dict[str, str]


class TextsView(NamedTuple):
    """The examples of one cell."""

    claim: str
    cell: str
    patch: str
    examples: list[Example]


def scorer_from(facts: RunSaid, model: str) -> Scorer | None:
    """The scorer of a model's task, from the facts of the run; None where they do not have it."""
    found = facts.get("scorers", {}).get(model)
    if found is None:
        return None
    if found["name"] == "lexicon" and found["words"] is not None:
        try:
            return Lexicon(frozenset(found["words"]))
        except UsageError:  # of another version, or edited
            return None
    return Published() if found["name"] == "published" else None


def texts_of(
    cells: Sequence[EvidenceSaid],
    scores: Scores,
    scorer: Scorer | None,
    prompts: PromptsSaid | None = None,
) -> TextsView | None:
    """The examples of a claim on a model; None where no cell has a patched arm that was run, and
    of which something was read: trials of answers are two tokens long, for the instrument alone.

    prompts: what the model read, where its prompts are messages.
    """
    ran = [one for one in cells if "patched" in one["arms"] and _generates(one)]
    if not ran:
        return None
    judged = [one for one in ran if one["estimate"] is not None] or ran
    chosen = max(judged, key=lambda one: one["estimate"] or 0.0)
    examples = _examples(chosen, scores, scorer, prompts)
    if not examples:
        return None
    patch = side_text(chosen["patch"])
    return TextsView(chosen["claim"], chosen["cell"], patch, examples)


def _generates(one: EvidenceSaid) -> bool:
    """Whether some part of a cell is about what its arms generated."""
    return any(Outcome.parse(part["outcome"]["name"]).behind is None for part in one["parts"])


def _examples(
    one: EvidenceSaid, scores: Scores, scorer: Scorer | None, prompts: PromptsSaid | None
) -> list[Example]:
    if is_own_table(one["provenance"]):
        return []  # of which only scores are known
    roles = [role for role in ("base", "source", "patched", "versus") if role in one["arms"]]
    rows = {}
    for role in roles:
        some = scores.rows((one["model"], one["study"]), one["arms"][role])
        if some is None or not scores.has_texts:
            return []
        first = some[((some["pair_index"] < one["pairs"]) & (some["seed"] == 0)).to_numpy()]
        rows[role] = first.set_index("pair")
    behavior = Outcome.parse("behavior")
    score = {
        role: dict(zip(rows[role].index, scores.values(rows[role], behavior, 1), strict=True))
        for role in roles
    }
    both = [pair for pair in rows["patched"].index if all(pair in score[role] for role in roles)]
    gains = {pair: score["patched"][pair] - score["base"][pair] for pair in both}
    found = []
    for which, pair in picked(gains):
        base = rows["base"].loc[pair]
        texts = [
            _text(
                role,
                scores.text(int(cast(int, rows[role].at[pair, PLACE]))),
                float(score[role][pair]),
                scorer,
            )
            for role in roles
        ]
        named = {"source": str(base["source"]), "base": str(base["base"])}
        found.append(Example(which, pair, **named, texts=texts, prompts=_read(named, prompts)))
    return found


def _read(named: Mapping[str, str], prompts: PromptsSaid | None) -> dict[str, str]:
    """What the model read of a pair's prompts, by side, as far as the run says it."""
    if prompts is None:
        return {}
    by_side = {"source": prompts["sources"], "base": prompts["bases"]}
    return {side: by_side[side][id] for side, id in named.items() if id in by_side[side]}


def picked(gains: Mapping[str, float]) -> list[tuple[str, str]]:
    """(which, pair) by the rule; a pair that is two of them stands once, under both names.

    A pair without a score in some arm is none of them.
    """
    gains = {pair: gain for pair, gain in gains.items() if math.isfinite(gain)}
    if not gains:
        return []
    values = list(gains.values())
    wanted = (
        ("median", statistics.median_low(values)),
        ("best", max(values)),
        ("worst", min(values)),
    )
    names: dict[str, list[str]] = {}
    for which, value in wanted:
        pair = next(pair for pair, gain in gains.items() if gain == value)
        names.setdefault(pair, []).append(which)
    return [(" and ".join(which), pair) for pair, which in names.items()]


def _text(role: str, text: str, score: float, scorer: Scorer | None) -> TextView:
    shown = beginning(text)
    again = repeated_words(shown)
    pieces = pieces_of(shown, scorer.hits(shown) if scorer else (), again)
    return TextView(role, score, pieces, bool(again), len(text) - len(shown))


def beginning(text: str) -> str:
    """A text as far as it is shown; to the end of a word, so that what counts there counts whole.

    The begin, as what is repeated is told by what stood before.
    """
    if len(text) <= LONGEST_SHOWN:
        return text
    words = text[:LONGEST_SHOWN].rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else text[:LONGEST_SHOWN]


def repeated_words(text: str) -> list[tuple[int, int]]:
    """Places of the words inside a 4-gram that stood in the text before: `text[start:stop]`."""
    words = placed_words(text)
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for start in range(len(words) - NGRAM + 1):
        gram = tuple(word.word for word in words[start : start + NGRAM])
        if gram in seen:
            inside.update(range(start, start + NGRAM))
        seen.add(gram)
    return [(words[k].start, words[k].stop) for k in sorted(inside)]


def pieces_of(
    text: str, hits: Sequence[tuple[int, int]], again: Sequence[tuple[int, int]]
) -> list[Piece]:
    """The whole text in pieces; marks of neighbours that only space separates run together."""
    marks = [_flags(text, spans) for spans in (hits, again)]
    pieces: list[Piece] = []
    start = 0
    for stop in range(1, len(text) + 1):
        if stop == len(text) or any(flags[stop] != flags[start] for flags in marks):
            pieces.append(Piece(text[start:stop], marks[0][start], marks[1][start]))
            start = stop
    return pieces


def _flags(text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    flags = [False] * len(text)
    previous = None
    for start, stop in sorted(spans):
        flags[start:stop] = [True] * (stop - start)
        if previous is not None and previous < start and text[previous:start].isspace():
            flags[previous:start] = [True] * (start - previous)
        previous = stop if previous is None else max(previous, stop)
    return flags
