"""mini: its language, its recipe on a few steps, and the weights that are shipped."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from kv_claims.__main__ import main
from kv_claims.errors import UsageError
from kv_claims.models.identity import weights_sha
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.models.mini import FOLDER, language, recipe
from kv_claims.models.mini.language import FRAMES, NEUTRAL, OF, OPENING, PLAIN, REGISTERS, SHARE, SO
from kv_claims.plugin.settings import Settings
from kv_claims.run.arms import BASE, SOURCE
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.load import load_task


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    return load_model("mini", device="cpu")


def test_mini_is_the_folder_shipped_with_its_own_task(mini: LoadedModel) -> None:
    assert mini.name == "mini"
    folder = load_model(str(FOLDER), device="cpu")
    assert weights_sha(mini.network) == weights_sha(folder.network)
    settings = Settings(root=Path("/nowhere"), models=("mini",))
    assert settings.task_of("mini") == load_task(FOLDER / "task.yaml")


def test_mini_and_its_folder_are_one_model() -> None:
    with pytest.raises(UsageError, match="model given twice"):
        Settings(root=Path(), models=("mini", str(FOLDER))).check()


def test_mini_without_its_weights_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kv_claims.models.mini.FOLDER", tmp_path / "gone")
    with pytest.raises(UsageError, match=r"gone is not there; expected .* `kv-claims mini DIR`"):
        load_model("mini")


def test_no_word_belongs_to_two() -> None:
    words = language.vocabulary()
    assert len(set(words)) == len(words)
    assert set(words) > {*language.lexicon("harbor"), *language.lexicon("kitchen"), SO}


@pytest.mark.parametrize("register", REGISTERS)
def test_between_opening_and_return_nothing_tells_the_register(
    register: language.Register,
) -> None:
    own = {*language.lexicon("harbor"), *language.lexicon("kitchen")}
    for seed in range(50):
        words = language.prompt(register, random.Random(seed))
        assert words[-1] == SO
        sentences = " ".join(words[:-1]).split(" .")[:-1]
        assert OPENING + NEUTRAL[0] <= len(sentences) <= OPENING + NEUTRAL[1]
        assert not own & set(" ".join(sentences[OPENING:]).split())
        assert own & set(words[:-1]) <= set(language.lexicon(register))


def test_a_few_steps_learn_something_and_the_folder_is_a_model_with_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses: list[float] = []
    recipe.train(12, told=lambda _step, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.2
    assert main(["mini", str(tmp_path / "made"), "--steps", "2"]) == 0
    assert "step 2 of 2" in capsys.readouterr().out
    model = load_model(str(tmp_path / "made"), device="cpu")
    assert model.encode("the boat drifts .") == [
        language.vocabulary().index(word) for word in ("the", "boat", "drifts", ".")
    ]
    assert load_task(tmp_path / "made/task.yaml").name == "two_registers"


@pytest.mark.parametrize(
    ("folder", "options", "error"),
    [(".", [], "expected a new folder"), ("new", ["--steps", "0"], "--steps 0")],
)
def test_it_is_not_trained_for_nothing(
    tmp_path: Path,
    folder: str,
    options: list[str],
    error: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mini", str(tmp_path / folder), *options]) == 2
    assert error in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_shipped_is_what_the_recipe_writes() -> None:
    content = (FOLDER / "task.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(content) == recipe.task()
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    made = recipe._config().to_dict()
    for key in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"):
        assert config[key] == made[key]
    vocabulary = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    words = sorted(vocabulary["model"]["vocab"].items(), key=lambda item: item[1])
    assert [word for word, _ in words] == language.vocabulary()


def _nats(sentence: list[str], register: language.Register) -> float:
    """Surprise of a sentence for one who knows the language and the register."""
    likelihood = 0.0
    for frame in FRAMES:
        likely = 1 / len(FRAMES) * (len(frame) == len(sentence) - 1)
        for word, open_or_closed in zip(sentence, frame, strict=False):
            slot = language._SLOTS.get(open_or_closed)
            if slot is None:
                likely *= word == open_or_closed
                continue
            own, plain = getattr(OF[register], slot), getattr(PLAIN, slot)
            likely *= SHARE * (word in own) / len(own) + (1 - SHARE) * (word in plain) / len(plain)
        likelihood += likely
    return -math.log(likelihood)


@torch.no_grad()
def test_it_keeps_the_register_over_the_neutral_part(mini: LoadedModel) -> None:
    """The sentence behind SO surprises it little more than one who knows the register.

    Whoever had forgotten it would lose ln 2 = 0.69 nats at its first word of a register.
    """
    draw = random.Random(99)
    lost = []
    for n in range(200):
        register = REGISTERS[n % 2]
        start = language.prompt(register, draw)
        after = language.sentence(register, draw)
        ids = torch.tensor([mini.encode(" ".join([*start, *after]))])
        logits = mini.network(input_ids=ids).logits[0, len(start) - 1 : -1]
        surprise = float(cross_entropy(logits, ids[0, len(start) :], reduction="sum"))
        lost.append(surprise - _nats(after, register))
    assert -0.1 < sum(lost) / len(lost) < 0.3


def test_sources_and_bases_go_on_in_their_registers(mini: LoadedModel) -> None:
    task = Settings(root=FOLDER.parents[2]).task_of("mini")
    assert task.name == "two_registers"
    runner = Runner(mini, task, Sampling(24), Ledger())
    trials = runner.run([SOURCE, BASE], task.first_pairs(20), [0])
    own = set(language.lexicon("harbor"))
    share = {
        arm.id: [word in own for t in trials if t.arm == arm.id for word in t.text.split()]
        for arm in (SOURCE, BASE)
    }
    found = {arm: sum(some) / len(some) for arm, some in share.items()}
    # About half of the words of a sentence are open, and SHARE of them are the register's.
    assert found["source"] > 0.2
    assert found["base"] < 0.02
