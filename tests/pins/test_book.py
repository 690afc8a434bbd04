"""The pins of a run: which files, which pins are used, what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.pins.book import PinBook
from kv_claims.pins.file import PinFile, Place, load_pins, save
from tests.pins.conftest import Pinning

FILE = "claims/test_a.py"


@pytest.fixture
def root(all_kinds: dict[str, Pinning], tmp_path: Path) -> Path:
    """A project with pins of two claims of one test file."""
    pins = {Place(name, "a"): all_kinds[name].pin for name in ("transfer", "gap")}
    save(PinFile(tmp_path / "pins/m.json", "m", None, pins))
    (tmp_path / "claims").mkdir()
    (tmp_path / FILE).touch()
    return tmp_path


def a_book(root: Path, *models: str, updating: bool = False) -> PinBook:
    return PinBook(root, root / "pins", models or ("m",), None, updating)


def test_a_planted_model_has_no_pins(root: Path) -> None:
    assert a_book(root).of("planted:inert") is None


def test_updating_needs_a_model_that_can_have_pins(root: Path) -> None:
    PinBook(root, root / "pins", (), None, updating=False).check()
    with pytest.raises(UsageError, match="planted models have no pins"):
        PinBook(root, root / "pins", (), None, updating=True).check()


def test_a_file_that_is_none_is_found_before_anything_runs(root: Path) -> None:
    (root / "pins/m.json").write_text("{")
    with pytest.raises(UsageError, match="no JSON"):
        a_book(root).check()


def test_two_models_of_one_file_are_an_error(root: Path) -> None:
    for place in ("one", "two"):
        (root / place / "m").mkdir(parents=True)
    models = (str(root / "one/m"), str(root / "two/m"))
    with pytest.raises(UsageError, match=r"m\.json: the pins of both .*one/m and .*two/m"):
        a_book(root, *models).check()
    (root / "pins/m.json").unlink()
    a_book(root, *models).check()
    with pytest.raises(UsageError, match="the pins of both"):
        a_book(root, *models, updating=True).check()


@pytest.mark.parametrize(
    ("cells", "files", "unused"),
    [
        ({"transfer": {"a", "b"}, "gap": {"a"}}, {FILE}, []),
        # Of a file that was not collected nothing is known.
        ({}, set(), []),
        ({"transfer": {"a"}}, {FILE}, ["gap, cell a"]),
        ({"transfer": {"b"}, "gap": {"a"}}, {FILE}, ["transfer, cell a"]),
        # The claim may have moved to another file.
        ({"transfer": {"a"}, "gap": {"a"}}, {"claims/test_b.py"}, []),
    ],
    ids=["all-used", "not-collected", "claim-gone", "cell-gone", "moved"],
)
def test_pins_that_no_claim_uses_are_an_error(
    root: Path, cells: dict[str, set[str]], files: set[str], unused: list[str]
) -> None:
    book = a_book(root)
    if not unused:
        book.look_for_unused("m", cells, files)
        assert book.unused == {"m": []}
        return
    with pytest.raises(UsageError, match=rf"pins that no claim uses: {unused[0]};"):
        book.look_for_unused("m", cells, files)


def test_a_test_file_that_is_gone_leaves_its_pins_unused(root: Path) -> None:
    (root / FILE).unlink()
    (root / "claims/test_b.py").touch()
    (root / "claims/test_c.py").touch()
    # It may have been renamed to one that was not collected.
    a_book(root).look_for_unused("m", {}, {"claims/test_b.py"})
    with pytest.raises(UsageError, match="pins that no claim uses: gap, cell a, transfer,"):
        a_book(root).look_for_unused("m", {}, {"claims/test_b.py", "claims/test_c.py"})


def test_a_file_outside_the_project_says_nothing(root: Path, all_kinds: dict[str, Pinning]) -> None:
    pin = replace(all_kinds["gap"].pin, test="/elsewhere/test_mine.py::test_mine")
    save(PinFile(root / "pins/m.json", "m", None, {Place("gap", "a"): pin}))
    book = a_book(root)
    book.look_for_unused("m", {}, {"claims/test_a.py"})
    assert book.unused == {"m": []}


def made(pinning: Pinning, *changes: str) -> dict[str, object]:
    pin = pinning.pin.to_dict()
    return {"model": "m", "pin": pin, "changes": list(changes), "notes": []}


def test_an_update_removes_what_is_unused_and_keeps_what_was_not_run(
    root: Path, all_kinds: dict[str, Pinning]
) -> None:
    book = a_book(root, updating=True)
    book.look_for_unused("m", {"transfer": {"a"}, "order": {"a"}}, {FILE})
    book.add(made(all_kinds["order"]))
    book.write()
    assert set(load_pins(root / "pins", "m", None).pins) == {
        Place("transfer", "a"),
        Place("order", "a"),
    }
    head, *lines = book.lines
    assert head == f"pins in {root / 'pins/m.json'}: 2 changed of 1 that were run"
    assert [line.split(":")[0] for line in lines] == ["  order, cell a", "  gap, cell a"]


def test_a_run_like_the_last_writes_the_same_bytes(
    root: Path, all_kinds: dict[str, Pinning]
) -> None:
    before = (root / "pins/m.json").read_bytes()
    book = a_book(root, updating=True)
    for name in ("gap", "transfer"):
        book.add(made(all_kinds[name]))
    book.write()
    assert (root / "pins/m.json").read_bytes() == before
    assert book.lines == [f"pins in {root / 'pins/m.json'}: 0 changed of 2 that were run"]


def test_what_must_not_be_pinned_is_said_and_its_pin_stays(root: Path) -> None:
    before = (root / "pins/m.json").read_bytes()
    book = a_book(root, updating=True)
    book.add({"pin": None, "changes": ["gap, cell a: self-patch failed"], "notes": []})
    book.write()
    assert (root / "pins/m.json").read_bytes() == before
    assert book.lines[0] == "not pinned: gap, cell a: self-patch failed"


def test_what_a_failed_test_found_and_what_shards_dispute_is_not_pinned(
    root: Path, all_kinds: dict[str, Pinning]
) -> None:
    before = (root / "pins/m.json").read_bytes()
    book = a_book(root, updating=True)
    book.add(made(all_kinds["order"]), failed=True)
    book.add(made(all_kinds["both"]))
    book.drop("m", Place("both", "a"), "two workers recorded other tokens")
    book.drop("m", Place("both", "b"), "never seen")
    book.write()
    assert (root / "pins/m.json").read_bytes() == before
    assert book.lines[:2] == [
        "not pinned: order, cell a: its test failed",
        "not pinned: both, cell a: two workers recorded other tokens",
    ]


def test_a_run_that_was_broken_off_says_that_nothing_was_written(root: Path) -> None:
    book = a_book(root, updating=True)
    book.break_off()
    assert book.lines == ["pins: nothing was written, as the run was broken off"]
    book = a_book(root)
    book.break_off()
    assert book.lines == []


def test_without_updating_nothing_is_written(root: Path) -> None:
    before = (root / "pins/m.json").read_bytes()
    book = a_book(root)
    book.write()
    assert (root / "pins/m.json").read_bytes() == before
    assert book.lines == []


def test_another_task_neither_uses_nor_removes_the_pins_of_the_first(
    root: Path, all_kinds: dict[str, Pinning]
) -> None:
    def book(task: str, *, updating: bool) -> PinBook:
        return PinBook(root, root / "pins", ("m",), None, updating, lambda _model: task)

    first = all_kinds["gap"].pin.setup["task"]
    other = book("another", updating=True)
    # No claim of these cells is collected: for the first task that would be an error.
    other.look_for_unused("m", {"order": {"a"}}, {FILE})
    assert other.of("m").pins == {}
    pin = all_kinds["gap"].pin
    pin = replace(pin, verdict="invalid", setup={**pin.setup, "task": "another"})
    other.add({"model": "m", "pin": pin.to_dict(), "changes": [], "notes": []})
    other.write()
    assert [line.split(":")[0] for line in other.lines[1:]] == ["  gap, cell a"]
    again = book(first, updating=False).of("m")
    assert again.pins.keys() == {Place("transfer", "a"), Place("gap", "a")}
    assert again.pins[Place("gap", "a")].to_dict() == all_kinds["gap"].pin.to_dict()
    with pytest.raises(UsageError, match="pins that no claim uses: gap, cell a"):
        book("another", updating=False).look_for_unused("m", {"gap": {"b"}}, {FILE})


@pytest.mark.parametrize("file", ["../../../etc/test_mine.py", "/etc/test_mine.py"])
def test_a_test_file_that_leads_out_of_the_project_is_not_looked_for(
    root: Path, all_kinds: dict[str, Pinning], file: str
) -> None:
    pin = replace(all_kinds["gap"].pin, test=f"{file}::test_mine")
    save(PinFile(root / "pins/m.json", "m", None, {Place("gap", "a"): pin}))
    a_book(root).look_for_unused("m", {}, {"claims/test_a.py"})
