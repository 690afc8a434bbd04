"""Calibration with nothing left out: fresh prompts, the network, the instrument's checks, the word.

Every study is a task of its own: pairs drawn from a planted model's population, run through the
engine by `ModelStudy` with all controls and checks, and judged. It shows that what holds for scores
drawn from the law holds for those that the network generates.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from kv_claims.calibration.rows import Row, Wanted
from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import Evidence
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import true_transfer
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy

NAME = "stored-at-layer"
PATCH = Patch("kv", "25/32", "last(16)")
PAIRS, TOKENS = 16, 12
WIDTH = 0.2
_STREAM = 1_000_000
"""Pairs that are drawn from, so that no two processes are likely to draw the same ones."""


def network_row(rng: np.random.Generator, studies: int) -> Row:
    """Coverage and error rates with the truth on the lower edge, by running the network.

    Studies are those of the pairs that follow a number drawn by `rng`.
    """
    torch.set_num_threads(1)  # its matrices are so small that sharing one out costs more
    planted, model = CATALOG[NAME], load_model(PLANTED_PREFIX + NAME, device="cpu")
    truth = true_transfer(planted, PATCH, planted_task(planted, 1), max_new_tokens=TOKENS)
    claim = Claim(
        "calibrated",
        says="Its true transfer is on the lower edge.",
        cites="kv_claims.calibration",
        transfer=Region(truth, truth + WIDTH),
        about="layer",
    )
    counts: Counter[str] = Counter()
    first = int(rng.integers(1, 10_000)) * _STREAM
    for number in range(studies):
        evidence = one_study(model, claim, first + number * PAIRS)
        at_95 = evidence.interval if evidence.level == 0.95 else evidence.interval_other
        counts["covered"] += at_95 is None or at_95[0] <= truth <= at_95[1]
        counts[f"{evidence.verdict} at low edge"] += 1
        counts["instrument failed"] += evidence.verdict == "invalid" and _by_instrument(evidence)
    names = ("covered", "supported at low edge", "refuted at low edge", "invalid at low edge")
    return Row(
        group="network",
        cell=f"{NAME}: {PATCH}",
        studies=studies,
        facts={"pairs": PAIRS, "seeds": 1, "tokens": TOKENS, "truth": truth},
        counts={name: counts[name] for name in (*names, "instrument failed")},
        wanted=(
            Wanted("covered", "within"),
            Wanted("supported at low edge", "at most", 0.05),
            Wanted("refuted at low edge", "at most", 0.025),
            Wanted("instrument failed", "at most", 0.0),
        ),
    )


def one_study(model: LoadedModel, claim: Claim, first: int) -> Evidence:
    """One whole study on the pairs from `first` on."""
    assert model.planted is not None
    task = planted_task(model.planted, PAIRS, first=first)
    runner = Runner(model, task, Sampling(TOKENS), Ledger())
    evidence, _ = ModelStudy(runner, PAIRS, n_seeds=1).judge(Cell.of(claim, "cell", PATCH))
    return evidence


def _by_instrument(evidence: Evidence) -> bool:
    """Whether it is invalid for another reason than statistics."""
    return not evidence.reason.startswith(("no-ceiling", "not specific", "degenerate:"))
