"""The cells of the calibration, as jobs that can be run apart from each other.

Groups: `planted` (every planted model and many patches, from the model's own law), `given pairs`
(the same with pairs that are given, so that luck alone is fresh), `real` (skewed, zero-inflated
counts tied together by pairs), `estimands` (orders, sameness, shifts, gaps, what is carried),
`rates` (paired proportions: `kv_claims.calibration.rates`), `crossed` (pairs that share
sources and bases), `gates` (no gap, weak ratio, controls), `families`, `looks`, and `network`
(`kv_claims.calibration.network`: the model is run, all the way to the verdict). `rare`: few pairs
are unlike the others (`kv_claims.calibration.rare`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from kv_claims.calibration import scores as laws
from kv_claims.calibration.judged import (
    FEW_ERRORS,
    WIDTH,
    Scores,
    Size,
    by_cluster,
    covers,
    errors_row,
    judge_crossed,
    means,
    placed,
    rule_for,
    true_value,
    word_counts,
    words_row,
)
from kv_claims.calibration.network import network_row
from kv_claims.calibration.planted import PlantedStudies, roles
from kv_claims.calibration.rare import rare_crossed_rows, rare_rows
from kv_claims.calibration.rates import rate_rows
from kv_claims.calibration.rows import Row, Wanted
from kv_claims.calibration.scores import Counts, Crossing, ScoreStudies
from kv_claims.claims.claim import Estimand, Family, Region
from kv_claims.claims.patch import Patch
from kv_claims.judging.contrast import interval_ends
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.decide import decide
from kv_claims.judging.estimand import contrast, orientation
from kv_claims.judging.fieller import Bools, Floats
from kv_claims.judging.multiplicity import Share, holm
from kv_claims.judging.result import WORDS, Word
from kv_claims.judging.rule import ALPHA
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import UnknownTruth
from kv_claims.run.arms import patched

_ERRORS: tuple[Word, ...] = ("supported", "refuted")
PARTS = 8
"""Into which the network's studies are cut, so that several processes can share them."""
Run = Callable[[np.random.Generator, int], list[Row]]
"""Takes a generator and a number of studies."""


class Job(NamedTuple):
    """Some rows of one group, to be made in one go. runs_network: it takes a model, and long."""

    group: str
    name: str
    run: Run
    runs_network: bool = False


PATCHES: Mapping[str, Patch] = {
    str(patch): patch
    for patch in (
        Patch("kv", "25/32", "last(16)"),
        Patch("kv", "25/32", "last(32)"),
        Patch("kv", "18/32", "first(25%)"),
        Patch("kv", "16/32:32/32", "all"),
        Patch("kv", "all", "last(32)"),
        Patch("kv", "25/32", "last(32)", mode="mix(0.5)"),
        Patch("kv", "all", "last(16)", mode="append"),
        Patch("v", "12/32", "last(32)"),
        Patch("kv_proj", "25/32", "last(16)"),
        Patch("v_proj", "25/32", "last(16)", active="every_step"),
        Patch("residual", "18/32", "last(16)"),
    )
}
"""What is patched on every planted model."""

PLANTED_PAIRS, LONGER = (20, 60, 200), "stored-at-layer"
"""The budgets `smoke` of a real model, `smoke` and `default` of a planted one; the last for one
model only."""
WITH_GAP = tuple(name for name in CATALOG if name != "inert")
REAL_PAIRS, REAL_SEEDS, REAL_SHARES = (10, 20, 40, 80), (1, 5), (0.2, 0.5)
LOOKS = (40, 80, 160)
FAMILY = 8
"""As many as the seed has patched cells."""


def jobs() -> list[Job]:
    """All jobs, in the order of the report."""
    return [
        *(Job("planted", name, partial(_planted, name)) for name in WITH_GAP),
        Job("given pairs", "given pairs", _given_pairs),
        *(
            Job("real", f"share {share}, {n} pairs", partial(_real, share, n))
            for share in REAL_SHARES
            for n in REAL_PAIRS
        ),
        Job("estimands", "estimands", _estimands),
        Job("rates", "rates", rate_rows),
        *(Job("crossed", name, partial(_crossed, name)) for name in _CROSSINGS),
        Job("rare", "rare", rare_rows),
        Job("rare", "crossed", rare_crossed_rows),
        Job("gates", "no gap", _no_gap),
        Job("gates", "weak ratio", _weak_ratio),
        Job("gates", "controls", _controls),
        Job("families", "families", _families),
        Job("looks", "looks", _looks),
        *(Job("network", f"part {part}", _network, runs_network=True) for part in range(PARTS)),
    ]


def _planted(name: str, rng: np.random.Generator, studies: int) -> list[Row]:
    """Every patch whose truth is known, with the pairs of each budget that is not too long."""
    sizes = PLANTED_PAIRS if name == LONGER else PLANTED_PAIRS[:-1]
    rows = []
    for text, patch in PATCHES.items():
        try:
            law = PlantedStudies(CATALOG[name], {"patched": patched(patch)})
        except UnknownTruth:
            continue
        rows += [
            errors_row("planted", f"{name}: {text}", law, rng, Size(studies, n)) for n in sizes
        ]
    return rows


def _given_pairs(rng: np.random.Generator, studies: int) -> list[Row]:
    """The same pairs in every study: their own spread then counts as chance, which it is not."""
    planted, patch = CATALOG["stored-at-layer"], PATCHES["kv@25/32/last(16)"]
    rows = []
    for n in (20, 60):
        law = PlantedStudies(planted, {"patched": patched(patch)}, task=planted_task(planted, n))
        cell = f"{planted.name}: {patch}"
        size = Size(studies, n)
        rows.append(errors_row("given pairs", cell, law, rng, size, conservative=True))
    return rows


def _real(share: float, pairs: int, rng: np.random.Generator, studies: int) -> list[Row]:
    return [
        errors_row(
            "real",
            f"latent share {share}, T = {transfer}",
            ScoreStudies(laws.arms(law), pair_share=share),
            rng,
            Size(studies, pairs, seeds),
        )
        for seeds in REAL_SEEDS
        for transfer, law in laws.PATCHED.items()
    ]


def _estimands(rng: np.random.Generator, studies: int) -> list[Row]:
    cases: dict[str, tuple[Estimand, float]] = {
        "order: 0.8 against 0.5": ("difference", 0.5),
        "sameness: 0.8 against 0.8": ("difference", 0.8),
        "shift": ("shift", 0.5),
        "gap": ("gap", 0.5),
    }
    rows = [
        errors_row(
            "estimands",
            name,
            ScoreStudies(laws.arms(0.8, versus=versus), pair_share=0.5),
            rng,
            Size(studies, pairs),
            estimand=estimand,
        )
        for name, (estimand, versus) in cases.items()
        for pairs in (20, 60)
    ]
    wiped = ScoreStudies(laws.arms(0.8, unrelated_base=0.4), pair_share=0.5)
    planted = PlantedStudies(CATALOG["disrupted"], roles(PATCHES["kv@25/32/last(32)"]))
    # A share of what wiping leaves is a share of less: it takes more pairs.
    return rows + [
        errors_row("estimands", name, law, rng, Size(studies, pairs), estimand="carried")
        for name, law in (
            ("carried: 0.8, where an unrelated base goes 0.4", wiped),
            ("carried: planted disrupted", planted),
        )
        for pairs in (60, 200)
    ]


_CROSSINGS: Mapping[str, tuple[Crossing, int]] = {
    "65 x 99, 300 pairs": (Crossing(), 300),
    "30 x 40, 120 pairs": (Crossing(30, 40), 120),
    "12 x 15, 60 pairs": (Crossing(12, 15), 60),
}


def _crossed(name: str, rng: np.random.Generator, studies: int) -> list[Row]:
    """By the rule; beside it, by one side alone, and as if pairs were independent."""
    crossing, pairs = _CROSSINGS[name]
    law = ScoreStudies(laws.arms(0.8), pair_share=0.3, crossing=crossing)
    prompts, truth = law.prompts(pairs), true_value(law.truth, "transfer")
    sharing = Sharing(*prompts)
    scores = means(law, rng, Size(studies, pairs))
    facts: dict[str, str | int | float] = {"pairs": pairs, "truth": truth}
    counts: dict[str, int] = {}
    for place, region in placed(truth, WIDTH).items():
        judged, low, high = judge_crossed(scores, sharing, rule_for(region))
        counts["covered"] = int(covers(low, high, truth).sum())
        counts["variance turned"] = int(judged.found.moments.turned.sum())
        facts["median width"] = float(np.nanmedian(high - low))
        for word in _ERRORS:
            counts[f"{word} {place}"] = int(judged.has_word(word).sum())
    for how, some in {
        "by source": by_cluster(scores, sharing.source),
        "by base": by_cluster(scores, sharing.base),
        "as if independent": scores,
    }.items():
        counts[f"covered {how}"] = int(_covered(some, truth).sum())
    wanted = (Wanted("covered", "within"), *FEW_ERRORS)
    return [Row("crossed", name, studies, facts, counts, wanted)]


def _covered(scores: Scores, truth: float) -> Bools:
    found = contrast(scores, "transfer", orientation(scores, "up"))
    return covers(*interval_ends(found, 0.95), truth)


def _no_gap(rng: np.random.Generator, studies: int) -> list[Row]:
    wanted = (Wanted("invalid", "at least", 0.95),)
    region = Region(0.7, 0.9)
    rows = [
        words_row(
            "gates",
            f"no gap: planted inert, {text}",
            PlantedStudies(CATALOG["inert"], {"patched": patched(PATCHES[text])}),
            rng,
            Size(studies),
            region,
            wanted=wanted,
        )
        for text in ("kv@25/32/last(16)", "kv@all/last(32)")
    ]
    law = ScoreStudies(laws.arms(laws.BASE, source=laws.BASE), pair_share=0.5)
    return rows + [
        words_row("gates", "no gap: counts", law, rng, Size(studies, n), region, wanted=wanted)
        for n in (20, 80)
    ]


def _weak_ratio(rng: np.random.Generator, studies: int) -> list[Row]:
    """Source - base of 1.4 only: intervals stay right, and support is withheld."""
    arms = laws.arms(0.6, source=laws.WEAK_SOURCE)
    law = ScoreStudies(arms, pair_share=0.5)
    rows = []
    for n in REAL_PAIRS:
        row = errors_row("gates", "weak ratio: source - base = 1.4", law, rng, Size(studies, n))
        wide = words_row("", "", law, rng, Size(studies, n), Region(0.1, 1.1))
        facts, counts = row.facts | {"region": wide.facts["region"]}, row.counts | wide.counts
        rows.append(replace(row, facts=facts, counts=counts))
    return rows


def _controls(rng: np.random.Generator, studies: int) -> list[Row]:
    """A control that does nothing, one that lies on the margin, one that moves the outcome."""
    region, rows = Region(0.6, 1.0), []
    for transfer, wanted, note in (
        (0.0, (), "a claim that is true and specific"),
        (0.1, (Wanted("supported", "at most", 0.05),), "one control on its margin"),
        (0.3, (Wanted("supported", "at most", 0.01),), "not specific"),
    ):
        arms = laws.arms(0.8, noise=transfer, unrelated_base=0.0, wrong_layer=0.0)
        law = ScoreStudies(arms, pair_share=0.5)
        rows += [
            words_row(
                "gates",
                f"controls: one transfers {transfer}",
                law,
                rng,
                Size(studies, n),
                region,
                wanted=wanted,
                note=note,
            )
            for n in (40, 80, 160)
        ]
    for name, patch in (
        ("disrupted", PATCHES["kv@25/32/last(32)"]),
        ("stored-at-layer", PATCHES["kv@25/32/last(32)"]),
    ):
        planted = PlantedStudies(CATALOG[name], roles(patch))
        truth = true_value(planted.truth, "transfer")
        specific = name != "disrupted"
        wanted = (Wanted("supported" if specific else "invalid", "at least", 0.95),)
        rows.append(
            words_row(
                "gates",
                f"controls: planted {name}, {patch}",
                planted,
                rng,
                Size(studies, 60),
                Region(truth - 0.1, truth + 0.1),
                wanted=wanted,
                note="" if specific else "any foreign cache moves it: not specific",
            )
        )
    return rows


def _families(rng: np.random.Generator, studies: int) -> list[Row]:
    """Eight claims, all of them false at their edge: how often is some one supported?"""
    names = [f"cell-{number}" for number in range(FAMILY)]
    arms: dict[str, Counts] = laws.arms(0.6)
    arms |= dict.fromkeys(names, arms["patched"])
    rows = []
    for n in (40, 160):
        law = ScoreStudies(arms, pair_share=0.5)
        scores = means(law, rng, Size(studies, n))
        cells = [{**scores, "patched": scores[name]} for name in names]
        counts = {}
        for how, alpha in {
            "some one supported": Share(Family("eight", FAMILY)).alpha,
            "some one supported, each at 0.05": ALPHA,
        }.items():
            for side, region in (
                (how, Region(0.6, 0.9)),
                (how.replace("supported", "refuted"), Region(0.3, 0.6)),
            ):
                word: Word = "refuted" if "refuted" in side else "supported"
                found = [decide(one, rule_for(region, alpha=alpha)).has_word(word) for one in cells]
                counts[side] = int(np.any(found, 0).sum())
        p = np.array([decide(one, rule_for(Region(low=0.6))).tests.p_supported for one in cells])
        counts["some one supported, by Holm"] = int(
            sum(min(holm(dict(enumerate(one)), FAMILY).values()) <= ALPHA for one in p.T)
        )
        wanted = (
            Wanted("some one supported", "at most", 0.05),
            Wanted("some one refuted", "at most", 0.05),
            Wanted("some one supported, by Holm", "at most", 0.05),
        )
        facts: dict[str, str | int | float] = {"pairs": n, "cells": FAMILY, "truth": 0.6}
        rows.append(Row("families", f"{n} pairs", studies, facts, counts, wanted))
    return rows


def _looks(rng: np.random.Generator, studies: int) -> list[Row]:
    """Judged after 40, 80 and 160 pairs: error rates, and what stopping early spares."""
    rows = []
    for transfer, region, where in (
        (0.6, Region(0.6, 1.0), "at low edge"),
        (0.6, Region(0.2, 0.6), "at high edge"),
        (0.8, Region(0.6, 1.0), "in the middle"),
        (0.2, Region(0.6, 1.0), "far outside"),
    ):
        scores = means(
            ScoreStudies(laws.arms(transfer), pair_share=0.5), rng, Size(studies, LOOKS[-1])
        )
        facts: dict[str, str | int | float] = {
            "truth": transfer,
            "region": str(region),
        }
        counts: dict[str, int] = {}
        for how, alpha in {"": ALPHA / len(LOOKS), ", each look at 0.05": ALPHA}.items():
            words, pairs = _looked_at(scores, region, alpha)
            for word in WORDS:
                counts[f"{word}{how}"] = int((words == word).sum())
            facts[f"pairs used{how}"] = float(pairs.mean())
        once = decide(scores, rule_for(region))
        counts |= {f"{word}, one look": n for word, n in word_counts(once).items()}
        wanted: tuple[Wanted, ...] = ()
        if "edge" in where:
            wanted = (Wanted("supported", "at most", 0.05), Wanted("refuted", "at most", 0.025))
        rows.append(Row("looks", f"truth {where}", studies, facts, counts, wanted))
    return rows


def _looked_at(scores: Scores, region: Region, alpha: float) -> tuple[np.ndarray, Floats]:
    """The word at which each study stops, and the pairs that it took; `[study]`."""
    studies = len(scores["base"])
    words = np.full(studies, "", dtype=object)
    pairs = np.full(studies, float(LOOKS[-1]))
    for n in LOOKS:
        so_far = {arm: values[:, :n] for arm, values in scores.items()}
        judged = decide(so_far, rule_for(region, alpha=alpha))
        open_ = words == ""
        for word in WORDS:
            final = word in ("supported", "refuted") or n == LOOKS[-1]
            now = open_ & judged.has_word(word) & final
            words[now], pairs[now] = word, n
    return words, pairs


def _network(rng: np.random.Generator, studies: int) -> list[Row]:
    return [network_row(rng, studies)]
