"""Scores of a stored run by arm and pair; each column of trials is read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kv_claims.claims.claim import BEHAVIOR
from kv_claims.claims.outcome import TEXT_NAMES, Outcome
from kv_claims.evidence.schema import EvidenceSaid
from kv_claims.evidence.stored import StoredRun
from kv_claims.run.scores import ratio_of

Floats = NDArray[np.float64]
_READ = (
    *("model", "study", "arm", "pair", "pair_index", "seed", "source", "base"),
    *("prompt_tokens", "geometry", "score"),
    *(name for name in TEXT_NAMES if name != BEHAVIOR),
)
"""Columns that are shown: of tables so much narrower, parts are taken several times faster."""
_TEXT = ("model", "study", "arm", "pair", "source", "base", "geometry")


PLACE = "place"
"""The column of rows that says where they stand in the stored table."""


class PairScores(NamedTuple):
    """Mean score of each pair over its seeds, `[pair]`, with the pairs' ids; NaN where none."""

    pairs: list[str]
    scores: Floats


class Scores:
    """The trials of a stored run, by model, study and arm."""

    def __init__(self, stored: StoredRun) -> None:
        columns = [name for name in _READ if name in stored.trials.columns]
        # As plain Python text: rows of it are taken several times faster than from pyarrow's.
        text = [name for name in _TEXT if name in columns]
        self._trials = stored.trials[columns].astype(dict.fromkeys(text, object))
        self._trials[PLACE] = np.arange(len(self._trials))
        # Never copied, as few are shown and each may be long.
        self._texts = stored.trials["text"] if "text" in stored.trials.columns else None
        self.rows: Callable[[tuple[str, str], str], pd.DataFrame | None] = cache(self._rows)
        self._means = cache(self._of_pairs)
        self.lengths = cache(self._lengths)

    @property
    def has_texts(self) -> bool:
        """Whether the table has generated texts."""
        return self._texts is not None

    def text(self, place: int) -> str:
        """The generated text of a row, by its `PLACE`."""
        assert self._texts is not None
        return str(self._texts.iat[place])

    @cached_property
    def _groups(self) -> dict[Any, Any]:
        if not len(self._trials):
            return {}
        return dict(self._trials.groupby(["model", "study", "arm"], sort=False).indices)

    def _rows(self, one: tuple[str, str], arm: str) -> pd.DataFrame | None:
        """The rows of an arm, in the order of pairs and seeds. one: model and study."""
        places = self._groups.get((*one, arm))
        if places is None:
            return None
        rows: pd.DataFrame = self._trials.iloc[places]
        return rows.sort_values(["pair_index", "seed"], kind="stable")

    def _lengths(self, one: tuple[str, str]) -> tuple[list[int], list[int]]:
        """Tokens of source and of base, by pair. one: model and study."""
        if "prompt_tokens" not in self._trials:
            return [], []  # a published table, whose prompts nobody has
        rows = [self.rows(one, arm) for arm in ("source", "base")]
        of_source, of_base = (
            {} if some is None else dict(zip(some["pair"], some["prompt_tokens"], strict=True))
            for some in rows
        )
        both = [pair for pair in of_source if pair in of_base]
        return [int(of_source[pair]) for pair in both], [int(of_base[pair]) for pair in both]

    def of(self, evidence: EvidenceSaid, role: str, outcome: Outcome) -> PairScores | None:
        """Scores of a cell's arm; None where there are none, as of what was fed."""
        arm = evidence["arms"].get(role)
        if arm is None or outcome.is_fed:
            return None
        where = (evidence["model"], evidence["study"])
        size = (evidence["pairs"], evidence["seeds"])
        return self._means(where, arm, outcome, evidence["provenance"]["n_layers"], size)

    def _of_pairs(
        self,
        where: tuple[str, str],
        arm: str,
        outcome: Outcome,
        n_layers: int,
        size: tuple[int, int],
    ) -> PairScores | None:
        if (rows := self.rows(where, arm)) is None:
            return None
        pairs, seeds = size
        rows = rows[((rows["pair_index"] < pairs) & (rows["seed"] < seeds)).to_numpy()]
        values = self.values(rows, outcome, n_layers)
        if seeds == 1:
            return PairScores(list(rows["pair"]), values)
        means = pd.Series(values, index=rows["pair"].to_numpy()).groupby(level=0, sort=False).mean()
        return PairScores(list(means.index), np.asarray(means, dtype=np.float64))

    def values(self, rows: pd.DataFrame, outcome: Outcome, n_layers: int) -> Floats:
        """The outcome of each row, `[trial]`; NaN where a trial has none."""
        if outcome.is_text:
            column = "score" if outcome.name == "behavior" else outcome.name
            return rows[column].to_numpy(dtype=np.float64)
        read = msgspec.json.decode
        return np.array([ratio_of(read(t), outcome, n_layers) for t in rows["geometry"]])
