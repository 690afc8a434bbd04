"""What a bank of prompts is like, counted: person, tense, prose, endings, and what tells its sides.

`python -m tests.tasks.bank` prints the figures of docs/prompts.md. Person and tense are counted by
marker words and are rough for one text; they are there to compare two sides, which they treat
alike. Whether a text tells events in their order (narrative) was judged by hand: NARRATIVE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from kv_claims.tasks.words import words_of
from tests.tasks.logistic import judged_on_the_other_half

BANK = Path(__file__).parents[2] / "claims/tasks/self_observation.yaml"
NARRATIVE = frozenset(
    Path(__file__).with_name("self_observation_narrative.txt").read_text("utf-8").split()
)
FIRST = frozenset(
    words_of("i me my mine myself we us our ours ourselves")
    + words_of("i'm i've i'd i'll we're we've we'd we'll")
)
SECOND = frozenset(
    words_of("you your yours yourself yourselves you're you've you'd you'll thou thee thy")
)
PAST = frozenset(
    words_of("was were had did went came said took got made began stood told gave knew found heard")
    + words_of("felt saw thought wrote left kept ran held brought became grew fell sat")
)
PRESENT = frozenset(
    words_of(
        "is are am has have does do can will may don't doesn't isn't can't it's that's there's"
    )
    + words_of("i'm i've i'll you're you've you'll we're we've we'll they're they've they'll")
    + words_of("he's she's there's")
)
KINDS = (
    *("first", "second", "third"),
    *("past", "present"),
    *("narrative", "exposition"),
    *("sentence", "comma", "phrase"),
)
CROSSED = tuple(f"{who}, {how}" for who in KINDS[:3] for how in ("narrative", "exposition"))
EARLIER = 48
"""Pairs that the bank had before it grew; they come first."""
DRAWS = 2_000


def person(prompt: Prompt) -> str:
    """'first' or 'second' with at least three such pronouns, whichever has more; else 'third'."""
    first, second = (_count(prompt, words) for words in (FIRST, SECOND))
    if max(first, second) < 3:
        return "third"
    return "first" if first >= second else "second"


def tense(prompt: Prompt) -> str:
    """'past' where markers of the past, an -ed by half, outnumber those of the present."""
    regular = sum(len(word) > 4 and word.endswith("ed") for word in words_of(prompt.text))
    past = _count(prompt, PAST) + regular / 2
    return "past" if past > _count(prompt, PRESENT) else "present"


def prose(prompt: Prompt) -> str:
    return "narrative" if prompt.id in NARRATIVE else "exposition"


def ending(prompt: Prompt) -> str:
    """Where a text stops: at a full sentence, at a comma, or inside a phrase."""
    last = prompt.text.rstrip("'])")[-1]
    return "sentence" if last in ".!?" else "comma" if last == "," else "phrase"


def shares(prompts: Sequence[Prompt]) -> Counter[str]:
    """How many of the prompts are of each kind."""
    crossed = Counter(f"{person(p)}, {prose(p)}" for p in prompts)
    return crossed + Counter(k(p) for p in prompts for k in (person, tense, prose, ending))


def auc(sources: npt.ArrayLike, bases: npt.ArrayLike) -> float:
    """The chance that a source scores above a base; a tie is half."""
    return float(_wins(sources, bases).mean())


def auc_interval(sources: npt.ArrayLike, bases: npt.ArrayLike) -> tuple[float, float]:
    """95%, by the percentiles of a bootstrap over texts, sources and bases apart."""
    wins, rng = _wins(sources, bases), np.random.default_rng(0)
    n, m = wins.shape
    draws = [
        float(np.bincount(rng.integers(n, size=n), minlength=n) @ wins
              @ np.bincount(rng.integers(m, size=m), minlength=m)) / (n * m)
        for _ in range(DRAWS)
    ]  # fmt: skip
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def kinds_table(task: Task) -> list[str]:
    """How many texts of each kind there are, families and lengths: a row each, sources, bases."""
    sides = (task.sources, task.bases)
    counted = [shares(side) for side in sides]
    lengths = [[len(words_of(p.text)) for p in side] for side in sides]
    return [
        *(_row(kind, *(str(side[kind]) for side in counted)) for kind in (*KINDS, *CROSSED)),
        _row("families", *(str(len({p.family for p in side})) for side in sides)),
        _row("words", *(f"{min(n)} to {max(n)}, median {np.median(n):g}" for n in lengths)),
    ]


def lexicon_table(task: Task) -> list[str]:
    """The lexicon's words in 100, texts without one, and the AUC with its interval."""
    score, rows = Lexicon(task.lexicon), []
    for name, part in {
        f"all {len(task.pairs)} pairs": slice(None),
        f"the first {EARLIER}": slice(EARLIER),
        f"the other {len(task.pairs) - EARLIER}": slice(EARLIER, None),
    }.items():
        s, b = ([score(p.text) for p in side[part]] for side in (task.sources, task.bases))
        low, high = auc_interval(s, b)
        area = f"{auc(s, b):.3f} [{low:.3f}, {high:.3f}]"
        means = (f"{np.mean(side):.2f}" for side in (s, b))
        without = (f"{sum(rate == 0 for rate in side)} of {len(side)}" for side in (s, b))
        rows.append(_row(name, *means, *without, area))
    return rows


def classifier_table(task: Task) -> list[str]:
    """The logistic classifier on words of three kinds, trained on one half and on the other.

    Its accuracy and AUC on the half that it was not trained on, and there, over sources alone, the
    rank correlation of its log-odds with the lexicon's score.
    """
    score, rows = Lexicon(task.lexicon), []
    everything, earlier = slice(None), slice(EARLIER)
    pronouns = "pronouns, first and second person"
    for name, kept, part in (
        ("all words", lambda _: True, everything),
        ("all but the lexicon's", lambda word: word not in task.lexicon, everything),
        (pronouns, lambda word: word in FIRST | SECOND, everything),
        (f"{pronouns}, of the first {EARLIER} pairs", lambda word: word in FIRST | SECOND, earlier),
    ):
        sides = (task.sources[part], task.bases[part])
        texts = [[list(filter(kept, words_of(p.text))) for p in side] for side in sides]
        cells = []
        for half in (0, 1):
            s, b = judged_on_the_other_half(texts[0], texts[1], half)
            right = np.append(s > 0, b <= 0).mean()
            rates = [score(p.text) for p in sides[0][1 - half :: 2]]
            cells.append(f"{right:.3f}, {auc(s, b):.3f}, {spearmanr(s, rates).statistic:.2f}")
        rows.append(_row(name, *cells))
    return rows


def _count(prompt: Prompt, words: Collection[str]) -> int:
    return sum(word in words for word in words_of(prompt.text))


def _wins(sources: npt.ArrayLike, bases: npt.ArrayLike) -> npt.NDArray[np.float64]:
    above, below = np.asarray(sources, float)[:, None], np.asarray(bases, float)
    return np.asarray((above > below) + 0.5 * (above == below))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    bank = load_task(BANK)
    for table in (kinds_table, lexicon_table, classifier_table):
        print("\n".join(table(bank)), end="\n\n")
