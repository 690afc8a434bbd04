"""Whether the texts of a table hold their prompts: found by what texts have in common at their
begin.

Promises: two texts that were drawn apart (two seeds of an arm; source and base, which have prompts
of their own) do not begin with the same eight words in nine pairs of ten, unless these are the
prompt's; and an opening that most pairs share, such as a refusal's, is none.
Does not: find prompts where each arm has one text a pair and all arms one prompt: a weak patch
leaves a text as it was.
"""

from __future__ import annotations

from itertools import takewhile

import pandas as pd

from kv_claims.judging.checks import Check

WORDS = 8
"""An opening has at least so many words."""
PAIRS = 0.9
"""Share of the pairs that have one."""
NAME = "prompt-scored"


def prompts_in_texts(rows: pd.DataFrame) -> Check | None:
    """A failed check where texts begin with their prompt; None where nothing shows it.

    rows: `pair, arm, text`; the arms by role.
    """
    for what, some in _drawn_apart(rows).items():
        openings = {pair: _opening(list(texts)) for pair, texts in some.groupby("pair")["text"]}
        found = [words for words in openings.values() if len(words) >= WORDS]
        if not found or len(found) < PAIRS * len(openings):
            continue
        # What all pairs begin with is a habit of the model, and no prompt.
        if len({tuple(words[:WORDS]) for words in found}) <= len(found) / 2:
            continue
        return Check(
            NAME,
            False,
            f"in {len(found)} of {len(openings)} pairs {what} begin with the same words, such as "
            f"{' '.join(found[0])!r:.80}: texts hold their prompt, which is scored with them; "
            "expected generated text alone",
        )
    return None


def _drawn_apart(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows whose texts were drawn apart, by what they are."""
    found = {
        f"all texts of {arm}": some
        for arm, some in rows.groupby("arm", sort=False)
        if (some.groupby("pair").size() > 1).all()
    }
    ends = rows[rows["arm"].isin(["source", "base"])]
    if ends["arm"].nunique() == 2:
        found["texts of source and base"] = ends
    return found


def _opening(texts: list[str]) -> list[str]:
    """The words that all begin with; none where some text is nothing else, or all are one."""
    words = [text.split() for text in texts]
    if len({tuple(one) for one in words}) < 2:
        return []
    return [
        one[0] for one in takewhile(lambda some: len(set(some)) == 1, zip(*words, strict=False))
    ]
