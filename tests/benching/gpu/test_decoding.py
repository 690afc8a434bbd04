"""`kv-claims bench --gpu`: the model, its floor, what is said; tried on a tiny model on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kv_claims.__main__ import main
from kv_claims.benching.gpu import decoding
from kv_claims.benching.gpu.decoding import FULL, SMALL, Rates, Row, bounds, model_of
from kv_claims.run.routes import Route

META = torch.device("meta")


def test_the_model_is_made_where_it_is_used_in_half_precision() -> None:
    """On the device that has no memory: a weight made elsewhere, or wider first, would be there."""
    model = model_of(FULL, META)
    parameters = list(model.network.parameters())
    assert {(p.device.type, p.dtype) for p in parameters} == {("meta", torch.bfloat16)}
    # Mistral-7B has 7,241,732,096.
    assert sum(p.numel() for p in parameters) == 7_241_732_096


def test_the_floor_is_weights_and_filled_cache() -> None:
    """A position of Mistral-7B's cache takes 2 x 32 layers x 8 heads x 128 numbers: 131,072 B."""
    model = model_of(FULL, META)
    weights = 2 * (7_241_732_096 - 32_000 * 4096)
    for rows, prompt in ((128, 64), (512, 128)):
        floor, _ = bounds(model, rows, prompt, 100, Rates(1e12, 1e12))
        # The first step fills the last prompt token's position, the hundredth 99 more.
        cache = rows * 131_072 * (prompt + 99 / 2)
        assert floor == pytest.approx((weights + cache) / 1e12)
    few, many = (bounds(model, rows, 64, 100, Rates(1e12, 1e12))[1] for rows in (1, 512))
    assert many == pytest.approx(512 * few)
    assert many == pytest.approx(512 * weights / 2 / 1e12, rel=0.01)


def test_the_command_runs_on_a_cpu_and_says_what_that_is_worth(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--gpu", "--small", "--device", "cpu", "--rounds", "1", "--out", str(tmp_path)]
    assert main(["bench", *options]) == 0
    said = capsys.readouterr().out
    assert "SAY NOTHING ABOUT A GPU" in said
    assert "not taken" not in said
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["rows"], row["prompt"]) for row in found["steps"]] == [
        (rows, prompt) for prompt in SMALL.prompts for rows in SMALL.rows
    ]
    for row in found["steps"]:
        assert row["ratio"] == pytest.approx(row["routes"]["static"] / row["floor"])
        assert min(row["routes"]["plain"], row["floor"], row["products"]) > 0


def test_a_route_that_is_not_taken_and_memory_that_runs_out_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "route_of", lambda *_: Route("plain", "for a reason"))
    result = decoding.measure("cpu", small=True, rounds=1)
    assert any("not taken: for a reason" in line for line in result["lines"])
    assert {tuple(row["routes"]) for row in result["steps"]} == {("plain",)}
    assert {row["ratio"] for row in result["steps"]} == {None}

    def runs_out(*_: object) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.undo()
    monkeypatch.setattr(decoding, "_step", runs_out)
    result = decoding.measure("cpu", small=True, rounds=1)
    assert all(row["routes"] == {"plain": None, "static": None} for row in result["steps"])


def test_a_ratio_is_of_the_static_route() -> None:
    assert Row(1, 1, {"plain": 9.0, "static": 3.0}, 2.0, 1.0).ratio == 1.5


@pytest.mark.parametrize(
    "options",
    [
        ["--gpu", "--device", "cpu"],
        ["--gpu", "--reference"],
        ["--gpu", "--model", "planted:relay"],
        ["--reference", "--small"],
        ["--gpu", "--small", "--held-against", "x"],
    ],
    ids=["no-gpu", "both", "and-a-model", "small-alone", "held"],
)
def test_bad_usage_is_said_in_a_line(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert "expected" in capsys.readouterr().err
