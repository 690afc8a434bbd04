"""Scores drawn from a planted model's law: their means are its truth, each is the network's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from kv_claims.calibration.planted import PlantedStudies, roles
from kv_claims.claims.patch import Patch, as_patches
from kv_claims.errors import UsageError
from kv_claims.models.load import load_model
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.counting import odds_of
from kv_claims.planted.features import Ints
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import UnknownTruth, laws
from kv_claims.run.arms import Arm, patched
from kv_claims.run.sampling import uniforms
from kv_claims.study.scripting import run_study
from kv_claims.tasks.scorers import Published
from kv_claims.tasks.task import Task

KV = Patch("kv", "25/32", "last(32)")
EARLY = Patch("kv", "18/32", "first(25%)")
EVERY_STEP = Patch("v_proj", "25/32", "last(20)", active="every_step")
HELD = Patch("residual", "12/32", "last(8)", active="every_step(held)")
PATCHES: list[tuple[Patch, ...]] = [
    (KV,),
    (EARLY, replace(KV, positions="last(16)")),
    (EVERY_STEP,),
    (HELD,),
    (replace(KV, layers="8:16", mode="mix(0.4)"),),
    (replace(KV, layers="all", positions="last(6)", mode="append"),),
    (replace(KV, layers="all", positions="all"),),
]


def known(name: str, patches: tuple[Patch, ...]) -> dict[str, Arm]:
    """All roles whose truth is known: none of noise on the residual, that talks, or
    on keys that are read by queries with content."""
    found = roles(patches, versus=Patch("v", "12/32", "last(24)"))
    talks = name == "self-sustaining" and patches[0].active == "every_step"
    sought = CATALOG[name].filled and "k" in patches[0].tensors
    if patches[0].site == "residual" or talks or sought:
        del found["noise"]
    return found


@pytest.mark.parametrize("name", CATALOG)
def test_means_are_the_truth(name: str) -> None:
    """Every model, site, mode and control, over fresh pairs."""
    for number, patches in enumerate(PATCHES):
        studies = PlantedStudies(CATALOG[name], known(name, patches), max_new_tokens=12)
        drawn = studies.draw(np.random.default_rng(number), 300, 20, 1)
        assert set(drawn) == set(studies.truth) == {"base", "source", *studies.arms}
        for role, scores in drawn.items():
            assert scores.shape == (300, 20, 1)
            of_study = scores.mean((1, 2))
            error = of_study.std(ddof=1) / len(of_study) ** 0.5
            assert abs(of_study.mean() - studies.truth[role]) < 4 * error, (patches, role)


@pytest.mark.parametrize("name", ["self-sustaining", "disrupted", "bound-by-keys"])
def test_means_over_given_pairs_are_the_truth_of_these_pairs(name: str) -> None:
    planted = CATALOG[name]
    task = planted_task(planted, 5)
    studies = PlantedStudies(planted, known(name, (KV,)), max_new_tokens=20, task=task)
    assert studies.truth["patched"] != PlantedStudies(planted, {"patched": patched(KV)}).truth
    drawn = studies.draw(np.random.default_rng(7), 2000, 5, 2)
    for role, scores in drawn.items():
        of_study = scores.mean((1, 2))
        error = of_study.std(ddof=1) / len(of_study) ** 0.5
        assert abs(of_study.mean() - studies.truth[role]) < 4 * error, role


ENGINE = {
    "stored-at-layer": (KV,),
    "self-sustaining": (EVERY_STEP,),
    "disrupted": (KV,),
}
STEPS, SEEDS, N_PAIRS = 15, 2, 60


def by_engine(frame: pd.DataFrame, role: str, task: Task) -> np.ndarray:
    """Scores of a role, `[pair, seed]`, in the task's order of pairs."""
    table = frame[frame.arm == role].pivot(index="pair", columns="seed", values="score")
    return table.loc[[pair.id for pair in task.pairs]].to_numpy()


@pytest.mark.parametrize("name", ENGINE)
def test_every_score_is_the_networks_own(name: str) -> None:
    """The engine's uniforms give the engine's scores: base, source, patched and controls.

    A text may part from the network's where a uniform lies within 1e-6 of an edge.
    """
    task = planted_task(CATALOG[name], N_PAIRS)
    arms = known(name, ENGINE[name])
    is_noisy = arms.pop("noise", None) is not None
    frame = run_study(
        load_model(f"planted:{name}", device="cpu"),
        task,
        arms,
        seeds=SEEDS,
        max_new_tokens=STEPS,
    )
    studies = PlantedStudies(CATALOG[name], arms, max_new_tokens=STEPS, task=task)
    drawn = studies.scores(engine_uniforms(task), np.arange(N_PAIRS)[None])
    assert is_noisy == (name != "self-sustaining")
    assert {"patched", "unrelated-base", "wrong-layer", "versus"} <= set(drawn)
    for role, scores in drawn.items():
        wanted = by_engine(frame, role, task)
        assert wanted.std() > 0
        other = np.abs(scores[0] - wanted) > 1e-9
        assert other.sum() <= 1, role


def engine_uniforms(task: Task) -> np.ndarray:
    """`[study, pair, seed, step]`, of one study."""
    return np.array(
        [[[uniforms(pair.id, seed, STEPS).numpy() for seed in range(SEEDS)] for pair in task.pairs]]
    )


@pytest.mark.parametrize("name", ["disrupted", "stored-at-layer"])
def test_noise_spreads_scores_as_the_networks_noise_does(name: str) -> None:
    """On the same uniforms: the same mean, and the same spread about the arm without noise."""
    task = planted_task(CATALOG[name], N_PAIRS)
    arms = {"noise": roles(KV)["noise"]}
    frame = run_study(
        load_model(f"planted:{name}", device="cpu"), task, arms, seeds=SEEDS, max_new_tokens=STEPS
    )
    base, noisy = (by_engine(frame, role, task) for role in ("base", "noise"))
    studies = PlantedStudies(CATALOG[name], arms, max_new_tokens=STEPS, task=task)
    times = 50
    drawn = studies.scores(
        np.repeat(engine_uniforms(task), times, axis=0),
        np.broadcast_to(np.arange(N_PAIRS), (times, N_PAIRS)),
        of_noise=np.random.default_rng(3),
    )
    ours, theirs = drawn["noise"] - drawn["base"], noisy - base
    error = theirs.std() / theirs.size**0.5
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert theirs.std() > 0
    kurtosis = np.mean((ours - ours.mean()) ** 4) / ours.var() ** 2
    error = ours.std() * ((kurtosis - 1) / 4 / theirs.size) ** 0.5
    assert abs(ours.std() - theirs.std()) < 4 * error


def test_one_draw_of_normal_noise_holds_for_a_whole_text() -> None:
    """Where every uniform is the chance without noise, a text is all markers or none."""
    planted, steps = CATALOG["stored-at-layer"], 12
    task = planted_task(planted, 3)
    law = laws(
        planted,
        as_patches(KV),
        task,
        donor="noise",
        max_new_tokens=steps,
        temperature=0.7,
        over="pairs",
    ).patched
    studies = PlantedStudies(
        planted, {"noise": roles(KV)["noise"]}, max_new_tokens=steps, task=task
    )
    at_edge = expit(odds_of(law).silent)[None, :, None]
    drawn = studies.scores(
        np.repeat(at_edge, 40, axis=2), np.arange(3)[None], of_noise=np.random.default_rng(0)
    )
    assert set(drawn["noise"].ravel().tolist()) == {0.0, 100.0}


def test_a_pair_takes_the_noise_of_its_own() -> None:
    """Pair by pair, the mean over its draws of the noise."""
    planted = CATALOG["disrupted"]
    task, patch = planted_task(planted, 6), replace(KV, positions="first(25%)")
    arms = {"noise": roles(patch)["noise"]}
    studies = PlantedStudies(planted, arms, max_new_tokens=10, task=task)
    law = laws(
        planted,
        as_patches(patch),
        task,
        donor="noise",
        max_new_tokens=10,
        temperature=0.7,
        over="pairs",
    ).patched
    markers = [words[0] in task.lexicon for words in law.classes]
    of_pair = 100 * law.given()[markers].sum(0).reshape(6, -1).mean(1)
    drawn = studies.draw(np.random.default_rng(0), 20_000, 6, 1)["noise"][..., 0]
    error = drawn.std(0) / len(drawn) ** 0.5
    assert of_pair.std() > 10 * error.mean(), "pairs differ, or nothing is tested"
    assert np.all(np.abs(drawn.mean(0) - of_pair) < 4 * error)


def test_arms_of_a_pair_move_together_as_those_of_real_pairs_do() -> None:
    """Fresh pairs against all 300 of the task: correlations between arms, pair by pair.

    The style of a source says nothing of that of the unrelated base.
    """
    planted = CATALOG["disrupted"]
    arms = roles(replace(KV, positions="last(16)"))
    del arms["noise"]
    task = planted_task(planted)
    real = PlantedStudies(planted, arms, task=task).draw(np.random.default_rng(1), 1, 300, 40)
    fresh = PlantedStudies(planted, arms).draw(np.random.default_rng(2), 1, 3000, 40)

    def tied(drawn: dict[str, np.ndarray]) -> np.ndarray:
        return np.corrcoef([scores.mean(2).ravel() for scores in drawn.values()])

    # Four standard errors of a correlation over the 300 pairs, were it 0.
    assert np.abs(tied(real) - tied(fresh)).max() < 4 / 300**0.5


def test_equal_generators_give_equal_scores_whatever_else_is_asked_for() -> None:
    planted = CATALOG["disrupted"]
    many = PlantedStudies(planted, roles(KV, versus=EARLY), max_new_tokens=30)
    few = PlantedStudies(planted, {"patched": patched(KV)}, max_new_tokens=30)
    # More words than are decided at once.
    first, second, third = (
        one.draw(np.random.default_rng(5), 2000, 10, 2) for one in (many, many, few)
    )
    for role, scores in first.items():
        np.testing.assert_array_equal(scores, second[role])
    for role, scores in third.items():
        np.testing.assert_array_equal(scores, first[role])
    other = few.draw(np.random.default_rng(6), 2000, 10, 2)
    assert not np.array_equal(other["base"], third["base"])


def test_one_arm_under_two_names_has_one_text() -> None:
    noise = roles(KV)["noise"]
    studies = PlantedStudies(CATALOG["disrupted"], {"patched": noise, "versus": noise})
    drawn = studies.draw(np.random.default_rng(0), 3, 4, 2)
    np.testing.assert_array_equal(drawn["patched"], drawn["versus"])


def test_seeds_of_a_pair_share_the_pair_and_nothing_else() -> None:
    """Seeds are uncorrelated given the pair, and pairs are drawn afresh in every study."""
    planted = CATALOG["collapse"]
    given = PlantedStudies(planted, {"patched": patched(KV)}, task=planted_task(planted, 3))
    drawn = given.draw(np.random.default_rng(0), 5000, 3, 2)["source"]
    luck = drawn - drawn.mean(0)
    assert abs(np.corrcoef(luck[..., 0].ravel(), luck[..., 1].ravel())[0, 1]) < 4 / 15000**0.5
    fresh = PlantedStudies(planted, {}).draw(np.random.default_rng(0), 2000, 5, 1)["base"]
    within = np.corrcoef(fresh[:, 0, 0], fresh[:, 1, 0])[0, 1]
    assert abs(within) < 4 / 2000**0.5


def rows(n: int) -> Ints:
    return np.arange(n)[None]


def test_what_is_refused_is_refused_when_it_is_made() -> None:
    stored, talking = CATALOG["stored-at-layer"], CATALOG["self-sustaining"]
    with pytest.raises(UnknownTruth, match="residual"):
        PlantedStudies(stored, {"noise": roles(HELD)["noise"]})
    with pytest.raises(UnknownTruth, match="every step"):
        PlantedStudies(talking, {"noise": roles(EVERY_STEP)["noise"]})
    with pytest.raises(UnknownTruth, match="temperature"):
        PlantedStudies(stored, {}, temperature=0.0)
    with pytest.raises(UsageError, match="'patched': it patches the source"):
        PlantedStudies(stored, {"patched": Arm("source", "base", (KV,))})
    with pytest.raises(UsageError, match="last"):
        PlantedStudies(stored, {"patched": patched(replace(KV, positions="last(90)"))})
    task = planted_task(stored, 4)
    with pytest.raises(UnknownTruth, match="all markers"):
        PlantedStudies(stored, {}, task=replace(task, lexicon=frozenset({"echo"})))
    with pytest.raises(UnknownTruth, match="scorer"):
        PlantedStudies(stored, {}, task=replace(task, scorer=Published()))


def test_what_does_not_fit_a_draw_is_an_error() -> None:
    stored = CATALOG["stored-at-layer"]
    given = PlantedStudies(stored, {}, task=planted_task(stored, 4))
    with pytest.raises(UsageError, match="5 pairs: expected the 4"):
        given.draw(np.random.default_rng(0), 1, 5, 1)
    with pytest.raises(UsageError, match="0 seeds"):
        given.draw(np.random.default_rng(0), 1, 4, 0)
    noisy = PlantedStudies(stored, {"noise": roles(KV)["noise"]})
    with pytest.raises(UsageError, match="generator"):
        noisy.scores(np.zeros((1, 2, 1, 50)), rows(2))
