"""Pin files: the same pins back, the same bytes, and an error for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kv_claims.errors import UsageError
from kv_claims.pins.file import PinFile, Place, load_pins, save, slug
from kv_claims.pins.pin import ArmPin, Pin
from tests.pins.conftest import Pinning
from tests.runs import KINDS, PAIRS

MODEL = "owner/a-model"


@pytest.fixture
def saved(all_kinds: dict[str, Pinning], tmp_path: Path) -> PinFile:
    """A file with a pin of each kind."""
    pins = {Place(name, "a"): made.pin for name, made in all_kinds.items()}
    file = PinFile(tmp_path / "owner--a-model.json", MODEL, None, pins)
    save(file)
    return file


def as_dicts(file: PinFile) -> dict[Place, dict[str, Any]]:
    return {place: pin.to_dict() for place, pin in file.pins.items()}


def test_what_is_saved_is_loaded(saved: PinFile) -> None:
    again = load_pins(saved.path.parent, MODEL, None)
    assert as_dicts(again) == as_dicts(saved)
    assert set(again.pins) == {Place(cell.claim.id, "a") for cell in KINDS}


def test_the_same_pins_are_the_same_bytes_whatever_their_order(saved: PinFile) -> None:
    turned = replace(saved, pins=dict(reversed(saved.pins.items())))
    assert turned.text() == saved.text() == load_pins(saved.path.parent, MODEL, None).text()


def test_what_cells_share_stands_once(saved: PinFile) -> None:
    content = json.loads(saved.path.read_text())
    (run,) = content["runs"].values()
    assert run["pair_ids"].split() == list(saved.pins["transfer", "a"].pairs)  # type: ignore[index]
    bases = [name for name in run["arms"] if name.startswith("base")]
    # One claim was decided with fewer pairs, and has a base arm of its own.
    assert bases == ["base", "base (2)"]
    assert {"behavior", "rv", "loglik", "pr@27/32/generated"} <= run["arms"]["base"].keys()
    # A line has at most a number or an id of each pair.
    assert max(map(len, saved.path.read_text().splitlines())) < 20 * PAIRS


def test_two_runs_of_an_arm_are_kept_apart(saved: PinFile) -> None:
    """A cell pinned later may have met another base run: its pin must not change the first."""
    one = saved.pins[Place("transfer", "a")]
    arms = dict(one.arms)
    arms["base"] = ArmPin(arms["base"].arm, ("ffff", *arms["base"].tokens[1:]), arms["base"].scores)
    other = replace(one, claim="later", plan={**one.plan, "claim": "later"}, arms=arms)
    save(replace(saved, pins={**saved.pins, Place("later", "a"): other}))
    again = load_pins(saved.path.parent, MODEL, None)
    assert again.pins[Place("later", "a")].to_dict() == other.to_dict()
    assert again.pins[Place("transfer", "a")].to_dict() == one.to_dict()


def test_cells_of_one_claim_may_have_been_stated_differently(saved: PinFile) -> None:
    one = saved.pins[Place("transfer", "a")]
    edited = replace(one, cell="b", plan={**one.plan, "margin": 0.3, "patch": ["kv@1/last(2)"]})
    save(replace(saved, pins={**saved.pins, Place("transfer", "b"): edited}))
    again = load_pins(saved.path.parent, MODEL, None)
    assert again.pins[Place("transfer", "b")].plan == edited.plan
    assert again.pins[Place("transfer", "a")].plan == one.plan


def test_pins_of_two_budgets_live_in_one_file(saved: PinFile) -> None:
    one = saved.pins[Place("transfer", "a")]
    other = replace(one, cell="b", setup={**one.setup, "seeds": 1, "temperature": 1.5})
    save(replace(saved, pins={**saved.pins, Place("transfer", "b"): other}))
    assert (
        as_dicts(load_pins(saved.path.parent, MODEL, None))[Place("transfer", "b")]
        == other.to_dict()
    )


def test_where_there_is_no_file_there_are_no_pins(tmp_path: Path) -> None:
    found = load_pins(tmp_path / "nowhere", MODEL, "main")
    assert found.pins == {}
    assert found.path == tmp_path / "nowhere/owner--a-model@main.json"


@pytest.mark.parametrize(
    ("model", "revision", "name"),
    [
        ("owner/a-model", None, "owner--a-model"),
        ("owner/a-model", "refs/pr/1", "owner--a-model@refs_pr_1"),
        ("gpt2", "main", "gpt2@main"),
    ],
    ids=["hub", "revision", "bare"],
)
def test_a_slug_is_a_file_name(model: str, revision: str | None, name: str) -> None:
    assert slug(model, revision) == name


def test_a_folder_goes_by_its_last_part(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    assert slug(f"{tmp_path}/my model/", None) == "my_model"


def edit(*path: str, to: Any = None) -> Callable[[dict[str, Any]], None]:
    """Put a value somewhere in a file's content; None takes it out."""

    def change(content: dict[str, Any]) -> None:
        *way, last = path
        for name in way:
            content = content[name if name != "*" else next(iter(content))]
        if to is None:
            del content[last if last != "*" else next(iter(content))]
        else:
            content[last] = to

    return change


CELL = ("claims", "transfer", "cells", "a")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit("schema", to=7), "schema 7, expected 1"),
        (edit("schema"), "schema None, expected 1"),
        (edit("model", to="other"), "pins of model 'other'"),
        (edit("revision", to="main"), "revision 'main'; expected 'owner/a-model', None"),
        (edit("claims"), "missing required field claims"),
        (edit("claims", to=[1]), "not what --claims-update writes"),
        (edit("claims", "transfer", to="x"), "not what --claims-update writes"),
        (edit("runs"), "not what --claims-update writes: $: object missing required field runs"),
        (edit("runs", "*"), ", cell a: not what --claims-update writes"),
        (edit("runs", "*", "seeds"), "missing required field seeds"),
        (edit("runs", "*", "arms", "base", "tokens", to="ab"), "one number for each of"),
        (edit("runs", "*", "arms", "base", "behavior", to="1 2 x"), "could not convert"),
        (edit("runs", "*", "pair_ids", to="ab cd"), "pairs"),
        (
            edit(*CELL, "verdict"),
            "$.claims['transfer'].cells['a']: object missing required field verdict",
        ),
        (
            edit(*CELL, "verdict", to="maybe"),
            "['transfer'].cells['a'].verdict: invalid enum value 'maybe'",
        ),
        (edit(*CELL, "arms", to=3), "['transfer'].cells['a'].arms: expected object, got int"),
        (edit(*CELL, "pairs", to="many"), "['a'].pairs: expected int, got str"),
        (edit(*CELL, "parts", to=[]), "parts: expected array of length >= 1"),
        (
            edit(*CELL, "parts", to=[{"outcome": "behavior"}]),
            "parts[0]: object missing required field estimand",
        ),
        (edit("runs", "*", "task_sha"), "missing required field task_sha"),
        (
            edit("claims", "transfer", "stated", "alpha"),
            "stated: $: object missing required field alpha",
        ),
        (edit(*CELL, "stated", "patch"), "stated: $: object missing required field patch"),
    ],
    ids=map(str, range(22)),
)
def test_another_content_is_an_error_that_says_where(
    saved: PinFile, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    content = json.loads(saved.path.read_text())
    change(content)
    saved.path.write_text(json.dumps(content))
    with pytest.raises(UsageError) as raised:
        load_pins(saved.path.parent, MODEL, None)
    assert str(raised.value).startswith(f"{saved.path}: ")
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"not json", "no JSON"),
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "schema 'list'"),
        (b"<<<<<<< HEAD\n{}", "no JSON"),
    ],
    ids=["text", "empty", "bytes", "list", "conflict"],
)
def test_what_is_no_pin_file_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "gpt2.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=told):
        load_pins(tmp_path, "gpt2", None)
    assert path.read_bytes() == content


def test_a_failure_half_way_leaves_the_earlier_file(
    saved: PinFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.path.read_bytes()

    def full(*_args: Any, **_options: Any) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(replace(saved, pins={}))
    assert saved.path.read_bytes() == before
    assert [path.name for path in saved.path.parent.iterdir()] == [saved.path.name]


def test_a_pin_without_numbers_survives(saved: PinFile) -> None:
    place = Place("gap", "a")
    one = saved.pins[place]
    arms = {
        role: ArmPin(arm.arm, arm.tokens, {"behavior": (float("nan"), *arm.scores["behavior"][1:])})
        for role, arm in one.arms.items()
    }
    other: Pin = replace(one, arms=arms)
    save(replace(saved, pins={place: other}))
    assert load_pins(saved.path.parent, MODEL, None).pins[place].to_dict() == other.to_dict()


def of_task(pin: Pin, task: str) -> Pin:
    return replace(pin, setup={**pin.setup, "task": task})


def test_pins_of_two_tasks_stand_in_one_file_and_are_read_apart(saved: PinFile) -> None:
    folder, before = saved.path.parent, json.loads(saved.path.read_text())
    own = load_pins(folder, MODEL, None)
    other = load_pins(folder, MODEL, None, "a-second")
    assert other.pins == {}
    place = Place("transfer", "a")
    second = of_task(replace(own.pins[place], verdict="invalid"), "a-second")
    save(replace(other, pins={place: second}))
    # Those of the first stay as they stand, and so does their place in the file.
    after = json.loads(saved.path.read_text())
    assert after["claims"] == before["claims"]
    assert list(after["tasks"]) == ["a-second"]
    assert load_pins(folder, MODEL, None, own.task).pins.keys() == own.pins.keys()
    assert load_pins(folder, MODEL, None, "a-second").pins[place].verdict == "invalid"
    # Written from either side, the bytes are the same.
    bytes_before = saved.path.read_bytes()
    for task in (own.task, "a-second"):
        save(load_pins(folder, MODEL, None, task))
        assert saved.path.read_bytes() == bytes_before
    # Without pins of the first, the second's are all there are.
    save(replace(load_pins(folder, MODEL, None, own.task), pins={}))
    assert json.loads(saved.path.read_text())["claims"].keys() == {"transfer"}
    assert load_pins(folder, MODEL, None, own.task).pins == {}


def test_a_pin_under_another_task_than_its_run_is_of_is_an_error(saved: PinFile) -> None:
    content = json.loads(saved.path.read_text())
    content["tasks"] = {"another": content["claims"]}
    content["claims"] = {}
    saved.path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="its run is of task"):
        load_pins(saved.path.parent, MODEL, None)


SHIPPED = sorted((Path(__file__).parents[2] / "claims/pins").glob("*.json"))


def test_mini_and_smollm2_are_pinned() -> None:
    assert {"mini", "smollm2"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_is_written_as_it_was(path: Path) -> None:
    """Those of mini are of before there were tasks."""
    found = load_pins(path.parent, path.stem, None)
    assert found.pins
    assert found.text() == path.read_text(encoding="utf-8")
    assert load_pins(path.parent, path.stem, None, "another task").text() == found.text()


def test_a_field_that_is_not_known_is_refused_as_it_would_be_lost(saved: PinFile) -> None:
    content = json.loads(saved.path.read_text())
    content["claims"]["transfer"]["cells"]["a"]["later"] = 1
    saved.path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="unknown field later"):
        load_pins(saved.path.parent, MODEL, None)
