"""What follows from the truth: geometry, repetition, the points that the models are made for."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.planted.catalog import CATALOG, N_LAYERS
from kv_claims.planted.circuit import circuit_of
from kv_claims.planted.degenerate import expected_degenerate_share
from kv_claims.planted.features import of_pairs
from kv_claims.planted.geometry import outcomes
from kv_claims.planted.pasting import may_stand_in, row_of
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import (
    DONORS,
    UnknownTruth,
    expected_means,
    true_transfer,
)
from tests.planted.planted_network import bench, donor_run, patched_run

CELLS = [
    Patch("kv", layers, positions)
    for layers in ("9", "12", "13", "12+13")
    for positions in ("last(16)", "last(32)")
]
GEOMETRY = [Outcome.parse(text) for text in ("pr@27/32", "pr@5/32", "rv")]
GEOMETRY_ARMS = [
    Patch("kv", "27/32", "last(16)"),
    Patch("v", "all", "last(10)"),
    Patch("v", "2", "all", mode="mix(0.4)"),
    Patch("v_proj", "27/32", "last(16)"),
    Patch("residual", "25/32", "last(16)", active="every_step"),
    Patch("kv_proj", "9", "last(30)"),
    Patch("kv", "18/32", "last(20)"),
]


def transfer(name: str, patch: Patch, donor: str = "source", outcome: str = "behavior") -> float:
    planted = CATALOG[name]
    return true_transfer(planted, patch, planted_task(planted), donor=donor, outcome=outcome)


def by_svd(values: list[np.ndarray], outcome: Outcome) -> float:
    """The outcome of a prompt's values by layer, from singular values."""
    found = []
    for layer in outcome.layers(N_LAYERS):
        s = np.linalg.svd(values[layer][-16:], compute_uv=False)
        found.append(np.sum(s**2) ** 2 / np.sum(s**4))
    return float(found[0] if outcome.name == "pr" else found[1] / found[0])


@pytest.mark.parametrize("name", CATALOG)
def test_geometry_is_that_of_the_network(name: str) -> None:
    on = bench(CATALOG[name], 30)
    circuit = circuit_of(on.planted, with_content=True)
    for patch in GEOMETRY_ARMS:
        for donor in ("source", "unrelated-base"):
            cases = of_pairs(
                on.planted,
                circuit,
                on.task,
                1,
                partial(may_stand_in, [patch]),
            )
            row = row_of(cases, [patch], donor)
            trace = row.run(circuit)
            pair = on.task.pairs[2]
            pasted = on.donor(pair, donor, [patch], [])
            n_source, base = len(on.ids(pair.source)), on.ids(pair.base)
            _, values = patched_run(on.network, base, [], [patch], pasted, n_source)
            for outcome in GEOMETRY:
                wanted = by_svd([value.numpy() for value in values], outcome)
                found = outcomes(trace, row.prompts, outcome)[2]
                assert found == pytest.approx(wanted, rel=1e-6), f"{outcome} {patch} {donor}"


def test_the_mean_geometry_is_over_the_pairs_that_are_asked_for() -> None:
    on = bench(CATALOG["relay"], 12)
    outcome, patch = Outcome.parse("pr@27/32"), Patch("kv", "27/32", "last(8)")
    runs = {
        side: [
            donor_run(on.network, on.ids(getattr(pair, side)), []).acts[13, "v"].numpy()
            for pair in on.task.pairs
        ]
        for side in ("base", "source")
    }
    found = expected_means(on.planted, patch, on.task, over="pairs", outcome=outcome)
    base, source = (np.mean([by_svd([v] * N_LAYERS, outcome) for v in runs[side]]) for side in runs)
    assert (found.base, found.source) == pytest.approx((base, source), rel=1e-6)
    population = expected_means(on.planted, patch, planted_task(on.planted, 7), outcome=outcome)
    every = expected_means(
        on.planted, patch, planted_task(on.planted), over="pairs", outcome=outcome
    )
    assert population == every


def test_noise_has_the_geometry_of_random_directions() -> None:
    """16 random directions in 8 dimensions, of equal length: PR is 16 * 8 / (16 + 8 - 1)."""
    planted = CATALOG["stored-at-layer"]
    patch = Patch("v", "27/32", "last(18)")
    task = planted_task(planted, 100)
    found = expected_means(planted, patch, task, donor="noise", over="pairs", outcome="pr@13")
    # The last row of the window is the last token's own; source lengths are nearly equal.
    assert found.patched == pytest.approx(16 * 8 / 23, abs=0.2)
    assert found.base == expected_means(planted, patch, task, over="pairs", outcome="pr@13").base


def test_full_swap_is_the_source() -> None:
    swap = Patch("kv", "all", "all")
    for name, planted in CATALOG.items():
        for outcome in ("behavior", "pr@13", "rv"):
            found = expected_means(planted, swap, planted_task(planted, 20), outcome=outcome)
            assert found.patched == found.source, (name, outcome)


@pytest.mark.parametrize("name", CATALOG)
def test_what_must_change_nothing_changes_nothing(name: str) -> None:
    """A prompt's own activations; keys, where nothing is sought by key."""
    planted = CATALOG[name]
    task = planted_task(planted, 20)
    for patch in (
        Patch("kv", "all", "last(20)"),
        Patch("residual", "12", "all", active="every_step"),
        Patch("kv_proj", "6:16", "first(25%)", active="every_step"),
        Patch("v", "all", "last(9)", mode="mix(0.3)"),
    ):
        found = expected_means(planted, patch, task, donor="base")
        assert found.patched == pytest.approx(found.base, rel=1e-12), str(patch)
    found = expected_means(planted, Patch("k", "all", "last(32)"), task)
    if name == "bound-by-keys":
        assert found.patched == pytest.approx(found.base, rel=1e-9)  # no values worth seeking
    else:
        assert found.patched == found.base


@pytest.mark.parametrize("name", CATALOG)
def test_other_words_for_the_same_patch(name: str) -> None:
    planted = CATALOG[name]
    task = planted_task(planted, 20)

    def patched(*patches: Patch) -> float:
        return expected_means(planted, patches, task, over="pairs").patched

    plain = patched(Patch("kv", "12", "last(20)"))
    assert patched(Patch("kv", "25/32", "last(20)", mode="mix(1)", heads="0")) == plain
    both = Patch("k", "12", "last(20)"), Patch("v", "12", "last(20)")
    assert patched(*both) == pytest.approx(plain, rel=1e-12)
    assert patched(*both[::-1]) == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("name", CATALOG)
def test_the_population_is_what_pairs_are_drawn_from(name: str) -> None:
    planted = CATALOG[name]
    task = planted_task(planted, 600)
    for donor in ("source", "unrelated-base"):
        patch = Patch("kv", "12+13", "last(32)")
        population = expected_means(planted, patch, task, donor=donor)
        pairs = expected_means(planted, patch, task, donor=donor, over="pairs")
        assert pairs == pytest.approx(population, abs=2.5 if name == "disrupted" else 0.6)


WITH_CONTROLS = sorted(set(CATALOG) - {"inert", "disrupted", "through-blocks", "standing"})
"""In the last two, queries with content read noise on keys, whose truth is not known."""


@pytest.mark.parametrize("name", WITH_CONTROLS)
@pytest.mark.parametrize("patch", CELLS, ids=str)
def test_controls_stay_well_inside_the_margin(name: str, patch: Patch) -> None:
    for donor in ("noise", "unrelated-base"):
        assert abs(transfer(name, patch, donor)) < 0.05


def test_transfer_is_linear_in_the_signal_for_small_gains() -> None:
    """Twice the positions of a weak signal carry twice the transfer, whatever the model."""
    one = transfer("distributed", Patch("kv", "3", "last(8)"))
    two = transfer("distributed", Patch("kv", "3", "last(16)"))
    assert two == pytest.approx(2 * one, rel=0.03)


def test_inert_has_no_transfer() -> None:
    assert math.isnan(transfer("inert", CELLS[0]))


def test_stored_relay_and_keys_do_what_they_are_made_for() -> None:
    early, late = Patch("kv", "18/32", "last(32)"), Patch("kv", "27/32", "last(32)")
    assert 0.7 < transfer("stored-at-layer", Patch("kv", "25/32", "last(32)")) < 0.9
    # A splice where it is noted reaches new positions alone; in the prompt pass all that read it.
    computed = Patch("kv_proj", "18/32", "last(32)")
    assert 0.1 < transfer("relay", early) < 0.3 < 0.5 < transfer("relay", late) < 0.7
    assert transfer("relay", computed) > 2 * transfer("relay", early)
    only_v, only_k, both = (Patch(site, "25/32", "all") for site in ("v", "k", "kv"))
    assert 0.05 < transfer("bound-by-keys", only_v) < 0.15
    assert abs(transfer("bound-by-keys", only_k)) < 1e-9
    assert transfer("bound-by-keys", both) > 0.95


def test_geometry_and_behavior_part() -> None:
    residual = Patch("residual", "25/32", "last(16)")
    assert transfer("geometry-only", residual, outcome="rv") == pytest.approx(1, abs=0.05)
    assert transfer("geometry-only", residual) < 0.05
    where = Patch("kv", "12/32", "all")
    assert transfer("geometry-only", where) > 0.9
    assert transfer("geometry-only", where, outcome="rv") == pytest.approx(0, abs=1e-9)
    planted = CATALOG["geometry-only"]
    found = expected_means(planted, where, planted_task(planted), outcome="rv")
    assert found.source < 0.5 < 0.9 < found.base


def test_generated_markers_carry_the_mode_on() -> None:
    """At 100 words the source of the model without feedback is back at the base's level."""
    for name, low, high in (("self-sustaining", 90, 100), ("stored-at-layer", 40, 70)):
        planted = CATALOG[name]
        found = expected_means(planted, CELLS[0], planted_task(planted), max_new_tokens=100)
        assert low < found.source < high


def test_collapse_looks_like_transfer_and_is_repetition() -> None:
    planted, patch = CATALOG["collapse"], Patch("kv", "25/32", "last(32)")
    for n in (30, 50, 100):
        assert 0.7 < true_transfer(planted, patch, planted_task(planted), max_new_tokens=n) < 0.9
        share = expected_degenerate_share(planted, patch, planted_task(planted), max_new_tokens=n)
        assert share > 0.95
    for arm in ("base", "source"):
        assert expected_degenerate_share(planted, (), planted_task(planted), arm=arm) == 0
    for donor in ("noise", "unrelated-base"):
        assert expected_degenerate_share(planted, patch, planted_task(planted), donor=donor) < 0.02
    agreeing = Patch("kv", "18/32+25/32", "last(32)")
    assert abs(transfer("collapse", agreeing)) < 1e-9


def test_any_foreign_cache_disrupts() -> None:
    planted = CATALOG["disrupted"]
    task = planted_task(planted)
    for n in (30, 50, 100):
        patch = Patch("kv", "18/32" if n == 50 else "25/32", "last(32)")
        of_source, of_other, of_noise = (
            true_transfer(planted, patch, task, donor=donor, max_new_tokens=n)
            for donor in ("source", "unrelated-base", "noise")
        )
        assert 0.75 < of_source < 0.82
        assert min(of_other, of_noise) > 0.5
        assert expected_degenerate_share(planted, patch, task, max_new_tokens=n) < 0.02


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "collapse"])
def test_no_other_model_degenerates(name: str) -> None:
    planted = CATALOG[name]
    for arm in ("base", "source", "patched"):
        share = expected_degenerate_share(
            planted,
            Patch("kv", "all", "last(32)"),
            planted_task(planted),
            arm=arm,
            max_new_tokens=100,
        )
        assert share == 0


def test_texts_follow_the_law_of_the_row_and_its_donor() -> None:
    """Sampled words, with feedback from a donor's sampled words, have the chain's mean."""
    from kv_claims.planted.degenerate import _texts
    from kv_claims.planted.truth import laws
    from kv_claims.planted.words import MARKERS

    planted = CATALOG["self-sustaining"]
    patch = Patch("v_proj", "25/32", "last(16)", active="every_step")
    law = laws(
        planted,
        [patch],
        planted_task(planted, 4),
        donor="source",
        max_new_tokens=10,
        temperature=0.7,
        over="pairs",
    ).patched
    draw = np.random.default_rng(0)
    found = np.mean([_texts(law, draw, None) < len(MARKERS) for _ in range(1000)], axis=0)
    np.testing.assert_allclose(found, law.probabilities()[0], atol=0.05)


@pytest.mark.parametrize(
    ("name", "patch", "options", "message"),
    [
        ("stored-at-layer", CELLS[0], {"temperature": 0.0}, "known above 0 only"),
        ("stored-at-layer", CELLS[0], {"outcome": "loglik"}, "known for behavior and geometry"),
        ("stored-at-layer", CELLS[0], {"outcome": "rv/generated"}, "over the prompt"),
        ("stored-at-layer", CELLS[0], {"outcome": "pr-centred@13"}, "over the prompt"),
        (
            "stored-at-layer",
            Patch("kv", "all", "last(4)", mode="append"),
            {"outcome": "rv"},
            "where the cache is appended",
        ),
        ("relay", Patch("residual", "12", "last(4)"), {"donor": "noise"}, "on residual"),
        (
            "relay",
            Patch("residual", "12", "last(4)"),
            {"donor": "noise", "outcome": "rv"},
            "on residual",
        ),
        (
            "self-sustaining",
            Patch("kv", "12", "last(4)", active="every_step"),
            {"donor": "noise"},
            "noise at every step",
        ),
    ],
    ids=[
        *("greedy", "likelihood", "generated-window", "variant", "geometry-of-append"),
        *("residual-noise", "residual-noise-geometry", "noise-with-feedback"),
    ],
)
def test_truth_is_refused_where_it_is_not_known(
    name: str, patch: Patch, options: dict[str, object], message: str
) -> None:
    planted = CATALOG[name]
    with pytest.raises(UnknownTruth, match=message):
        expected_means(planted, patch, planted_task(planted, 4), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("patch", "options", "message"),
    [
        (CELLS[0], {"task": planted_task(CATALOG["inert"], 4)}, "not drawn from the population"),
        (CELLS[0], {"donor": "sourc"}, f"expected one of {', '.join(DONORS)}"),
        (Patch("kv", "12", "last(60)"), {}, "expected a window that fits both"),
        (Patch("kv", "12", "last(4)", heads="1"), {}, "out of range"),
        ((CELLS[2], Patch("v", "12", "all")), {}, "both write 'v' of layer 12"),
    ],
    ids=["foreign-task", "donor", "window", "head", "overlap"],
)
def test_bad_questions_are_errors(patch: Patch, options: dict[str, object], message: str) -> None:
    planted = CATALOG["stored-at-layer"]
    asked: dict[str, object] = {"task": planted_task(planted, 4), **options}
    with pytest.raises(UsageError, match=message):
        true_transfer(planted, patch, **asked)  # type: ignore[arg-type]
