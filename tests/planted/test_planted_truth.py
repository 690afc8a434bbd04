"""The truth of planted models is what their networks do: word for word, patch for patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from kv_claims.claims.donors import ABLATIONS
from kv_claims.claims.patch import Active, Patch, is_full_swap
from kv_claims.claims.sites import SITES, Site
from kv_claims.planted.catalog import CATALOG, COLUMN, HIDDEN, Dim, Planted
from kv_claims.planted.law import Law
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import UnknownTruth, expected_means, laws
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.tasks.directions import Direction
from kv_claims.tasks.task import Task
from tests.planted.planted_network import Bench, bench, forward, noisy, patched_run

TEMPERATURE = 0.7
STEPS = 7
EVERYWHERE: tuple[Site, ...] = ("kv", "k", "v", "kv_proj", "k_proj", "v_proj", "residual")
"""Sites that are tried on every model; the others on those whose blocks have something there."""
IN_LAYERS = [site for site in SITES if site != "embed" and site not in EVERYWHERE]
IN_BLOCKS = ("through-blocks", "bound-by-keys", "self-sustaining", "relay")
WHERE: tuple[tuple[str, str, Active], ...] = (
    ("18/32", "last(16)", "prompt"),
    ("12/32+27/32", "first(25%)", "every_step"),
    ("8:16", "all", "every_step(held)"),
)
ARMS: list[tuple[Patch, ...]] = [
    *((Patch(site, *where, active=active),) for site in EVERYWHERE for *where, active in WHERE),
    (Patch("kv", "25/32", "last(16)"),),
    (Patch("k", "all", "all"), Patch("v", "all", "all")),
    (Patch("kv", "all", "all", active="every_step(held)"),),
    (Patch("kv", "25/32", "last(32)", active="every_step"),),
    (Patch("residual", "16/32:28/32", "last(16)", active="every_step"),),
    (Patch("v", "all", "last(32)", heads="0"),),
    (Patch("kv", "12", "last(30)", mode="mix(0.3)"),),
    (Patch("v", "all", "first(20)", mode="mix(0.5)"),),
    (Patch("kv", "all", "last(10)", mode="append"),),
    (Patch("kv", "all", "all"),),
    (Patch("kv", "25/32", "at(-9:-2)"),),
    (Patch("v", "all", "at(5:20)"),),
    (Patch("residual", "12", "at(-1)"),),
    (
        Patch("kv", "18/32", "last(16)"),
        Patch("v_proj", "27/32", "last(16)"),
        Patch("residual", "12/32", "first(8)", active="every_step"),
    ),
    (Patch("k", "12", "last(20)"), Patch("v", "12", "last(12)")),
]
OF_BLOCKS: list[tuple[Patch, ...]] = [
    *((Patch(site, *where, active=active),) for site in IN_LAYERS for *where, active in WHERE),
    (Patch("embed", "0", "last(16)"),),
    (Patch("embed", "0", "first(25%)", active="every_step"),),
    *((Patch("z", "9", "all", heads=head, active="every_step"),) for head in "01"),
    (Patch("z", "9", "all", active="every_step"), Patch("mlp_out", "12", "first(20)")),
    (Patch("attn_out", "all", "all", active="every_step"),),
    (Patch("mlp_out", "12", "all", active="every_step"),),
    (Patch("resid_mid", "12", "last(1)", active="every_step"),),
    (Patch("resid_pre", "12", "all", mode="mix(0.25)"), Patch("v_proj", "9", "last(9)")),
    (Patch("attn_out", "9+12", "last(30)", mode="mix(0.6)"),),
]
NEW = ("relay", "bound-by-keys", "self-sustaining", "collapse", "disrupted")


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    return {name: bench(planted) for name, planted in CATALOG.items()}


def some_words(seed: int, n: int = STEPS - 1) -> list[int]:
    """Token ids of markers and plain words, both often."""
    return [int(i) for i in np.random.default_rng(seed).integers(1, 241, n)]


def given(law: Law, row: int, planted: Planted, own: list[int], donors: list[int]) -> np.ndarray:
    """Probability of every generated word at each step, given the words before, `[step, word]`."""
    counts = [np.cumsum([0, *(i <= len(MARKERS) for i in ids)]) for ids in (own, donors)]
    of_class = law.given(law.own * counts[0] + law.of_donor * counts[1])[:, row]
    found = np.zeros((len(own) + 1, len(planted.words)))
    for words, chances in zip(law.classes, of_class, strict=True):
        ids = [planted.words.index(word) for word in words]
        found[:, ids] = chances[:, None] / len(words)
    return found


def by_network(logits: torch.Tensor) -> np.ndarray:
    chances: np.ndarray = torch.softmax(logits / TEMPERATURE, -1).numpy()
    return chances


def of_pairs(planted: Planted, patches: Sequence[Patch], task: Task, donor: str) -> Any:
    return laws(
        planted,
        patches,
        task,
        donor=donor,
        max_new_tokens=STEPS,
        temperature=TEMPERATURE,
        over="pairs",
    )


@pytest.mark.parametrize("name", CATALOG)
def test_every_patch_gives_the_words_that_the_network_gives(
    name: str, benches: dict[str, Bench]
) -> None:
    """Every site, mode and activity, from every donor, on pairs of unequal lengths."""
    on = benches[name]
    own, donors = some_words(1), some_words(2)
    for number, patches in enumerate([*ARMS, *(OF_BLOCKS if name in IN_BLOCKS else ())]):
        for donor in ("source", ("unrelated-base", "base")[number % 2]):
            row = number % 3
            pair = on.task.pairs[row]
            source, base = on.ids(pair.source), on.ids(pair.base)
            law = of_pairs(on.planted, patches, on.task, donor).patched
            swapped = is_full_swap(patches, 16) and donor == "source"
            if swapped and all(patch.active == "prompt" for patch in patches):
                logits = forward(on.network, [*source, *own]).logits[len(source) - 1 :]
            else:
                # The base as its own donor goes on with the same words.
                words = own if donor == "base" else donors
                run = on.donor(pair, donor, patches, words)
                start = source if swapped else base
                logits, _ = patched_run(on.network, start, own, patches, run, len(source))
            words = own if donor == "base" else donors
            wanted = given(law, row, on.planted, own, words)
            error = np.abs(by_network(logits) - wanted).sum(1).max()
            assert error < 1e-6, f"{[*map(str, patches)]} from {donor}"


ABLATED: list[Patch] = [
    *(
        Patch(site, *where, active=active, donor=donor)
        for site in ("kv", "k", "v", "v_proj", "z", "attn_out", "mlp_out", "residual")
        for donor in ABLATIONS
        for *where, active in (("9", "all", "every_step"), ("8:16", "last(20)", "prompt"))
        if donor != "zero" or site != "residual"  # without its constant the stream is no longer
    ),
    *(Patch("z", "9", "all", head, active="every_step", donor="zero") for head in "01"),
    Patch("v", "12", "first(25%)", mode="mix(0.3)", donor="mean"),
    Patch("kv", "all", "last(32)", active="every_step", donor="resample"),
]


SLOW = pytest.mark.slow


def apart(on: Bench, row: int, patch: Patch) -> float:
    """How far the words of a patch from no source lie from the network's, at the worst step."""
    own, donors = some_words(1), some_words(2)
    pair = on.task.pairs[row]
    base = on.ids(pair.base)
    law = of_pairs(on.planted, [patch], on.task, patch.donor).patched
    run = on.instead(pair, patch, donors)
    logits, _ = patched_run(on.network, base, own, [patch], run, len(base))
    wanted = given(law, row, on.planted, own, donors)
    return float(np.abs(by_network(logits) - wanted).sum(1).max())


@pytest.mark.parametrize(
    "name",
    [
        "standing",
        "disrupted",
        pytest.param("bound-by-keys", marks=SLOW),
        pytest.param("self-sustaining", marks=SLOW),
    ],
)
def test_every_ablation_gives_the_words_that_the_network_gives(
    name: str, benches: dict[str, Bench]
) -> None:
    on = benches[name]
    for number, patch in enumerate(ABLATED):
        assert apart(on, number % 3, patch) < 1e-6, str(patch)


def along(*dims: Dim) -> Direction:
    """A direction of the stream that has these dimensions and no others."""
    array = np.zeros(HIDDEN)
    array[[COLUMN[dim] for dim in dims]] = 0.1 * np.arange(1, 1 + len(dims))
    return Direction("of-stream", {"": array})


OF_HEAD = Direction("of-head", {"": np.array([0.3, 0, 0, 0, 0, 0, 0, 0])})
STEERED: list[Patch] = [
    *(
        Patch(site, "9", "all", mode=mode, active=active, donor="vector(of-stream)")
        for site in ("attn_out", "resid_mid", "mlp_out", "resid_pre", "residual")
        for mode in ("add(2)", "add(-0.7)", "project_out")
        for active in ("prompt", "every_step")
    ),
    *(
        Patch(site, "9+12", "last(20)", mode=mode, donor="vector(of-head)")
        for site in ("v", "v_proj", "z")
        for mode in ("add(1.5)", "project_out", "replace")
    ),
    Patch("v", "12", "all", mode="add(-3)", active="every_step", donor="vector(of-head)"),
]


@pytest.mark.parametrize(
    "name",
    [
        "standing",
        "self-sustaining",
        pytest.param("relay", marks=SLOW),
        pytest.param("bound-by-keys", marks=SLOW),
    ],
)
def test_every_direction_gives_the_words_that_the_network_gives(
    name: str, benches: dict[str, Bench]
) -> None:
    on = benches[name]
    dims: tuple[Dim, ...] = ("signal", "note") if name in ("standing", "relay") else ("signal",)
    if name != "self-sustaining":
        # There a generated marker's own trigger would be turned into something else.
        dims = (*dims, "trigger")
    directions = (along(*dims), OF_HEAD)
    on = replace(on, task=replace(on.task, directions=directions))
    for number, patch in enumerate(STEERED):
        assert apart(on, number % 3, patch) < 1e-6, str(patch)


def test_a_direction_whose_effect_is_not_followed_has_no_known_truth() -> None:
    planted = CATALOG["standing"]
    task = planted_task(planted, 3)
    for array, mode in (
        (np.ones(HIDDEN), "add(1)"),  # moves the constant
        (np.eye(HIDDEN)[COLUMN["signal"]], "replace"),  # has none
        (np.eye(HIDDEN)[COLUMN["signal"]] + np.eye(HIDDEN)[3], "project_out"),  # has content
    ):
        has = replace(task, directions=(Direction("d", {"": array}),))
        patch = Patch("residual", "9", "all", mode=mode, donor="vector(d)")
        with pytest.raises(UnknownTruth, match="direction 'd'"):
            of_pairs(planted, [patch], has, patch.donor)
        with pytest.raises(UnknownTruth, match="does not name it"):
            of_pairs(planted, [patch], task, patch.donor)


@pytest.mark.parametrize("name", CATALOG)
def test_base_and_source_give_the_words_that_the_network_gives(
    name: str, benches: dict[str, Bench]
) -> None:
    on, own = benches[name], some_words(3)
    found = of_pairs(on.planted, ARMS[0], on.task, "source")
    for row, pair in enumerate(on.task.pairs[:4]):
        for law, prompt in ((found.base, pair.base), (found.source, pair.source)):
            ids = on.ids(prompt)
            logits = forward(on.network, [*ids, *own]).logits[len(ids) - 1 :]
            wanted = given(law, row, on.planted, own, own)
            assert np.abs(by_network(logits) - wanted).sum(1).max() < 1e-6


def enumerated(law: Law, row: int) -> list[float]:
    """Probability of a marker at each step, over every sequence of markers and plain words.

    One uniform decides for row and donor: the unit interval is cut at both probabilities.
    """
    found = [0.0] * law.logits.shape[-1]

    def follow(step: int, own: int, donors: int, weight: float) -> None:
        if step == len(found):
            return
        shift = law.own[row, step] * own + law.of_donor[row, step] * donors
        chance = float(law.given(shift, step)[0, row])
        of_donor = 0.0
        if law.donor is not None:
            theirs = law.donor.given(law.donor.own[row, step] * donors, step)
            of_donor = float(theirs[0, row])
        found[step] += weight * chance
        edges = sorted({0.0, chance, of_donor, 1.0})
        for low, high in pairwise(edges):
            middle = (low + high) / 2
            follow(
                step + 1,
                own + (middle < chance),
                donors + (middle < of_donor),
                weight * (high - low),
            )

    follow(0, 0, 0, 1.0)
    return found


@pytest.mark.parametrize(
    "patch",
    [
        Patch("kv", "25/32", "last(16)"),
        Patch("v_proj", "25/32", "last(16)", active="every_step"),
        Patch("residual", "25/32", "last(16)", active="every_step"),
        Patch("residual", "12/32", "first(5)", active="every_step"),
        Patch("v", "25/32", "last(16)", active="every_step(held)"),
    ],
    ids=str,
)
def test_the_chain_over_counts_is_the_sum_over_all_texts(patch: Patch) -> None:
    planted = CATALOG["self-sustaining"]
    found = laws(
        planted,
        [patch],
        planted_task(planted, 2),
        donor="source",
        max_new_tokens=6,
        temperature=TEMPERATURE,
        over="pairs",
    )
    for law in (found.base, found.source, found.patched):
        for row in range(2):
            chain = law.probabilities()[0, row]
            np.testing.assert_allclose(chain, enumerated(law, row), rtol=1e-12)


def test_the_chain_holds_where_row_and_donor_both_count() -> None:
    """No planted patch makes both matter, so the law is made up."""
    draw = np.random.default_rng(0)
    classes = (MARKERS, PLAIN)
    logits = np.stack([draw.normal(size=(2, 6)), np.zeros((2, 6))])
    slopes = draw.normal(0, 0.4, size=(3, 2, 6))
    zero = np.zeros((2, 6))
    donor = Law(classes, logits[:, ::-1], slopes[0], zero, None)
    law = Law(classes, logits, slopes[1], slopes[2], donor)
    for row in range(2):
        np.testing.assert_allclose(law.probabilities()[0, row], enumerated(law, row), rtol=1e-12)


@pytest.mark.parametrize("name", ["stored-at-layer", "distributed", "early-tokens", *NEW])
def test_the_truth_of_noise_is_the_mean_over_noise_in_the_network(
    name: str, benches: dict[str, Bench]
) -> None:
    """To four standard errors of what 40 noises in the network give."""
    on, patch = benches[name], Patch("kv", "8:16", "last(30)")
    # Without feedback what was generated does not matter; with it, the first word has none yet.
    own = [] if on.planted.marker_trigger else some_words(4, 3)
    # What is sought by noise in the keys is rarely much, so its mean takes more draws.
    draws = 4 if name == "bound-by-keys" else 1
    markers = [on.planted.words.index(word) for word in MARKERS]
    found = []
    for row, pair in enumerate(on.task.pairs):
        source, base = on.ids(pair.source), on.ids(pair.base)
        run = on.donor(pair, "source", [patch], own)
        for draw in range(draws):
            pasted = noisy(run, seed=draws * row + draw)
            logits, _ = patched_run(on.network, base, own, [patch], pasted, len(source))
            found.append(by_network(logits)[:, markers].sum(1).mean())
    truth = expected_means(
        on.planted, patch, on.task, donor="noise", max_new_tokens=len(own) + 1, over="pairs"
    )
    error = 100 * np.std(found) / len(found) ** 0.5
    assert 100 * np.mean(found) == pytest.approx(truth.patched, abs=4 * error + 0.05)
