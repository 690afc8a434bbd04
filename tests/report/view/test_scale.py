"""Numbers and their places on a line."""

from __future__ import annotations

import math

import pytest

from kv_claims.report.view.scale import Scale


def test_0_and_1_of_a_share_are_always_on_the_line() -> None:
    scale = Scale.of([0.4, 0.5], share=True)
    assert scale.low < 0 < 1 < scale.high
    assert [tick.label for tick in scale.ticks(share=True)] == ["0", "1"]


def test_an_interval_without_end_does_not_make_all_others_points() -> None:
    scale = Scale.of([-40.0, 0.8, 300.0], share=True)
    assert scale.high - scale.low < 4
    mark = scale.mark(0.8, (-40.0, 300.0), (0.7, 0.9), None)
    assert mark.beyond == (True, True)
    assert mark.interval == (0, 1000)


def test_open_ends_of_a_region_reach_the_edge() -> None:
    scale = Scale.of([0.1], share=True)
    assert scale.mark(None, None, (None, 0.12), None).region == (0, scale.at(0.12))
    assert scale.mark(None, None, (0.1, None), None).region == (scale.at(0.1), 1000)


def test_nothing_measured_is_drawn_as_nothing() -> None:
    mark = Scale.of([None, math.nan], share=False).mark(None, None, (None, 0.0), None)
    assert (mark.point, mark.interval, mark.truth) == (None, None, None)


@pytest.mark.parametrize("values", [[], [0.0], [math.inf, None], [5.0, 5.0], [-1e-9]])
def test_any_numbers_make_a_line(values: list[float | None]) -> None:
    for share in (True, False):
        scale = Scale.of(values, share=share)
        assert scale.low < scale.high
        assert all(0 <= tick.at <= 1000 for tick in scale.ticks(share=share))


def test_a_pair_has_its_height_in_every_arm_and_a_place_is_drawn_once() -> None:
    scale = Scale(0.0, 10.0)
    heights = [dot.split()[1] for dot in scale.dots([1.0, 2.0, 3.0], 20).split("M")[1:]]
    assert heights == [dot.split()[1] for dot in scale.dots([9.0, 8.0, 7.0], 20).split("M")[1:]]
    assert scale.dots([1.0, math.nan], 20).count("M") == 1
    assert scale.dots([1.0] * 5000, 20).count("M") < 20
