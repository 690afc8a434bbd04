"""Answers: every number again from the oracle's logits, on every architecture, ragged and all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kv_claims.claims.outcome import Behind
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.run.answered import Answered
from kv_claims.run.answers import AnswerRuns
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.oracle import oracle_logits
from kv_claims.run.runner import BRIEF, Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.task import Prompt, Task
from tests.models.architectures import CONFIGS, VOCAB, tiny
from tests.run.test_forced import ARMS, PATCHES
from tests.run.test_runner import number_task

PAIRS, SEEDS = 3, 2


def asked_task(lengths: Sequence[int] = (1, 3, 2)) -> Task:
    """Numbers whose answers have so many tokens, a pair each, and two more choices beside."""

    def answered(one: Prompt) -> Prompt:
        number, is_source = int(one.id[1:]), one.id[0] == "s"
        length = lengths[number % len(lengths)] if is_source else 1 + number % 2
        first = (10 if is_source else 50) + number

        def text(start: int, n: int) -> str:
            return "".join(f" {(start + 7 * k) % VOCAB}" for k in range(n))

        answer, foil = text(first, length), text(50 + number, 1 + number % 2)
        choices = (text(30, 2), answer, foil, text(31, 1)) if is_source else ()
        return replace(
            one, answers=Answers(answer, choices=choices), continuation=text(60 + number, 4)
        )

    task = number_task()
    return replace(
        task,
        sources=tuple(map(answered, task.sources)),
        bases=tuple(map(answered, task.bases)),
    )


def measure(
    model: LoadedModel,
    arms: Sequence[Arm],
    *,
    behind: Behind = "answers",
    ledger: Ledger | None = None,
    size: int | None = None,
    task: Task | None = None,
) -> tuple[Runner, list[Answered]]:
    task = task or asked_task()
    runner = Runner(model, task, Sampling(9), Ledger() if ledger is None else ledger, size).brief()
    pairs = task.first_pairs(PAIRS)
    return runner, AnswerRuns(runner, behind).measure(arms, pairs, range(SEEDS))


def by_hand(
    runner: Runner, arm: Arm, one: Answered, texts: Sequence[Sequence[int]], own: dict
) -> list[torch.Tensor]:
    """Log-softmax of the oracle's logits along each text."""
    pair = runner.task.pairs[one.pair_index]
    start = runner.rows.start(SOURCE if arm == FULL_SWAP else arm, pair)
    pastes = runner.rows.pastes(runner.canonical(arm), pair, own)
    return [
        torch.log_softmax(oracle_logits(runner.model, start, list(text), pastes), -1)
        for text in texts
    ]


def check(runner: Runner, arm: Arm, one: Answered, own: dict) -> None:
    """One record against log-probabilities that are summed token by token."""
    pair = runner.task.pairs[one.pair_index]
    asked = runner.rows.behind.of(pair, one.behind)
    rows = by_hand(runner, arm, one, asked.tokens, own)
    wanted = [
        sum(float(row[step, token]) for step, token in enumerate(text))
        for row, text in zip(rows, asked.tokens, strict=True)
    ]
    assert one.logp == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert one.tokens == tuple(map(len, asked.tokens))
    assert one.size == tuple(len(text.strip().encode()) for text in asked.options.texts)
    first = rows[0][0]
    assert one.rank == 1 + int((first > first[asked.tokens[0][0]]).sum())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_is_that_of_a_plain_model(name: str) -> None:
    """On every architecture: unpatched rows, and a splice, by another route."""
    arms = (BASE, SOURCE, patched(Patch("v", "1+2", "last(4)")))
    runner, found = measure(tiny(name), arms)
    assert len(found) == len(arms) * PAIRS * SEEDS
    by_id = {runner.canonical(arm).id: arm for arm in arms}
    for one in found:
        check(runner, by_id[one.arm], one, {})
    assert {n for one in found for n in one.tokens} == {1, 2, 3}


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        *((name, "answers") for name in ARMS if name != "unrelated"),
        *((name, "continuation") for name in ("base", "full-swap", "append", "every-step")),
    ],
)
def test_every_arm_is_that_of_the_oracle(name: str, behind: Behind) -> None:
    """What is on at every step too: its donors go on by themselves."""
    arm = ARMS[name]
    runner, found = measure(llama(), [arm], behind=behind)
    free = Runner(llama(), runner.task, Sampling(9), Ledger())
    own: dict[tuple[str, int], dict] = {}
    for side in (SOURCE, BASE):
        for trial in free.run([side], runner.task.first_pairs(PAIRS), range(SEEDS)):
            prompt = free.rows.start(side, free.task.pairs[trial.pair_index])
            own.setdefault((trial.pair, trial.seed), {})[prompt] = trial.tokens
    for one in found:
        check(runner, arm, one, own[one.pair, one.seed])
        checked = one.pair_index < 2 and one.seed == 0
        assert (one.oracle_error is not None) is checked
        assert one.oracle_error is None or one.oracle_error < 2e-5


_MODELS: dict[str, LoadedModel] = {}


def llama() -> LoadedModel:
    return _MODELS.setdefault("llama", tiny("llama"))


def test_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("kv_claims.run.runner.decode", no_more)
    monkeypatch.setattr("kv_claims.run.fed.decode", no_more)
    assert measure(llama(), [BASE, SOURCE, patched(PATCHES["splice"])])[1]


def test_a_full_swap_answers_as_the_source_and_a_self_patch_as_the_base() -> None:
    arms = [BASE, SOURCE, FULL_SWAP, self_patch(PATCHES["in-prefill"])]
    runner, found = measure(llama(), arms)
    by = {(one.arm, one.pair, one.seed): one for one in found}
    for one in found:
        if one.arm == FULL_SWAP.id:
            assert one.logp == pytest.approx(by["source", one.pair, one.seed].logp, abs=1e-6)
        if one.arm == runner.canonical(arms[3]).id:
            assert one.logp == pytest.approx(by["base", one.pair, one.seed].logp, abs=1e-6)


@pytest.mark.parametrize("size", [1, 5])
def test_they_do_not_depend_on_the_batch(size: int) -> None:
    arms = [BASE, SOURCE, *(patched(PATCHES[name]) for name in ("splice", "every-step"))]
    every, one_by_one = (measure(llama(), arms, size=n)[1] for n in (None, size))
    for a, b in zip(every, one_by_one, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-6)
        assert replace(a, logp=(), oracle_error=None) == replace(b, logp=(), oracle_error=None)


def test_an_answer_of_one_token_is_read_before_anything_is_fed() -> None:
    """A patch of the last layer at other positions is null there, whatever goes on later."""
    patch = Patch("residual", "3", "first(3)", active="every_step")
    _, found = measure(llama(), [BASE, patched(patch)], task=asked_task([1, 3]))
    by = {(one.arm, one.pair, one.seed): one for one in found}
    seen = set()
    for one in found:
        base = by["base", one.pair, one.seed]
        if one.arm != "base":
            same = [
                a == pytest.approx(b, abs=1e-9) for a, b in zip(one.logp, base.logp, strict=True)
            ]
            assert same == [n == 1 for n in one.tokens]
            seen.update(one.tokens)
    assert seen == {1, 2, 3}


def test_what_was_measured_is_kept_and_found_by_its_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    _, first = measure(model, [BASE, SOURCE], ledger=Ledger(tmp_path))
    assert (tmp_path / "answers").is_dir()
    other = asked_task((2,))
    _, again = measure(model, [BASE, SOURCE], ledger=Ledger(tmp_path), task=other)
    assert {one.key for one in again}.isdisjoint({one.key for one in first})

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(type(model.network), "forward", no_more)
    assert measure(model, [BASE, SOURCE], ledger=Ledger(tmp_path))[1] == first


def test_the_key_knows_what_was_fed() -> None:
    """The same pair, arm and seed; neither its other text, nor the answers of another task."""
    runner, _ = measure(llama(), [BASE])
    pair, _ = runner.task.first_pairs(2)
    kinds: tuple[Behind, Behind] = ("answers", "continuation")
    keys = {AnswerRuns(runner, kind).key(pair, BASE, 0) for kind in kinds}
    assert len(keys | {runner.key(pair, BASE, 0)}) == 3


def test_a_text_that_has_no_room_is_refused_before_a_model_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny("llama")
    monkeypatch.setattr(model.config, "max_position_embeddings", 26)
    monkeypatch.setattr(AnswerRuns, "_forward", None)
    long = asked_task((9,))
    with pytest.raises(UsageError, match="20 tokens and 9 new ones, but tiny:llama has 26"):
        measure(model, [BASE], task=long)


def test_brief_trials_are_as_long_as_they_must_be_and_counted_together() -> None:
    task = asked_task()
    runner = Runner(llama(), task, Sampling(9), Ledger())
    brief = runner.brief()
    trials = brief.run([BASE], task.first_pairs(2), [0])
    assert {len(trial.tokens) for trial in trials} == {BRIEF}
    long = runner.run([BASE], task.first_pairs(2), [0])
    assert [t.tokens[:BRIEF] for t in long] == [t.tokens for t in trials]
    assert runner.ran == brief.ran == 4
    assert brief.study != runner.study
    assert brief.store is runner.store


def test_outcomes_of_a_record() -> None:
    one = Answered(
        key="k",
        study="s",
        pair="p",
        pair_index=0,
        arm="base",
        seed=0,
        behind="answers",
        texts_sha="x",
        has_foil=True,
        are_choices=True,
        logp=(-2.0, -3.0, -1.5),
        tokens=(2, 1, 1),
        size=(8, 3, 3),
        rank=4,
        oracle_error=None,
    )
    assert one.value("logit_diff") == 1.0
    assert one.value("prob") == math.exp(-2)
    assert one.value("rank") == 4.0
    assert one.value("accuracy") == 0.0  # the third is likelier
    assert one.value("choice") == 1.0  # a byte of the first is
    assert replace(one, logp=(-2.0, -2.0, -3.0)).value("accuracy") == 0.0
    said = replace(one, behind="continuation", logp=(-6.0,), tokens=(3,), size=(9,))
    assert (said.value("loss"), said.value("perplexity")) == (2.0, math.exp(2))
    assert Answered.from_dict({**one.to_dict(), "logp": [-2, -3, -1.5]}) == one
    for wrong in ({"tokens": [1]}, {"logp": []}, {"tokens": [0, 1, 1]}, {"logp": [1.0, 0.0, 0.0]}):
        with pytest.raises(ValueError, match="an answer"):
            Answered.from_dict({**one.to_dict(), **wrong})
