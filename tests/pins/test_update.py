"""What `--claims-update` makes of a file: what is new, what differs, what goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kv_claims.pins.file import PinFile, Place
from kv_claims.pins.pin import Pin
from kv_claims.pins.update import updated
from tests.pins.conftest import Pinning

HERE, GONE = Place("transfer", "a"), Place("gap", "a")


def a_file(*pins: Pin) -> PinFile:
    return PinFile(Path("a.json"), "m", None, {Place(p.claim, p.cell): p for p in pins})


def test_a_new_pin_is_said(all_kinds: dict[str, Pinning]) -> None:
    pin = all_kinds["transfer"].pin
    made = updated(a_file(), [pin], [], {})
    assert dict(made.file.pins) == {HERE: pin}
    assert made.lines == (f"transfer, cell a: new, {pin.verdict} {pin.estimate:.3f}",)


def test_the_same_pin_changes_nothing(all_kinds: dict[str, Pinning]) -> None:
    pins = [made.pin for made in all_kinds.values()]
    made = updated(a_file(*pins), [Pin.from_dict(pin.to_dict()) for pin in pins], [], {})
    assert made.lines == ()
    assert made.file.text() == a_file(*pins).text()


def test_a_pin_that_moved_says_from_what_to_what(all_kinds: dict[str, Pinning]) -> None:
    pin = all_kinds["transfer"].pin
    before = replace(pin, verdict="refuted")
    made = updated(a_file(before), [pin], [], {HERE: "verdict: refuted -> supported"})
    assert made.file.pins[HERE] == pin
    (line,) = made.lines
    assert line.startswith("transfer, cell a: refuted 0.")
    assert f"-> {pin.verdict} " in line
    assert line.endswith(": verdict: refuted -> supported")


def test_a_claim_that_moved_to_another_file_takes_its_other_cells_along(
    all_kinds: dict[str, Pinning],
) -> None:
    pin = all_kinds["transfer"].pin
    other = replace(pin, cell="b")
    made = updated(a_file(pin, other), [replace(pin, test="claims/test_b.py::test_a")], [], {})
    assert {one.test for one in made.file.pins.values()} == {"claims/test_b.py::test_a"}


def test_unused_pins_go_and_cells_that_were_not_run_stay(all_kinds: dict[str, Pinning]) -> None:
    pins = [all_kinds[name].pin for name in ("transfer", "gap", "order")]
    made = updated(a_file(*pins), [], [GONE], {})
    assert set(made.file.pins) == {HERE, Place("order", "a")}
    (line,) = made.lines
    assert line.startswith("gap, cell a: removed, no claim uses it (")
