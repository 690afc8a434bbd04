"""Figures of what a script has: its verdicts, or its table of trials."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from kv_claims import Patch, Region, UsageError, Verdict, judge, run_study, show
from kv_claims.judging.fieller import Interval
from kv_claims.models.load import LoadedModel
from tests.judging.frames import PASSED

SVG = "{http://www.w3.org/2000/svg}"
PATCHES = {
    f"{layers}, {width}": Patch("kv", layers, f"last({width})")
    for layers in ("9", "0:8")
    for width in (8, 32)
}
WHOLE = Patch("kv", "all", "all")


@pytest.fixture(scope="module")
def frame(stored: LoadedModel) -> pd.DataFrame:
    assert stored.planted is not None
    arms = {**PATCHES, "whole": WHOLE}
    return run_study(stored, stored.planted.task(12), arms, max_new_tokens=8)


def of(frame: pd.DataFrame, arm: str, **options: object) -> Verdict:
    some = frame[frame.arm.isin(["base", "source", arm])].replace({"arm": {arm: "patched"}})
    return judge(some, Region(high=0.3), **options)


def texts(figure: object) -> list[str]:
    root = ET.fromstring(figure._repr_svg_())
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_a_table_is_a_map_of_layers_and_positions(frame: pd.DataFrame) -> None:
    seen = texts(show(frame[frame.arm != "whole"]))
    assert seen[:6] == [
        *("Transfer by layers and positions", "layers", "last(8)", "last(32)", "9"),
        f"{of(frame, '9, 8').estimate:.2f}",
    ]
    assert "0 to 7" in seen
    assert "exploratory, no verdict" in seen


def test_what_could_say_nothing_has_no_number(frame: pd.DataFrame) -> None:
    assert of(frame, "whole").word == "invalid"
    assert "1.00" not in texts(show(frame))
    assert "-" in texts(show(frame))
    assert "1.00" in texts(show(frame.drop(columns="refused")))


def test_verdicts_are_intervals_by_name(frame: pd.DataFrame) -> None:
    verdicts = {name: of(frame, name) for name in ("9, 8", "whole")}
    seen = texts(show(verdicts, title="Mine"))
    assert {"Mine", "9, 8", "whole", f"{verdicts['9, 8'].word}*", "invalid*"} <= set(seen)
    assert any("not every check was made" in text for text in seen)
    verified = texts(show([of(frame, "9, 8", checks=PASSED)]))
    assert not any("*" in text for text in verified)


def test_verdicts_by_patch_are_a_map_with_words(frame: pd.DataFrame) -> None:
    seen = texts(show({patch: of(frame, name) for name, patch in PATCHES.items()}))
    assert {"9", "0:8", "last(8)", "last(32)"} <= set(seen)
    assert sum(text.endswith("*") for text in seen) == len(PATCHES)
    other = Patch("v", "9", "last(8)")
    lines = texts(show({PATCHES["9, 8"]: of(frame, "9, 8"), other: of(frame, "9, 32")}))
    assert {str(PATCHES["9, 8"]), str(other)} <= set(lines)


def test_arms_that_are_no_map_are_a_line_each(frame: pd.DataFrame) -> None:
    seen = texts(show(frame[["pair", "arm", "seed", "score"]]))
    assert {*PATCHES, "whole"} <= set(seen)
    assert any("95%" in text and "no verdict" in text for text in seen)


@pytest.mark.parametrize(
    ("low", "high", "markers"), [(-5.0, 9.0, "<>"), (0.2, 9.0, "|>"), (2.5, 9.0, ">>")]
)
def test_an_interval_that_goes_on_ends_in_an_arrow_within_the_picture(
    low: float, high: float, markers: str
) -> None:
    shown = Interval(low, high)
    verdict = Verdict("refuted", "", True, 0.5, shown, 0.95, None, {}, 10, 10, ())
    (axes,) = show(verdict).axes
    ends = [line for line in axes.lines if line.get_marker() in ("<", ">", "|")]
    assert "".join(line.get_marker() for line in ends) == markers
    left, right = axes.get_xlim()
    assert all(left <= line.get_xdata()[0] <= right for line in ends)


def test_it_is_saved_in_the_format_of_its_name(frame: pd.DataFrame, tmp_path: Path) -> None:
    begins = {"a.svg": b"<?xml", "a.pdf": b"%PDF", "a.png": b"\x89PNG"}
    for name, begin in begins.items():
        show(of(frame, "9, 8"), path=str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(begin)
    for name, said in (("a.docx", "ending '.docx', expected one of"), ("no/a.svg", "no folder")):
        with pytest.raises(UsageError, match=re.escape(said)):
            show(of(frame, "9, 8"), path=tmp_path / name)


def test_anything_else_is_an_error_that_says_what_was_given(frame: pd.DataFrame) -> None:
    gap = judge(frame[frame.arm.isin(["base", "source"])], Region(low=0), estimand="gap")
    ends = frame[frame.arm.isin(["base", "source"])]
    for what, said in (
        (3, "show: int, expected a Verdict"),
        ([], "show: list of nothing"),
        ({"a": 1}, "show: dict of"),
        ([gap, of(frame, "9, 8")], "verdicts on gap and transfer"),
        (ends, "no patched arm"),
        (frame.drop(index=frame.index[frame.arm == "9, 8"][0]), "trials are missing: 9, 8"),
        (frame.drop(columns="score"), "missing columns"),
    ):
        with pytest.raises(UsageError, match=said):
            show(what)
