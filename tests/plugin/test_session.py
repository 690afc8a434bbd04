"""Settings that no run can use: one error, and every file as it was.

Each option by itself is in `plugin/options/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kv_claims.errors import UsageError
from kv_claims.planted.build import save_planted
from kv_claims.planted.catalog import CATALOG
from kv_claims.plugin.profiles import PROFILES
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import EMBEDDED, LEDGER_FOLDER, Settings
from kv_claims.plugin.terminal import describe

ROOT = Path(__file__).parents[2]
STORED = "planted:stored-at-layer"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that nobody knows to be planted."""
    folder = tmp_path_factory.mktemp("models") / "a model"
    save_planted(CATALOG["stored-at-layer"], folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that can be used, with an earlier run's files in the folder."""
    out = tmp_path / "out"
    (out / LEDGER_FOLDER).mkdir(parents=True)
    (out / LEDGER_FOLDER / "main.jsonl").write_text("earlier\n")
    (out / "evidence.json").write_text("earlier")
    return Settings(root=ROOT, models=(STORED,), pairs=12, out=out)


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refusal_of(settings: Settings, tmp_path: Path) -> str:
    """The message of the one error, once it has left every file as it was."""
    before = everything_in(tmp_path)
    with pytest.raises(UsageError) as error:
        settings.check()
    assert everything_in(tmp_path) == before
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_good_settings_pass_and_change_nothing(settings: Settings, tmp_path: Path) -> None:
    before = everything_in(tmp_path)
    settings.check()
    assert everything_in(tmp_path) == before


def test_the_embedded_models_pass_as_they_are(tmp_path: Path) -> None:
    Settings(root=ROOT, models=EMBEDDED, out=tmp_path / "new").check()
    assert (tmp_path / "new" / LEDGER_FOLDER).is_dir()


@pytest.mark.parametrize(
    ("given", "shown", "expected"),
    [
        ({"models": (STORED, "planted:nope")}, "'planted:nope'", "expected one of"),
        ({"pairs": 1000}, "pairs 1000", f"task {STORED!r} has 300 pairs"),
        ({"dtype": "float8"}, "'float8'", "expected one of float64, float32, bfloat16, float16"),
        ({"task": Path("own.yaml")}, "own.yaml", f"{STORED} brings its own task"),
    ],
    ids=["second-model", "pairs", "dtype", "task-of-planted"],
)
def test_an_option_that_cannot_be_used_is_refused(
    settings: Settings, tmp_path: Path, given: dict[str, Any], shown: str, expected: str
) -> None:
    message = refusal_of(replace(settings, **given), tmp_path)
    assert shown in message
    assert expected in message


@pytest.mark.parametrize(
    "missing",
    ["config.json", "model.safetensors", "tokenizer*"],
    ids=["config", "weights", "words"],
)
def test_a_folder_without_a_whole_model_says_what_is_missing(
    settings: Settings, tmp_path: Path, checkpoint: Path, missing: str
) -> None:
    folder = tmp_path / "part"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(missing))
    message = refusal_of(replace(settings, models=(str(folder),)), tmp_path)
    assert message.startswith(f"model folder {folder}: holds no model, missing ")
    assert message.endswith(
        {"model.safetensors": "a *.safetensors file", "tokenizer*": "tokenizer files"}.get(
            missing, missing
        )
    )


def test_an_empty_folder_is_no_model(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refusal_of(replace(settings, models=(str(tmp_path / "empty"),)), tmp_path)
    assert "missing config.json, a *.safetensors file, tokenizer files" in message


def test_a_file_is_no_model(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    message = refusal_of(replace(settings, models=(str(tmp_path / "model.bin"),)), tmp_path)
    assert "not a folder and not a hub id; expected planted:NAME" in message


def task_content() -> dict[str, Any]:
    """A task file's content that can be used."""
    return {
        "schema": 1,
        "name": "own",
        "about": "two pairs",
        "scorer": "lexicon",
        "pairing": "one-to-one",
        "lexicon": ["mirror"],
        "sources": [{"id": f"s{i}", "family": "f", "text": f"ember veil {i}"} for i in range(2)],
        "bases": [{"id": f"b{i}", "family": "f", "text": f"river barn {i}"} for i in range(2)],
    }


@pytest.mark.parametrize(
    ("spoil", "shown", "expected"),
    [
        (lambda task: task.update(threshold=3), "unknown key threshold", "expected about, bases"),
        (lambda task: task.pop("scorer"), "missing key scorer", "task file"),
        (lambda task: task["sources"][1].update(text="  "), "sources entry 2", "not empty"),
        (lambda task: task["bases"][0].update(text=""), "bases entry 1", "not empty"),
        (
            lambda task: task["bases"][1].update(text="ember veil 0"),
            "source 's0' and base 'b1' are the same text",
            "expected a difference to transfer",
        ),
        (lambda task: task["bases"].pop(), "2 sources and 1 bases", "expected as many of each"),
        (lambda task: task.update(scorer="vibes"), "scorer 'vibes'", "expected one of ["),
        (lambda task: task.update(lexicon=[]), "`lexicon` is empty", "at least one word"),
        (lambda task: task.update(schema=2), "schema 2", "expected 1"),
    ],
    ids=[
        *("unknown-key", "missing-key", "empty-source", "empty-base", "same-text", "unequal"),
        *("scorer", "lexicon", "schema"),
    ],
)
def test_a_task_file_with_a_defect_is_refused_before_a_model_loads(
    settings: Settings,
    tmp_path: Path,
    checkpoint: Path,
    spoil: Callable[[dict[str, Any]], object],
    shown: str,
    expected: str,
) -> None:
    content = task_content()
    file = tmp_path / "own.yaml"
    own = replace(settings, models=(str(checkpoint),), task=file, pairs=2)
    file.write_text(yaml.safe_dump(content))
    own.check()
    spoil(content)
    file.write_text(yaml.safe_dump(content))
    message = refusal_of(own, tmp_path)
    assert str(file) in message
    assert shown in message
    assert expected in message


def test_more_pairs_than_a_task_file_has_are_refused(
    settings: Settings, tmp_path: Path, checkpoint: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(task_content()))
    own = replace(settings, models=(str(checkpoint),), task=file, pairs=3)
    message = refusal_of(own, tmp_path)
    assert message == f"pairs 3: task 'own' has 2 pairs (task file {file})"


def test_a_task_file_that_is_not_there_is_named(
    settings: Settings, tmp_path: Path, checkpoint: Path
) -> None:
    own = replace(settings, models=(str(checkpoint),), task=tmp_path / "no.yaml")
    assert refusal_of(own, tmp_path) == (
        f"task file {tmp_path / 'no.yaml'}: cannot be read (No such file or directory)"
    )


@pytest.mark.parametrize("place", ["out", f"out/{LEDGER_FOLDER}"], ids=["reports", "ledger"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    settings = Settings(root=ROOT, models=(STORED,), out=tmp_path / "out")
    message = refusal_of(settings, tmp_path)
    assert message.startswith(f"folder {tmp_path / place}: cannot be written (")
    assert message.endswith("expected a place for reports")


def test_settings_are_checked_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(Settings, "check", lambda _: calls.append(1))
    session = ClaimsSession(settings)
    session.check()
    session.check()
    assert calls == [1]


def test_a_profile_sets_what_was_not_asked(tmp_path: Path) -> None:
    for name, profile in PROFILES.items():
        settings = Settings(root=ROOT, profile=name, out=tmp_path)
        assert settings.n_seeds == profile.seeds
        assert settings.sampling.max_new_tokens == profile.max_new_tokens
        task = settings.task_of(STORED)
        assert settings.n_pairs(STORED, task) == min(profile.planted_pairs, len(task.pairs))
    asked = Settings(root=ROOT, profile="full", pairs=7, seeds=5, max_new_tokens=3)
    assert asked.n_pairs(STORED, asked.task_of(STORED)) == 7
    assert (asked.n_seeds, asked.sampling.max_new_tokens) == (5, 3)


def test_a_task_with_fewer_pairs_than_the_profile_wants_gives_all_it_has(
    tmp_path: Path, checkpoint: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(task_content()))
    settings = Settings(root=ROOT, task=file)
    assert settings.n_pairs(str(checkpoint), settings.task_of(str(checkpoint))) == 2


def test_a_fresh_start_is_taken_only_when_asked_for(settings: Settings) -> None:
    assert ClaimsSession(settings).start_fresh() is None
    assert (settings.out / LEDGER_FOLDER / "main.jsonl").exists()
    aside = ClaimsSession(replace(settings, resume=False)).start_fresh()
    assert aside is not None
    assert (aside / "main.jsonl").read_text() == "earlier\n"
    assert not (settings.out / LEDGER_FOLDER / "main.jsonl").exists()


def test_what_a_run_will_spend_fits_what_it_was_asked(settings: Settings) -> None:
    line = describe(replace(settings, seeds=1, max_new_tokens=8), 3, ["a", "b"])
    assert "3 cells of 2 claims on 1 model," in line
    assert "(12 pairs x 1 seed x 8 tokens)" in line
    assert "(up to 200 pairs" in describe(replace(settings, pairs=None), 1, ["a"])
